"""What callers of lowlevel/operations.py give, as the kernel takes it; or the error of `os` for what it
would take for something else.

The kernel reads names and buffers where they lie: whoever passes on what `pointer_to`,
`address_of` or `vector_of` returns holds what it was made from until the operation is over.
"""

from __future__ import annotations

import errno
import os
from array import array as array_module
from typing import TYPE_CHECKING, Final

from ..loop.operation import HERE, failure
from ..ring.native import ffi

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed import ReadableBuffer, StrOrBytesPath

    from ..loop.readiness import HasFileno
    from ..ring.native import Pointer

AT_FDCWD: Final = -100
FURTHEST: Final = (1 << 63) - 1
"""The largest off_t."""
_MOST_BUFFERS: Final = 1024
"""UIO_MAXIOV of readv(2)."""


def fileno_of(file: int | HasFileno, *, moves: bool = False) -> int:
    """The descriptor. A file of ours keeps its position to itself, unless the kernel's is what
    the operation ``moves``."""
    if isinstance(file, int):
        return file
    try:
        fileno = file.fileno
    except AttributeError:
        raise TypeError(f"a file has to be a descriptor, or to have fileno(), not {file!r}") from None
    return fileno() if moves else getattr(file, "_own_fileno", fileno)()


def asks_of(file: int | HasFileno) -> Callable[[], int] | None:
    """What tells again, of a file that is an object, which descriptor it has; changes nothing."""
    return None if isinstance(file, int) else getattr(file, "_own_fileno", file.fileno)


def directory_of(dir_fd: int | None) -> int:
    return AT_FDCWD if dir_fd is None else dir_fd


def size_of(number: int) -> int:
    """A number of bytes that the kernel takes: an off_t, and not negative."""
    if not -FURTHEST <= number <= FURTHEST:
        raise OverflowError(f"{number} is more than any file has bytes")
    if number < 0:
        raise failure(-errno.EINVAL)
    return number


def offset_of(offset: int | None) -> int:
    return HERE if offset is None else size_of(offset)


def name_of(path: StrOrBytesPath) -> bytes:
    """As the kernel reads it: ended by a null byte."""
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    return name + b"\0"


def address_of(buffer: ReadableBuffer) -> int:
    return int(ffi.cast("uintptr_t", ffi.from_buffer(buffer)))


def pointer_to(view: memoryview) -> Pointer:
    """Does not pin: the caller holds ``view``, which does. Were it to hold an export of
    ``view``, CPython up to 3.12 would crash when it finds both in a cycle of garbage, as
    after an error that somebody keeps."""
    pointer: Pointer = ffi.cast("void *", ffi.from_buffer(view))
    return pointer


def bytes_of(buffer: ReadableBuffer, *, writable: bool = False) -> memoryview:
    view = memoryview(buffer)
    if writable and view.readonly:
        raise TypeError("the buffer is read-only, and is to be read into")
    if not view.c_contiguous:
        raise BufferError("the buffer is not contiguous")
    return view.cast("B") if view.nbytes else memoryview(bytearray())  # a shape with a 0 has no cast


def vector_of(views: Sequence[memoryview]) -> Pointer:
    """An array of struct iovec, which does not pin what it points to."""
    if len(views) > _MOST_BUFFERS:
        raise failure(-errno.EINVAL)
    array = array_module("L")
    for view in views:
        array.append(address_of(view))
        array.append(len(view))
    return ffi.from_buffer(array)


def as_unsigned(fd: int) -> int:
    if not -1 << 31 <= fd < 1 << 31:
        raise OverflowError(f"{fd} is no file descriptor")
    return fd & 0xFFFFFFFF
