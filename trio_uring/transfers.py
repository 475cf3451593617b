"""The transfers that all files are made of, and the memory that they go to and come from.

- Data is read and written at the descriptor's own position, which the kernel moves by
  what it transferred. So the position is true after a cancellation, for a descriptor that
  is shared, and for what has no offsets, as pipes and terminals.
- In a run on io_uring a transfer is one operation of the ring; in a run on epoll, one call
  in a worker thread of Trio's. Moving the position and asking for the size do not wait for
  a device, and are system calls of the calling thread.
- One transfer moves 2 GiB less a page at most, as read(2) and write(2).
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import stat
from operator import index
from typing import TYPE_CHECKING, Any, Final

import trio

from ._native import ffi, uncleared_bytes
from .features import has_operation
from .operation import FTRUNCATE, HERE, MOST, READ, WRITE, failure, perform
from .session import current_manager

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from typing_extensions import Self

_from_buffer: Any = ffi.from_buffer
_cast = ffi.cast


async def read_into(fd: int, memory: Any, length: int, held: object = None) -> int | None:
    """Reads up to ``length`` bytes to where the pointer ``memory`` points. The number read,
    0 at the end; None if the descriptor is non-blocking and has nothing."""
    manager = current_manager()
    if manager is None:
        return await _by_thread(os.readv, fd, [ffi.buffer(memory, length)])
    while True:
        result = await perform(manager, READ, fd, memory, min(length, MOST), HERE, held=held)
        if result >= 0:
            return result
        _check(result)
        if result == -errno.EAGAIN:
            return None


async def write_from(raw: io.FileIO, memory: Any, length: int, held: object = None) -> int | None:
    """Writes up to ``length`` bytes from where the pointer ``memory`` points. The number
    written; None if the descriptor is non-blocking and cannot take any."""
    fd = raw.fileno()
    manager = current_manager()
    if manager is None:
        return await _by_thread(os.write, fd, ffi.buffer(memory, length))
    before = raw.tell() if raw.seekable() else -1
    while True:
        result = await perform(manager, WRITE, fd, memory, min(length, MOST), HERE, held=held)
        if result >= 0:
            if result < length and before >= 0:
                correct_position(raw, before + result)
            return result
        _check(result)
        if result == -errno.EAGAIN:
            return None


async def read_all(fd: int, left: tuple[int, bool], parts: list[bytes]) -> bool:
    """Reads to the end, into ``parts``. What is ``left`` says `left_of`. False if it stopped
    there since a non-blocking descriptor had no more."""
    length, complete = left
    while True:
        data = new_bytes(length)
        got = await read_into(fd, _from_buffer(data), length, data)
        if not got:
            return got is not None
        parts.append(data if got == length else data[:got])
        if got < length and complete:
            return True
        length = max(io.DEFAULT_BUFFER_SIZE, min(got, _LARGEST_BLOCK))


async def truncate(raw: io.FileIO, size: int | None) -> int:
    """`io.FileIO.truncate`: by the ring from Linux 6.9 on, else by a worker thread."""
    if size is None:
        size = raw.tell()
    length = index(size) if hasattr(size, "__index__") else -1
    if not 0 <= length < 1 << 63:
        raw.truncate(size)  # which raises
    manager = current_manager()
    if manager is None or not has_operation("ftruncate"):
        await trio.to_thread.run_sync(raw.truncate, length)
        return size
    result = await perform(manager, FTRUNCATE, raw.fileno(), offset=length)
    if result < 0:
        raise failure(result)
    return size


def pinned(wrapped: Any, name: str, buffer: ReadableBuffer, *, writable: bool = False) -> Memory:
    """Where a caller's buffer is, and will be; else what the method ``name`` raises."""
    try:
        view = memoryview(buffer)
        # Not kept: up to CPython 3.12 the garbage collector crashes on a view in a cycle of
        # which such a pointer lives. The view alone keeps the memory where it is.
        address = _cast("char *", _from_buffer(view, require_writable=writable))
    except (TypeError, ValueError, BufferError):
        getattr(wrapped, name)(buffer)
        raise
    return Memory(address, view)


class Memory:
    """A caller's buffer, which stays where it is until the ``with`` block ends."""

    __slots__ = ("address", "held", "length")

    def __init__(self, address: Any, held: memoryview) -> None:
        self.address = address
        self.length = held.nbytes
        self.held = held

    def as_bytes(self) -> bytes:
        """The bytes, which nobody will change: the caller's own if that is what it gave."""
        data = self.held.obj
        return data if type(data) is bytes and len(data) == self.length else self.held.tobytes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A task that is thrown away with its run leaves the memory to the kernel.
        if kind is not GeneratorExit:
            self.held.release()


def new_bytes(length: int) -> bytes:
    """Bytes that nobody else has seen yet, so that the kernel may fill them. They are not
    cleared first, which would take half as long as reading them.

    Some processors (AMD, `rep movsb`) copy pages at a fifth of their speed to memory that begins
    1 to 31 bytes into a page. Of large results, which are aligned to 16 bytes, one in 256 does.
    """
    data = uncleared_bytes(length)
    return data if length < _LARGE or id(data) & 4095 != _SLOW_PLACE else uncleared_bytes(length)


_LARGE: Final = 1 << 16
_SLOW_PLACE: Final = (16 - bytes.__basicsize__ + 1) & 4095  # in its page, of the object
_LARGEST_BLOCK: Final = 1 << 20


def left_in(raw: io.FileIO) -> tuple[int, bool]:
    """`left_of` an open file."""
    try:
        return left_of(os.fstat(raw.fileno()), raw.tell())
    except OSError:
        return io.DEFAULT_BUFFER_SIZE, False


def left_of(status: os.stat_result, position: int) -> tuple[int, bool]:
    """How many bytes `read_all` should ask for first, and whether fewer mean the end: the
    ring itself goes on where a read of a regular file falls short."""
    left = status.st_size - position
    if left <= 0:
        return io.DEFAULT_BUFFER_SIZE, False
    # One byte more spares the read that finds the end, but a large result would be copied.
    return (left + 1 if left < _LARGE else left), stat.S_ISREG(status.st_mode)


def correct_position(raw: io.FileIO, position: int) -> None:
    """After a write that fell short, as on a full disk. The kernel tries for the rest, and
    when that fails it has not moved the position at all (seen on 6.18)."""
    if appends(raw.fileno()):
        raw.seek(0, os.SEEK_END)
    else:
        raw.seek(position)


def appends(fd: int) -> bool:
    """Whether what is written goes to the end of the file, wherever the position is."""
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND)


def _check(result: int) -> None:
    if result not in (-errno.EAGAIN, -errno.EINTR):
        raise failure(result)


async def _by_thread(call: Any, fd: int, argument: object) -> int | None:
    try:
        moved: int = await trio.to_thread.run_sync(call, fd, argument)
    except BlockingIOError:
        return None
    return moved
