"""Binary files with a buffer: the methods that a user calls, and lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio.lowlevel import enable_ki_protection

from .async_file import either, gather_lines, reading, write_lines, writing
from .budget import checkpoint_at_once
from .file_buffer import FileBuffer
from .raw_file import RawFile
from .transfers import pinned, truncate

if TYPE_CHECKING:
    import io
    from collections.abc import Iterable

    from _typeshed import ReadableBuffer, WriteableBuffer


class BufferedFile(FileBuffer):
    """A binary file for writing; as `io.BufferedWriter`."""

    @property
    def raw(self) -> io.FileIO:
        """The standard library's file on the same descriptor: past our buffer."""
        return self._wrapped.raw  # type: ignore[no-any-return]

    @reading
    async def read(self, size: int | None = -1, /) -> bytes | None:
        """``size`` bytes, fewer only at the end; all to the end if that is negative."""
        length = self._length("read", size)
        if length < -1:
            self._wrapped.read(size)
        return await (self._read(length) if length >= 0 else self._read_all())

    @reading
    async def read1(self, size: int = -1, /) -> bytes:
        """What the buffer has, or else one transfer: up to ``size`` bytes."""
        if size is None:
            self._wrapped.read1(size)
        return await self._read1(self._length("read1", size))

    @reading
    async def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """Fills ``buffer``; the number of bytes, fewer only at the end."""
        with pinned(self._wrapped, "readinto", buffer, writable=True) as memory:
            return await self._read_to(memory, once=False)

    @reading
    async def readinto1(self, buffer: WriteableBuffer, /) -> int | None:
        """What the buffer has, or else one transfer, into ``buffer``; the number of bytes."""
        with pinned(self._wrapped, "readinto1", buffer, writable=True) as memory:
            return await self._read_to(memory, once=True)

    @reading
    async def readline(self, size: int | None = -1, /) -> bytes:
        limit = self._length("readline", size)
        line = self._line_at_hand(limit)
        if line is None:
            return await self._readline(limit)
        await checkpoint_at_once()
        self._pos += len(line)
        return line

    @reading
    async def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """The lines to the end, or until they are longer than ``hint`` bytes."""
        number = self._length("readlines", hint)
        await checkpoint_at_once()
        lines: list[bytes] = []
        try:
            return await gather_lines(self._next_line, number, lines)
        except BaseException:
            self._give_back(b"".join(lines))
            raise

    @writing
    async def write(self, data: ReadableBuffer, /) -> int:
        """Takes all of ``data``; its length in bytes."""
        if type(data) is bytes and self._fits(length := len(data)):
            await checkpoint_at_once()
            self._put(data, length)
            return length
        with pinned(self._wrapped, "write", data) as memory:
            length = memory.length
            small = length < self._large and not self._unwritten()
            if small or self._fits(length) or self._behind_for(length) is not None:
                await checkpoint_at_once()
            return await self._write(memory)

    @writing
    async def writelines(self, lines: Iterable[ReadableBuffer], /) -> None:
        """Takes all of ``lines``, one after the other."""
        await write_lines(self._write_data, lines)

    @either
    async def seek(self, offset: int, whence: int = 0, /) -> int:
        """Moves the position; where it is then, in bytes. Writes what is buffered."""
        return await self._seek(offset, whence)

    @either
    async def tell(self) -> int:
        """The position, in bytes."""
        await checkpoint_at_once()
        if self._behind is not None:
            await self._behind.wait()
        return self._tell()

    @writing
    async def truncate(self, size: int | None = None, /) -> int:
        """Makes the file ``size`` bytes long, or as long as the position, after writing
        what is buffered. By the ring from Linux 6.9 on, else by a worker thread."""
        await self._flush()
        return await truncate(self._raw, size)

    @either
    async def flush(self) -> None:
        """Writes what is buffered."""
        if not self._unwritten():
            await checkpoint_at_once()
        if self._can_write:
            await self._flush()

    @enable_ki_protection
    async def _settle(self) -> None:
        await self._turns.take()
        try:
            if self._behind is not None:
                await self._behind.finish()
        finally:
            self._turns.leave()

    @either
    async def detach(self) -> RawFile:
        """Writes what is buffered, and returns the file without the buffer; this one is
        of no use from then on."""
        await checkpoint_at_once()
        if self._can_write:
            await self._flush()
        return RawFile(self._wrapped.detach())

    # Lines

    def _line_at_hand(self, limit: int) -> bytes | None:
        """The next line, if the buffer has it; the position does not move."""
        ahead = self._ahead()
        most = ahead if limit < 0 else min(ahead, limit)
        start = self._pos
        end = self._buffer.find(b"\n", start, start + most) + 1
        if end or most == limit:
            return bytes(self._view[start : end or start + most])
        return None

    async def _next_line(self) -> bytes:
        line = self._line_at_hand(-1)
        if line is None:
            return await self._readline(-1)
        self._pos += len(line)
        return line

    async def _readline(self, limit: int) -> bytes:
        """A line of which the buffer has only a part."""
        ahead = self._ahead()
        parts = [self._take(ahead)] if ahead else []
        left = limit - ahead if limit >= 0 else -1
        await self._leave_buffer(ahead)
        try:
            while True:
                self._drop_read()
                self._pos = 0
                if not await self._fill():
                    break
                line = self._line_at_hand(left)
                if line is not None:
                    self._pos += len(line)
                    parts.append(line)
                    break
                parts.append(self._take(self._read_end))
                left -= len(parts[-1]) if left > 0 else 0
        except BaseException:
            self._give_back(b"".join(parts))
            raise
        return b"".join(parts)


class BufferedReaderFile(BufferedFile):
    """A binary file for reading, or for both; as `io.BufferedReader` or `io.BufferedRandom`."""

    @reading
    async def peek(self, size: int = 0, /) -> bytes:
        """What is in the buffer, after one transfer if there is nothing; the position does
        not move."""
        self._length("peek", size)
        if self._can_write:
            await self._flush()
        if self._ahead():
            await checkpoint_at_once()
        else:
            self._drop_read()
            self._pos = 0
            await self._fill()
        return bytes(self._view[self._pos : self._pos + self._ahead()])
