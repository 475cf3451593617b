"""Single kernel operations as async functions, for those who build on trio-uring.

They need a run on io_uring; in any other they raise RuntimeError. Each makes one
submission and returns the kernel's answer: an int >= 0, or it raises OSError with errno
and, where it was given one, the file's name. An operation that the kernel is too old for
raises OSError with EINVAL, and says which kernel it needs; ``python -m trio_uring doctor``
lists what there is.

Offsets and lengths are in bytes. ``offset=None`` is the file's own position, which moves: a
file that has one is read and written by a worker thread of Trio's then, as files on file systems
are that the ring was not tested on, with an offset too (`trio_uring.open_file` says which).
A buffer is whatever has the buffer protocol, contiguous, and writable if it is read into;
it cannot be resized before the operation is over. A file is a descriptor, or has
``fileno()``; it has to stay open that long. ``dir_fd`` is a directory's descriptor, from
where a relative path starts; None is the working directory.

Every function is a checkpoint. When its scope is cancelled, the kernel is asked to stop:
it raises `trio.Cancelled` if the kernel did, and returns as usual if the operation was
over by then or could not be stopped. Regular files usually cannot.
"""

from . import operations
from .operations import *  # noqa: F403

__all__: list[str] = []
__all__ += operations.__all__
