"""Names that the calling thread looks up, where it has nothing to wait for (native/names.c).

What the kernel has cached of a name it finds in two microseconds. The ring has a worker find it,
whom to wake takes ten times as long. So a call first looks whether it is cancelled, then asks the
kernel whether it knows the name, and yields if so (`go_on`), unless a budget lets it go on.

Only on file systems that are known to be measured (lowlevel/file_systems.py): a server would have to
be waited for, and what is cached of it may be out of date.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from ..loop.checkpoints import yield_shielded
from ..loop.trio_internals import context
from ..ring.native import ffi, lib
from .file_systems import learn_by_name

if TYPE_CHECKING:
    from .file_systems import Status

_new = ffi.new
_find = lib.tu_find_at_once
_mode = lib.tu_mode_at_once
_open = lib.tu_open_at_once
_read_whole = lib.tu_read_whole_at_once

ELSEWHERE: Final = -errno.EXDEV
"""It is on a file system that was not measured, or a device: to open it may have to be waited for."""
SAID: Final = (-errno.ENOENT, -errno.ENOTDIR)
"""What is as certain as success; of all else the ring is asked."""
_CAN_WAIT: Final = ~(os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NOATIME)
"""Flags with which open(2) may have to wait, as for a new file, or for a frozen file system."""


def status_at_once(dir_fd: int, name: bytes, flags: int) -> os.stat_result | int:
    """`os.stat`, or -errno."""
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
    """The mode of what a name leads to, or -errno."""
    mode = _mode(dir_fd, name, flags)
    if mode == ELSEWHERE and learn_by_name(dir_fd, name, flags):
        mode = _mode(dir_fd, name, flags)
    return mode


def open_at_once(dir_fd: int, name: bytes, flags: int) -> tuple[int, Status]:
    """open(2) of a regular file: the descriptor, or -errno, and the status. What is no regular file
    has O_NONBLOCK still."""
    status = _new("tu_status *")
    return -errno.EAGAIN if flags & _CAN_WAIT else _open(dir_fd, name, flags, status), status


class _Scratch:
    """Memory to read a small file to."""

    __slots__ = ("memory", "status", "view")

    def __init__(self) -> None:
        memory = bytearray(_LENGTH)
        self.memory = ffi.from_buffer(memory)
        self.view = memoryview(memory)
        self.status = _new("tu_status *")


_LENGTH: Final = 1 << 16
_scratches: list[_Scratch] = []
"""Those that nobody uses now: as many as threads have needed at the same time."""


def read_whole_at_once(name: bytes) -> tuple[bytes | None, int, Status]:
    """All of a regular file; or None, and the descriptor or -errno and the status, as `open_at_once`."""
    try:
        scratch = _scratches.pop()
    except IndexError:
        scratch = _Scratch()
    status = scratch.status
    got = _read_whole(name, scratch.memory, _LENGTH, status)
    data = bytes(scratch.view[:got]) if got >= 0 else None
    if data is None:
        scratch.status = _new("tu_status *")
    _scratches.append(scratch)
    return data, status.fd, status


async def go_on() -> None:
    """The other half of the checkpoint of a task that was not cancelled, and had nothing to wait for."""
    run = context.runner.io_manager
    if not (run.budget and run.spend()):
        await yield_shielded()
