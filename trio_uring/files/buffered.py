"""Binary files with a buffer: the methods that a user calls."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Any

import trio

from ..loop.checkpoints import checkpoint_at_once
from .async_file import either, gather_lines, reading, write_lines, writing
from .binary import BinaryFile
from .memory import pinned
from .over_buffer import OverBuffer
from .raw import RawFile

if TYPE_CHECKING:
    import io
    from collections.abc import Iterable

    from _typeshed import ReadableBuffer, WriteableBuffer

    from .async_file import Turns
    from .buffer import FileBuffer


class BufferedFile(OverBuffer[bytes], BinaryFile):
    """A binary file that is written through a buffer, like an `io.BufferedWriter`."""

    def __init__(self, wrapped: Any, buffer: FileBuffer, turns: Turns | None = None) -> None:
        super().__init__(wrapped, buffer.transfers, turns)
        self._buffer = buffer

    @property
    def raw(self) -> io.FileIO:
        """The standard library's raw file on the same descriptor. It goes past our buffer. Whoever has it
        can move the position, so asking for it has the effects of `fileno`."""
        raw: io.FileIO = self._wrapped.raw
        self._share()
        return raw

    @reading
    async def read(self, size: int | None = -1, /) -> bytes:
        """Reads ``size`` bytes, fewer only at the end of the file; all to the end if ``size`` is negative
        or None. Returns None if the descriptor is non-blocking and has nothing."""
        length = self._length("read", size)
        if length < -1:
            self._wrapped.read(size)
        buffer = self._buffer
        if length < 0 and not self._can_write and buffer._read_end == -1:
            data = await buffer.transfers.read_to_end_at_once()
            if data is not None:
                return data
        if 0 <= length < buffer.size and length <= buffer.ahead:
            await checkpoint_at_once(self._turns.holder)
            return buffer.take(length)
        return await (buffer.read(length) if length >= 0 else buffer.read_all())  # type: ignore[return-value]

    @reading
    async def read1(self, size: int = -1, /) -> bytes:
        """Returns up to ``size`` bytes of what the buffer has. If it has nothing, makes one transfer."""
        if size is None:
            self._wrapped.read1(size)
        return await self._buffer.read1(self._length("read1", size))

    @reading
    async def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Reads until ``buffer`` is full or the file ends. Returns the number of bytes; None if the
        descriptor is non-blocking and has nothing."""
        with pinned(self._wrapped, "readinto", buffer, writable=True) as memory:
            return await self._buffer.read_to(memory, once=False)  # type: ignore[return-value]

    @reading
    async def readinto1(self, buffer: WriteableBuffer, /) -> int:
        """Reads into ``buffer``, with one transfer at most. Returns the number of bytes; None if the
        descriptor is non-blocking and has nothing."""
        with pinned(self._wrapped, "readinto1", buffer, writable=True) as memory:
            return await self._buffer.read_to(memory, once=True)  # type: ignore[return-value]

    @reading
    async def readline(self, size: int | None = -1, /) -> bytes:
        limit = self._length("readline", size)
        line = self._buffer.line_at_hand(limit)
        if line is None:
            return await self._buffer.readline(limit)
        await checkpoint_at_once(self._turns.holder)
        self._buffer.pass_over(len(line))
        return line

    @reading
    async def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Reads the lines to the end of the file, or until they are longer than ``hint`` bytes together, if
        that is positive."""
        number = self._length("readlines", hint)
        await checkpoint_at_once()
        lines: list[bytes] = []
        try:
            return await gather_lines(self._next_line, number, lines)
        except BaseException as stop:
            self._buffer.give_back_after(stop, b"".join(lines))
            raise

    @writing
    async def write(self, data: ReadableBuffer, /) -> int:
        """Takes all of ``data``, and returns its length in bytes."""
        if type(data) is bytes and self._buffer.fits(length := len(data)):
            await checkpoint_at_once(self._turns.holder)
            self._buffer.put(data, length)
            return length
        with pinned(self._wrapped, "write", data) as memory:
            if self._buffer.takes_at_once(memory.length):
                await checkpoint_at_once()
            return await self._buffer.write(memory)

    @writing
    async def writelines(self, lines: Iterable[ReadableBuffer], /) -> None:
        """Takes all of ``lines``, one after the other."""
        await write_lines(self._write_data, lines)

    @either
    async def seek(self, offset: int, whence: int = 0, /) -> int:
        """Writes what is buffered, and moves the position. Returns the new position, in bytes."""
        return await self._buffer.seek(offset, whence)

    @either
    async def tell(self) -> int:
        """Returns the position, in bytes."""
        await checkpoint_at_once()
        await self._buffer.landed()
        return self._buffer.tell()

    @writing
    async def truncate(self, size: int | None = None, /) -> int:
        """Writes what is buffered, and makes the file ``size`` bytes long, or as long as the position says.
        Returns the new size. The ring does it from Linux 6.9 on, else a worker thread."""
        await self._buffer.flush()
        return await self._transfers.truncate(size)

    @either
    async def flush(self) -> None:
        """Writes what is buffered. The kernel has it then, and others can read it."""
        if not self._unwritten():
            await checkpoint_at_once()
        if self._can_write:
            await self._buffer.flush()

    @either
    async def detach(self) -> RawFile:
        """Writes what is buffered, and returns a file without a buffer on the same descriptor. This one
        cannot be used any more."""
        await checkpoint_at_once()
        if self._can_write:
            await self._buffer.flush()
        raw = self._wrapped.detach()
        self._is_detached = True
        return RawFile(raw, self._transfers, self._turns)

    async def _next_line(self) -> bytes:
        line = self._buffer.line_at_hand(-1)
        if line is None:
            return await self._buffer.readline(-1)
        self._buffer.pass_over(len(line))
        return line

    async def _write_data(self, data: ReadableBuffer) -> int:
        with pinned(self._wrapped, "write", data) as memory:
            return await self._buffer.write(memory)

    async def _write_before(self) -> None:
        if self._buffer.unwritten:
            await self._turns.within(self._buffer.write_out)

    async def _forget_ahead(self) -> None:
        # Whoever has the turn may be reading into the buffer, or may give back to it what he has read.
        if self._can_read and (self._turns.holder or self._buffer.ahead):
            with trio.CancelScope(shield=True):
                await self._turns.within(self._forget)

    async def _forget(self) -> None:
        if not (self._raw.closed or self._is_detached):
            await self._buffer.flush()


class BufferedReaderFile(BufferedFile):
    """A binary file that is read, or read and written, through a buffer, like an `io.BufferedReader` or
    an `io.BufferedRandom`."""

    @reading
    async def peek(self, size: int = 0, /) -> bytes:
        """Returns what is in the buffer, and does not move the position. If nothing is there, makes one
        transfer first."""
        self._length("peek", index(size))
        if self._can_write:
            await self._buffer.flush()
        if self._buffer.ahead:
            await checkpoint_at_once()
        else:
            await self._buffer.fill()
        return self._buffer.look()
