"""The buffer of a binary file, and the transfers from and to it.

One buffer serves reading and writing. Seen from the file:

    0 ........ pos ........ read_end          what was read, and is still to be given out
    0 . write_pos .. pos .. write_end         what was written, and has still to go out
                            raw_pos           where in this picture the descriptor is

- ``read_end`` and ``write_end`` are -1 where there is nothing of that kind. Data that is
  written over data that was read ahead changes it in place, as the standard library does.
- The kernel reads into the buffer and writes from it. So it is replaced only when no
  transfer is under way, and it is kept from moving by what a transfer holds.
- What is in the page cache is read without the ring (reading_at_once.py).
- What does not fit takes no detour: a large read goes to where it is wanted, a large write
  comes from where it is, or goes on behind its call (write_behind.py), as does the buffer
  that it found. While something is behind, the buffer has nothing that was read.
- A call that is cancelled in the middle gives back to the buffer what it had read, and
  leaves there what it had accepted and not yet written. The buffer is longer than its
  size for as long as that takes.
"""

from __future__ import annotations

import errno
import os
import sys
from operator import index
from typing import TYPE_CHECKING, Any

import trio

from ._native import ffi
from .async_file import AsyncFile, Turns
from .budget import checkpoint_at_once
from .reading_at_once import Reader
from .session import current_manager
from .transfers import Memory, left_in, new_bytes, pinned, read_all, write_from
from .write_behind import MOST_BEHIND, WriteBehind, may_write_behind

if TYPE_CHECKING:
    import io

    from _typeshed import ReadableBuffer

_from_buffer: Any = ffi.from_buffer
_memmove: Any = ffi.memmove


class FileBuffer(AsyncFile[bytes]):
    """The buffer and its transfers. Who calls has the turn."""

    def __init__(self, wrapped: Any, size: int, turns: Turns | None = None) -> None:
        super().__init__(wrapped, turns)
        self._raw: io.FileIO = wrapped.raw
        self._reader = Reader(wrapped.raw)
        self._kept: list[object] = [wrapped]
        self._behind: WriteBehind | None = None
        self._may_go_behind: bool | None = None
        self._size = size
        # A write of this many bytes goes past the buffer; the limit is that of `open`.
        self._large = size if sys.version_info >= (3, 13) else size + 1
        self._use(bytearray(size))
        self._pos = 0
        self._raw_pos = 0
        self._read_end = -1
        self._write_pos = 0
        self._write_end = -1

    def __del__(self) -> None:
        if "_write_end" in self.__dict__:
            self._write_abandoned()

    def _write_abandoned(self) -> None:
        """Writes what is buffered, for a file that is thrown away without being closed.
        This blocks, as with the standard library."""
        if self._raw.closed or not self._in_buffer():
            return
        self._rewind()
        data = self._view[self._write_pos : self._write_end]
        self._write_end = -1
        if self._behind is not None and self._behind.size:
            self._behind.leave(bytes(data))
            return
        while data:
            data = data[os.write(self._raw.fileno(), data) :]

    # Where we are

    def _ahead(self) -> int:
        """How many bytes can be given out from the buffer."""
        return self._read_end - self._pos if self._read_end != -1 else 0

    def _fits(self, length: int) -> bool:
        """Whether data of this length can be written to the buffer."""
        if self._read_end == -1 and self._write_end == -1:
            self._pos = self._raw_pos = 0
        return length < self._large and self._pos + length <= self._size

    def _raw_offset(self) -> int:
        """How far the descriptor is past the position."""
        return self._raw_pos - self._pos if self._read_end != -1 or self._write_end != -1 else 0

    def _tell(self) -> int:
        behind = self._behind.size if self._behind is not None else 0
        return max(self._raw.tell() + behind - self._raw_offset(), 0)

    def _in_buffer(self) -> bool:
        """Whether the buffer has data that has still to go out."""
        return self._write_pos < self._write_end

    def _unwritten(self) -> bool:
        return self._in_buffer() or (self._behind is not None and self._behind.size > 0)

    def _use(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self._memory = _from_buffer(buffer)
        self._view = memoryview(buffer)

    def _drop_read(self) -> None:
        self._read_end = -1
        self._restore_size()

    def _restore_size(self) -> None:
        if self._read_end == -1 and self._write_end == -1 and len(self._buffer) != self._size:
            self._use(bytearray(self._size))

    # Reading

    def _take(self, length: int) -> bytes:
        start = self._pos
        self._pos = end = start + length
        return bytes(self._view[start:end])

    def _give_back(self, data: bytes) -> None:
        """Data that a call had read, and that the next one shall read."""
        if not data:
            return
        if self._in_buffer():  # so it came from the buffer
            self._pos -= len(data)
            return
        if ahead := self._ahead():
            data += self._take(ahead)
        if len(data) > len(self._buffer):
            self._use(bytearray(data))
        else:
            self._view[: len(data)] = data
        self._pos = 0
        self._raw_pos = self._read_end = len(data)

    async def _fill(self) -> int | None:
        start = max(self._read_end, 0)
        memory = self._memory
        got = await self._reader.read(memory + start, len(memory) - start, memory)
        if got:
            self._read_end = self._raw_pos = start + got
        return got

    async def _leave_buffer(self, taken: int) -> None:
        """Before a read goes past the buffer, of which it has ``taken`` the end."""
        if self._can_write:
            try:
                await self._flush()
            except BaseException:
                self._pos -= taken
                raise
        self._drop_read()

    async def _read(self, length: int) -> bytes | None:
        ahead = self._ahead()
        if length <= ahead:
            await checkpoint_at_once()
            return self._take(length)
        data = new_bytes(length)
        if ahead:
            _memmove(_from_buffer(data), self._memory + self._pos, ahead)
            self._pos += ahead
            await self._leave_buffer(ahead)
        elif self._can_write:
            await self._leave_buffer(0)
        elif self._read_end != -1:
            self._drop_read()
        done = ahead
        try:
            # Whole blocks go to their place; what is left comes by way of the buffer.
            got: int | None = 1
            while got and (direct := length - done - (length - done) % self._size):
                got = await self._reader.read(_from_buffer(data) + done if done else data, direct, data)
                done += got or 0
            if done == length:
                return data
            memory = _from_buffer(data)
            if got:
                self._pos = self._raw_pos = self._read_end = 0
            while got and done < length:
                got = await self._fill()
                taken = min(got or 0, length - done)
                _memmove(memory + done, self._memory + self._pos, taken)
                self._pos += taken
                done += taken
        except BaseException:
            self._give_back(data[:done])
            raise
        if done == length:
            return data
        return data[:done] if done or got == 0 else None

    async def _read_all(self) -> bytes | None:
        ahead = self._ahead()
        parts = [self._take(ahead)] if ahead else []
        await self._leave_buffer(ahead)
        try:
            complete = await read_all(self._raw.fileno(), left_in(self._raw), parts)
        except BaseException:
            self._give_back(b"".join(parts))
            raise
        return b"".join(parts) if parts or complete else None

    async def _read1(self, size: int) -> bytes:
        length = size if size >= 0 else self._size
        ahead = self._ahead()
        if ahead or not length:
            await checkpoint_at_once()
            return self._take(min(ahead, length))
        await self._leave_buffer(0)
        data = new_bytes(length)
        got = await self._reader.read(_from_buffer(data), length, data) or 0
        return data if got == length else data[:got]

    async def _read_to(self, target: Memory, *, once: bool) -> int | None:
        memory, length, held = target.address, target.length, target.held
        ahead = self._ahead()
        done = min(ahead, length)
        if done == length or (once and done and length - done <= self._size):
            await checkpoint_at_once()
        _memmove(memory, self._memory + self._pos, done)
        self._pos += done
        if done == length and ahead:
            return done
        await self._leave_buffer(done)
        got: int | None = 0
        try:
            while done < length:
                if length - done > self._size:
                    got = await self._reader.read(memory + done, length - done, held)
                    done += got or 0
                elif once and done:
                    break
                else:
                    self._drop_read()
                    self._pos = 0
                    got = await self._fill()
                    self._pos = taken = min(got or 0, length - done)
                    _memmove(memory + done, self._memory, taken)
                    done += taken
                if not got or once:
                    break
        except BaseException:
            self._give_back(bytes(ffi.buffer(memory, done)))
            raise
        return done if done or got == 0 else None

    # Writing

    async def _write_data(self, data: ReadableBuffer) -> int:
        with pinned(self._wrapped, "write", data) as memory:
            return await self._write(memory)

    async def _write(self, memory: Memory) -> int:
        address, length, held = memory.address, memory.length, memory.held
        if self._fits(length):
            self._put(address, length)
            return length
        behind = self._behind_for(length)
        if behind is not None and self._read_end == -1:
            return await self._add_behind(behind, memory)
        await self._write_out()
        if offset := self._raw_offset():
            self._raw.seek(-offset, os.SEEK_CUR)
            self._raw_pos -= offset
        self._drop_read()
        if behind is not None:
            return await self._add_behind(behind, memory)
        done = 0
        try:
            while length - done >= self._large:
                got = await write_from(self._raw, address + done, length - done, held)
                if got is None:
                    raise BlockingIOError(errno.EAGAIN, "write could not complete without blocking", done)
                done += got
        except (trio.Cancelled, KeyboardInterrupt) as stop:
            # What has happened in part happens: the buffer takes the rest.
            if done:
                self._keep(address + done, length - done)
            if not done or isinstance(stop, KeyboardInterrupt):
                raise
            return length
        self._keep(address + done, length - done)
        return length

    def _behind_for(self, length: int) -> WriteBehind | None:
        """What takes a write of this length that does not fit."""
        if length > MOST_BEHIND or self._may_go_behind is False or current_manager() is None:
            return None
        if self._behind is None:
            self._may_go_behind = may_write_behind(self._raw)
            if self._may_go_behind:
                self._behind = WriteBehind(self._raw, self._kept)
        return self._behind

    async def _add_behind(self, behind: WriteBehind, memory: Memory) -> int:
        """The buffer and then the data, or what the buffer takes of it once it is empty."""
        length = memory.length
        buffered = self._write_end - self._write_pos if self._in_buffer() else 0
        await behind.make_room(buffered + length)
        parts = [bytes(self._view[self._write_pos : self._write_end])] if buffered else []
        kept = length if length < self._large else 0
        if kept < length:
            parts.append(memory.as_bytes())
        self._write_end = -1
        self._restore_size()
        self._keep(memory.address, kept)
        if parts:
            behind.add(*parts)
        return length

    def _put(self, data: Any, length: int) -> None:
        """What fits: bytes, or a pointer to some."""
        start = self._pos
        _memmove(self._memory + start, data, length)
        if self._write_end == -1 or self._write_pos > start:
            self._write_pos = start
        self._pos = end = start + length
        if self._read_end != -1 and self._read_end < end:
            self._read_end = end
        self._write_end = max(self._write_end, end)

    def _keep(self, address: Any, left: int) -> None:
        """What is left of a large write, for later. Everything before has gone out."""
        if left > self._size:
            self._use(bytearray(left))
        _memmove(self._memory, address, left)
        self._raw_pos = self._write_pos = 0
        self._pos = self._write_end = left

    def _rewind(self) -> None:
        """Moves the descriptor to where the data is to be written."""
        if back := self._raw_offset() + self._pos - self._write_pos:
            self._raw.seek(-back, os.SEEK_CUR)
            self._raw_pos -= back

    async def _write_out(self) -> None:
        if self._behind is not None:
            await self._behind.finish()
        if self._in_buffer():
            self._rewind()
        while self._in_buffer():
            start = self._write_pos
            memory = self._memory
            length = self._write_end - start
            done = await write_from(self._raw, memory + start, length, memory)
            if done is None:
                raise BlockingIOError(errno.EAGAIN, "write could not complete without blocking", 0)
            self._write_pos = self._raw_pos = start + done
        self._write_pos = 0
        self._write_end = -1
        self._restore_size()

    async def _flush(self) -> None:
        """Writes what is buffered, and has the descriptor where the position is."""
        await self._write_out()
        if self._can_read:
            self._raw.seek(-self._raw_offset(), os.SEEK_CUR)
            self._drop_read()

    async def _seek(self, offset: int, whence: int) -> int:
        await checkpoint_at_once()
        target = index(offset) if hasattr(offset, "__index__") else _FAR
        if whence not in _WHENCE or not self._raw.seekable() or not -_FAR <= target < _FAR:
            self._wrapped.seek(offset, whence)  # which raises
        if whence <= os.SEEK_CUR and (ahead := self._ahead()) > 0:
            here = self._raw.tell() - self._raw_offset()
            moved = target - here if whence == os.SEEK_SET else target
            if -self._pos <= moved <= ahead:
                self._pos += moved
                return max(here + moved, 0)
        if self._can_write:
            await self._write_out()
        if whence == os.SEEK_CUR:
            target -= self._raw_offset()
        position = self._raw.seek(target, whence)
        self._drop_read()
        return position


_WHENCE = (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, os.SEEK_DATA, os.SEEK_HOLE)
_FAR = 1 << 63
