"""Names of files that the calling thread looks up itself, where it need not wait (native/names.c).

The kernel finds a name that it has cached in two microseconds. The ring would have a worker find it, and
to wake that takes ten times as long. So a call first looks whether it is cancelled. Then it asks the
kernel, in its own thread, for what is cached. If the kernel knows the name, the call yields, unless it
has a budget (`go_on`). Otherwise the ring makes the operation.

This is done only on file systems that are known to be measured (lowlevel/file_systems.py). Others may have
to wait for a server, and what is cached of them may be out of date.

Tasks call these functions between a cancel point and `go_on`. The functions return -errno if the kernel
does not know the name or reports an error. Unless that is in `SAID`, the caller then asks the ring.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final

from ..ring.native import ffi, lib, missing
from .file_systems import learn_by_name

if TYPE_CHECKING:
    from .file_systems import Status

_new = ffi.new
_find = lib.tu_find_at_once
_mode = lib.tu_mode_at_once
_open = lib.tu_open_at_once
_read_whole = lib.tu_read_whole_at_once
_make_plain = lib.tu_make_plain
_STATUS: Final[Any] = ffi.typeof("tu_status *") if missing is None else None

ELSEWHERE: Final = -errno.EXDEV
"""The answer for a name on a file system that is not measured, and for a device. To open such a file may
mean to wait."""
SAID: Final = (-errno.ENOENT, -errno.ENOTDIR)
"""The errors that are as certain as success. After any other the ring is asked."""
_CAN_WAIT: Final = ~(os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NOATIME)
"""The flags with which open(2) may have to wait, because it makes a file or the file system is frozen."""


def status_at_once(dir_fd: int, name: bytes, flags: int) -> os.stat_result | int:
    """Returns what `os.stat` would, or -errno."""
    fd = _find(dir_fd, name, flags)
    if fd == ELSEWHERE and learn_by_name(dir_fd, name, flags):
        fd = _find(dir_fd, name, flags)
    if fd < 0:
        return fd
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def mode_at_once(dir_fd: int, name: bytes, flags: int) -> int:
    """Returns the mode of what a name leads to, or -errno."""
    mode = _mode(dir_fd, name, flags)
    if mode == ELSEWHERE and learn_by_name(dir_fd, name, flags):
        mode = _mode(dir_fd, name, flags)
    return mode


def open_at_once(dir_fd: int, name: bytes, flags: int) -> tuple[int, Status]:
    """Opens a regular file, as open(2) does. Returns the descriptor or -errno, and the file's status. If it
    has opened something else than a regular file, that is still in non-blocking mode (O_NONBLOCK)."""
    status = _new(_STATUS)
    return -errno.EAGAIN if flags & _CAN_WAIT else _open(dir_fd, name, flags, status), status


def made_plain(fd: int, flags: int) -> Status | None:
    """Takes O_NONBLOCK back from a regular file that the ring has opened with that beside ``flags``, and
    returns the file's status. Does nothing and returns None if the file is of another kind, or on a file
    system that is not known to be measured."""
    status = _new(_STATUS)
    return status if _make_plain(fd, flags, status) else None


class _Scratch:
    """Memory into which a small file is read."""

    __slots__ = ("memory", "status", "view")

    def __init__(self) -> None:
        memory = bytearray(_LENGTH)
        self.memory = ffi.from_buffer(memory)
        self.view = memoryview(memory)
        self.status = _new(_STATUS)


_LENGTH: Final = 1 << 16
_scratches: list[_Scratch] = []
"""The scratches that nobody uses now. There are as many as threads have needed at the same time."""


def read_whole_at_once(name: bytes) -> tuple[bytes | None, int, Status]:
    """Reads all of a small regular file, and returns its bytes first. If that is not possible at once,
    returns None first, and then what `open_at_once` would return."""
    try:
        scratch = _scratches.pop()
    except IndexError:
        scratch = _Scratch()
    status = scratch.status
    got = _read_whole(name, scratch.memory, _LENGTH, status)
    data = bytes(scratch.view[:got]) if got >= 0 else None
    if data is None:
        scratch.status = _new(_STATUS)
    _scratches.append(scratch)
    return data, status.fd, status
