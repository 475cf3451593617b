"""Turns the arguments of the functions of lowlevel/operations.py into what the kernel takes.

Each function raises what `os` would raise, if the kernel would take an argument for something else.

The kernel reads and writes names and buffers where they lie. So whoever hands it what `pointer_to`,
`address_of` or `vector_of` returns has to hold the object that this was made from until the operation is
over.
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
"""The most buffers that one readv(2) or writev(2) takes (UIO_MAXIOV)."""


def fileno_of(file: int | HasFileno, *, moves: bool = False) -> int:
    """Returns the descriptor of a file. ``moves`` says that the operation uses the position that the kernel
    has. Then an asynchronous file of ours gives up its own position, as with ``fileno()``."""
    if isinstance(file, int):
        return file
    try:
        fileno = file.fileno
    except AttributeError:
        raise TypeError(f"a file has to be a descriptor, or to have fileno(), not {file!r}") from None
    return fileno() if moves else getattr(file, "_own_fileno", fileno)()


def asks_of(file: int | HasFileno) -> Callable[[], int] | None:
    """Returns a function that tells again which descriptor a file has, and changes nothing; None if the
    file is a plain descriptor."""
    return None if isinstance(file, int) else getattr(file, "_own_fileno", file.fileno)


def directory_of(dir_fd: int | None) -> int:
    return AT_FDCWD if dir_fd is None else dir_fd


def size_of(number: int) -> int:
    """Checks that a number of bytes is not negative and fits in an off_t, and returns it."""
    if 0 <= number <= FURTHEST:
        return number
    if -FURTHEST <= number < 0:
        raise failure(-errno.EINVAL)
    raise OverflowError(f"{number} is more than any file has bytes")


def offset_of(offset: int | None) -> int:
    return HERE if offset is None else size_of(offset)


def name_of(path: StrOrBytesPath) -> bytes:
    """Returns a path as the kernel reads it: encoded, and ended by a null byte."""
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    return name + b"\0"


def address_of(buffer: ReadableBuffer) -> int:
    return int(ffi.cast("uintptr_t", ffi.from_buffer(buffer)))


def pointer_to(view: memoryview) -> Pointer:
    """Returns a pointer to the memory of ``view``. It does not keep that memory alive: the caller has to
    hold ``view``, which does. If the pointer did, the garbage collector of CPython up to 3.12 would crash
    when it finds both in a cycle, as when somebody keeps an exception."""
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
    """Returns an array of struct iovec that points to the memory of ``views``. It does not keep that memory
    alive: the caller has to hold ``views``."""
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
