"""Single kernel operations as async functions, for those who build on trio-uring.

They need a run on io_uring; in any other run they raise RuntimeError. Each makes one operation, and
returns the kernel's answer. If that is an error, it raises OSError with the errno and, where it was
given one, the file's name. If the kernel is too old for an operation, the error is EINVAL, and its
message says which kernel is needed. ``python -m trio_uring doctor`` lists what there is.

- Offsets and lengths are in bytes. ``offset=None`` stands for the file's own position, which then moves.
- Some files are read and written by a worker thread of Trio's: those that have a position, when no
  offset is given, and all on file systems that the ring was not tested on (`trio_uring.open_file` says
  which it was tested on).
- A buffer is any object with the buffer protocol. It has to be contiguous, and writable if it is read
  into. It cannot be resized before the operation is over.
- A file is a descriptor, or an object that has ``fileno()``. It has to stay open until the operation
  is over.
- ``dir_fd`` is the descriptor of the directory where a relative path starts. None stands for the working
  directory.

Every function is a checkpoint. When its scope is cancelled, the kernel is asked to stop the operation.
If the kernel does, the function raises `trio.Cancelled`. If the operation was over by then, or could not
be stopped, the function returns as usual. Operations on regular files usually cannot be stopped.
"""

from . import operations
from .operations import *  # noqa: F403

__all__: list[str] = []
__all__ += operations.__all__
