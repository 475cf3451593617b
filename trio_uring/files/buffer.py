"""The buffer of a file, which binary and text files hold, and the transfers from and to it.

files/held_bytes.py says what the buffer holds, and where in its memory.

- Large transfers go past the buffer. A large read goes straight to the caller's memory, and a large
  write comes straight from there.
- A write that does not fit may also be *behind*: the call returns, and the ring writes the data, and
  what the buffer held, later (files/write_behind.py). While anything is behind, the buffer has
  nothing that was read.
- A call that is cancelled in the middle gives back to the buffer what it had read, and leaves there
  what it had accepted and not yet written. The buffer is longer than its size while it holds that.
- A call that fails loses what it had read, as in the standard library: the position is past it. A file
  without a position (a pipe) loses nothing: there the buffer takes it back.
"""

from __future__ import annotations

import atexit
import errno
import os
import weakref
from contextlib import suppress
from operator import index
from typing import TYPE_CHECKING, Any, ClassVar

import trio

from ..loop.checkpoints import checkpoint_at_once
from ..loop.current import current_run
from ..ring.native import ffi
from .held_bytes import HeldBytes
from .memory import Memory, new_bytes
from .position import STREAM
from .write_behind import MOST_BEHIND, WriteBehind

if TYPE_CHECKING:
    from .transfers import Transfers

_from_buffer: Any = ffi.from_buffer
_memmove: Any = ffi.memmove


class FileBuffer(HeldBytes):
    """The buffer of one file. Its methods are called by the task that has the file's turn, but for the
    `write_now` and `write_at_exit` of a file that no task uses any more."""

    _alive: ClassVar[dict[int, tuple[list[object], weakref.ref[FileBuffer]]]] = {}
    """All buffers that may have something to write, each with the standard library's files on its
    descriptor. So these are not collected before the buffer is: they would close the descriptor, and
    the buffer could not write any more."""
    can_write: bool = False
    _behind: WriteBehind | None = None
    _writes = False
    """Whether the kernel is writing from the buffer now."""

    def __init__(self, wrapped: Any, size: int, transfers: Transfers) -> None:
        super().__init__(size)
        self._wrapped = wrapped
        self.transfers = transfers
        self.position = transfers.position
        self.kept: list[object] = [wrapped]
        """The standard library's files on the descriptor, which close it when they are collected."""
        self.can_write = transfers.raw.writable()
        if self.can_write:
            self._alive[id(self)] = (self.kept, weakref.ref(self))

    def __del__(self) -> None:
        if self.can_write:
            try:
                self._write_abandoned()
            finally:
                self._alive.pop(id(self), None)

    def _write_abandoned(self) -> None:
        """Writes what is buffered, and blocks, as the standard library does. Called by the finaliser of a
        file that was never closed. Neither this nor what it calls uses a global name of a module: those
        are gone when the interpreter ends."""
        if not self._in_buffer() or self.position.raw.closed:
            return
        self._rewind()
        while self._in_buffer():
            data = self._view[self._write_pos : self._write_end]
            if self._behind is not None and self._behind.size:
                self._behind.leave(bytes(data))
                self._write_pos = self._write_end
            else:
                self._write_pos += self.position.write_now(data)
                self._raw_pos = self._write_pos
        self._write_pos = 0
        self._write_end = self._read_end = -1

    def write_now(self) -> None:
        """Writes what is buffered, and what is behind since its write has failed. Blocks. Called when the
        kernel has no write of this file."""
        self._write_abandoned()
        if self._behind is not None:
            self._behind.write_now()

    def write_at_exit(self) -> None:
        """Writes what is buffered and what is behind. Called when the interpreter ends, for each file that
        still exists then, since its finaliser may never run. A buffer that a thread is just writing is
        left to that thread."""
        if not self._writes:
            with suppress(OSError, ValueError):  # the finaliser tries again, and tells
                self._write_abandoned()
                if self._behind is not None:
                    self._behind.write_at_exit()

    # Where we are

    def takes_at_once(self, length: int) -> bool:
        """Tells whether a `write` of this length need not wait, unless too much is behind."""
        small = length < self._large and not self.unwritten
        return small or self.fits(length) or self._behind_for(length) is not None

    def tell(self) -> int:
        """Returns the position in the file as its user sees it, in bytes."""
        behind = self._behind.unplaced if self._behind is not None else 0
        return max(self.position.tell() + behind - self._raw_offset(), 0)

    @property
    def unwritten(self) -> bool:
        """Whether there is data that is not written yet, in the buffer or behind."""
        return self._in_buffer() or (self._behind is not None and self._behind.size > 0)

    # Reading

    def give_back_after(self, stop: BaseException, data: bytes) -> None:
        """Gives back to the buffer the data that a call had read before ``stop`` ended it. Does nothing if
        the call failed on a file that has a position: it is past the data then."""
        if not isinstance(stop, OSError) or self.position.kind is STREAM:
            self.give_back(data)

    async def fill(self) -> int | None:
        """Makes one transfer into the buffer, from which all was given out. Returns the number of bytes, 0
        at the end of the file; None if the descriptor is non-blocking and has nothing."""
        self._drop_read()
        self._pos = 0
        return await self._fill()

    async def _fill(self) -> int | None:
        start = max(self._read_end, 0)
        self._make()
        memory = self._memory
        got = await self.transfers.read(memory + start, len(memory) - start, memory)
        if got:
            self._read_end = self._raw_pos = start + got
        return got

    async def leave(self, taken: int) -> None:
        """Makes the buffer empty: writes what is to be written, and forgets what was read. Called before a
        read goes past the buffer. The call has ``taken`` so many bytes from the buffer, which get them
        back if the write fails."""
        if self.can_write:
            try:
                await self.flush()
            except BaseException:
                self._pos -= taken
                raise
        self._drop_read()

    async def read(self, length: int) -> bytes | None:
        """Reads so many bytes; fewer only at the end of the file. Returns None if the descriptor is
        non-blocking and has nothing."""
        ahead = self.ahead
        if length <= ahead:
            await checkpoint_at_once()
            return self.take(length)
        data = new_bytes(length)
        if ahead:
            _memmove(_from_buffer(data), self._memory + self._pos, ahead)
            self._pos += ahead
            await self.leave(ahead)
        elif self.can_write:
            await self.leave(0)
        elif self._read_end != -1:
            self._drop_read()
        done = ahead
        try:
            # Whole blocks are read straight into the result. The rest comes by way of the buffer.
            got: int | None = 1
            while got and (direct := length - done - (length - done) % self.size):
                got = await self.transfers.read(_from_buffer(data) + done if done else data, direct, data)
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
        except BaseException as stop:
            self.give_back_after(stop, data[:done])
            raise
        if done == length:
            return data
        return data[:done] if done or got == 0 else None

    async def read_all(self) -> bytes | None:
        """Reads all to the end of the file. Returns None if the descriptor is non-blocking and has
        nothing."""
        ahead = self.ahead
        parts = [self.take(ahead)] if ahead else []
        if ahead or self.can_write:
            await self.leave(ahead)
        elif self._read_end != -1:
            self._drop_read()
        try:
            complete = await self.transfers.read_to_end(parts)
        except BaseException as stop:
            self.give_back_after(stop, b"".join(parts))
            raise
        return b"".join(parts) if parts or complete else None

    async def read1(self, size: int) -> bytes:
        """Returns up to ``size`` bytes of what is `ahead`. If nothing is, makes one transfer."""
        length = size if size >= 0 else self.size
        ahead = self.ahead
        if ahead or not length:
            await checkpoint_at_once()
            return self.take(min(ahead, length))
        await self.leave(0)
        return await self.transfers.read_new(length) or b""

    async def read_to(self, target: Memory, *, once: bool) -> int | None:
        """Reads into ``target`` until it is full. With ``once`` makes one transfer at most, and none if
        something is `ahead` and what is missing would fit in the buffer. Returns the number of bytes, 0
        at the end of the file; None if the descriptor is non-blocking and has nothing."""
        memory, length, held = target.address, target.length, target.held
        ahead = self.ahead
        done = min(ahead, length)
        if done == length or (once and done and length - done <= self.size):
            await checkpoint_at_once()
        if done:
            _memmove(memory, self._memory + self._pos, done)
        self._pos += done
        if done == length and ahead:
            return done
        await self.leave(done)
        got: int | None = 0
        try:
            while done < length:
                if length - done > self.size:
                    got = await self.transfers.read(memory + done, length - done, held)
                    done += got or 0
                elif once and done:
                    break
                else:
                    got = await self.fill()
                    self._pos = taken = min(got or 0, length - done)
                    _memmove(memory + done, self._memory, taken)
                    done += taken
                if not got or once:
                    break
        except BaseException as stop:
            self.give_back_after(stop, bytes(ffi.buffer(memory, done)))
            raise
        return done if done or got == 0 else None

    async def readline(self, limit: int) -> bytes:
        """Reads a line of which the buffer has only a part (`line_at_hand` was None), of ``limit`` bytes at
        most if that is not negative."""
        ahead = self.ahead
        parts = [self.take(ahead)] if ahead else []
        left = limit - ahead if limit >= 0 else -1
        await self.leave(ahead)
        try:
            while await self.fill():
                line = self.line_at_hand(left)
                if line is not None:
                    self._pos += len(line)
                    parts.append(line)
                    break
                parts.append(self.take(self._read_end))
                left -= len(parts[-1]) if left > 0 else 0
        except BaseException as stop:
            self.give_back_after(stop, b"".join(parts))
            raise
        return b"".join(parts)

    # Writing

    async def write(self, memory: Memory) -> int:
        """Takes all bytes of ``memory``, and returns their number. The buffer keeps them, or they are
        written, or behind. If the descriptor is non-blocking, and the buffer has no room for what it does
        not take, raises BlockingIOError, which says how many bytes were taken."""
        address, length, held = memory.address, memory.length, memory.held
        if self.fits(length):
            self.put(address, length)
            return length
        behind = self._behind_for(length)
        if behind is not None and self._read_end == -1:
            return await self._add_behind(behind, memory)
        try:
            await self.write_out()
        except BlockingIOError:
            return self._take_what_fits(memory, 0)
        if offset := self._raw_offset():
            self.position.seek(-offset, os.SEEK_CUR)
            self._raw_pos -= offset
        self._drop_read()
        behind = self._behind_for(length)
        if behind is not None:
            return await self._add_behind(behind, memory)
        done = 0
        try:
            while length - done >= self._large:
                got = await self.transfers.write(address + done, length - done, held)
                if got is None:
                    break
                done += got
        except (trio.Cancelled, KeyboardInterrupt) as stop:
            # A write that was made in part counts as made: the buffer takes the rest.
            if done:
                self._keep(address + done, length - done)
            if not done or isinstance(stop, KeyboardInterrupt):
                raise
            return length
        return self._take_what_fits(memory, done)

    def _take_what_fits(self, memory: Memory, done: int) -> int:
        """Puts in the buffer what a `write` has left after ``done`` bytes, and returns the length of all. If
        the descriptor takes no more, and not all of it fits, raises BlockingIOError."""
        self._move_up()
        end = min(memory.length, done + max(self.size - self._pos, 0))
        self.put(memory.address + done, end - done)
        if end < memory.length:
            raise BlockingIOError(errno.EAGAIN, "write could not complete without blocking", end)
        return end

    def _behind_for(self, length: int) -> WriteBehind | None:
        """Returns the `WriteBehind` that may take a write of this length; None if it may not be behind."""
        if length > MOST_BEHIND or not self.position.may_go_behind:
            return None
        run = current_run()
        if run is None or not run.is_joined_at_exit:
            return None
        if self._behind is None:
            self._behind = WriteBehind(self.transfers, self.kept)
        return self._behind

    async def _add_behind(self, behind: WriteBehind, memory: Memory) -> int:
        """Puts behind what is buffered, and then the data of ``memory``. Data that is not large is put in
        the buffer instead, which is empty by then. Returns the length of the data in bytes."""
        length = memory.length
        buffered = self._write_end - self._write_pos if self._in_buffer() else 0
        await behind.make_room(buffered + length)
        parts = [bytes(self._view[self._write_pos : self._write_end])] if buffered else []
        kept = length if length < self._large else 0
        if kept < length:
            parts.append(memory.as_bytes())
        start = self.position.claim(buffered + length - kept)
        if start < 0:  # meanwhile somebody has asked for the descriptor
            return await self.write(memory)
        self._write_end = -1
        self._restore_size()
        self._keep(memory.address, kept)
        if parts:
            behind.add(start, *parts)
        return length

    def _rewind(self) -> None:
        """Moves the file's position to where the buffered data is to be written."""
        if back := self._raw_offset() + self._pos - self._write_pos:
            self.position.seek(-back, 1)
            self._raw_pos -= back

    async def write_out(self) -> None:
        """Writes what is behind, and then what is buffered. Waits until both are written."""
        if self._behind is not None:
            await self._behind.finish()
        if self._in_buffer():
            self._rewind()
        while self._in_buffer():
            start = self._write_pos
            memory = self._memory
            length = self._write_end - start
            self._writes = True
            try:
                done = await self.transfers.write(memory + start, length, memory)
            finally:
                self._writes = False
            if done is None:
                raise BlockingIOError(errno.EAGAIN, "write could not complete without blocking", 0)
            self._write_pos = self._raw_pos = start + done
        self._write_pos = 0
        self._write_end = -1
        self._restore_size()

    async def flush(self) -> None:
        """Writes what is buffered, forgets what was read ahead, and moves the file's position to where its
        user is."""
        await self.write_out()
        if self.position.raw.readable():
            self.position.seek(-self._raw_offset(), os.SEEK_CUR)
            self._drop_read()

    async def settle(self) -> None:
        """Waits until all that is behind is written. What is in the buffer stays there."""
        if self._behind is not None:
            await self._behind.finish()

    async def landed(self) -> None:
        """Waits until the kernel has no write of this file. Raises the error of one that failed."""
        if self._behind is not None:
            await self._behind.wait()

    # Moving

    async def seek(self, offset: int, whence: int) -> int:
        """Moves the position, and raises, as `io.BufferedRandom.seek` does. This is a checkpoint."""
        await checkpoint_at_once()
        whence = index(whence)
        target = index(offset) if hasattr(offset, "__index__") else _FAR
        position = self.position
        if whence not in _WHENCE or not position.raw.seekable() or not -_FAR <= target < _FAR:
            self._wrapped.seek(offset, whence)  # which raises
        if whence <= os.SEEK_CUR and (ahead := self.ahead) > 0:
            here = position.tell() - self._raw_offset()
            moved = target - here if whence == os.SEEK_SET else target
            if -self._pos <= moved <= ahead:
                self._pos += moved
                return max(here + moved, 0)
        if self.can_write:
            await self.write_out()
        if whence == os.SEEK_CUR:
            target -= self._raw_offset()
        reached = position.seek(target, whence)
        self._drop_read()
        return reached

    def go_back(self, offset: int) -> None:
        """Moves back to ``offset``, where `tell` was when a call began. That call has only read."""
        self._drop_read()
        self.position.seek(offset)


@atexit.register
def _write_at_exit() -> None:
    for _, reference in list(FileBuffer._alive.values()):
        buffer = reference()
        if buffer is not None:
            buffer.write_at_exit()


_WHENCE = (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, os.SEEK_DATA, os.SEEK_HOLE)
_FAR = 1 << 63
