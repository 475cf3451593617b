"""Text files: characters over a buffer (files/buffer.py).

files/decoding.py decodes what is read. Text that is written is encoded and handed to the buffer at
once, and the buffer decides when to write it.
"""

from __future__ import annotations

import codecs
import os
from contextlib import suppress
from operator import index
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from ..loop.checkpoints import checkpoint_at_once, yield_shielded
from ..loop.trio_internals import context
from .async_file import either, reading, write_lines, writing
from .buffered import BufferedFile, BufferedReaderFile
from .cookies import Cookie
from .decoding import Decoding
from .memory import pinned
from .over_buffer import OverBuffer

if TYPE_CHECKING:
    import io
    from collections.abc import Iterable

    from .async_file import Turns
    from .buffer import FileBuffer


class TextFile(OverBuffer[str]):
    """A text file, like an `io.TextIOWrapper`."""

    _wrapped: io.TextIOWrapper

    def __init__(self, wrapped: io.TextIOWrapper, buffer: FileBuffer, newline: str | None) -> None:
        super().__init__(wrapped, buffer.position)
        self._buffer = buffer
        buffer.kept.append(wrapped)
        self._newline = newline
        self._seekable = wrapped.seekable()
        self._line_buffering = wrapped.line_buffering
        self._decoding = Decoding(wrapped, buffer, newline)
        self._encoder: Any = self._new_encoder() if self._can_write else None
        self._has_simple_lines = self._can_read and not self._can_write and newline in (None, "\n")

    @property
    def buffer(self) -> Any:
        """The standard library's binary file on the same descriptor. It goes past our buffer. Whoever has
        it can move the position, so asking for it has the effects of `fileno`."""
        buffer = self._wrapped.buffer
        self._share()
        return buffer

    @property
    def encoding(self) -> str:
        return self._wrapped.encoding

    @property
    def errors(self) -> str | None:
        return self._wrapped.errors

    @property
    def line_buffering(self) -> bool:
        return self._wrapped.line_buffering

    @property
    def newlines(self) -> str | tuple[str, ...] | None:
        """The kinds of line ends that were read so far. None if none was read, or if the file was opened
        with a fixed ``newline``."""
        none: Any = self._wrapped.newlines  # this raises if the file is detached
        return self._decoding.newlines if self._can_read else none

    @enable_ki_protection
    async def __anext__(self) -> str:
        # This is `_next_line`, inlined for speed, for a line that is decoded already when no other task has
        # the turn. Nothing has happened yet, so it may look for a cancellation before it yields.
        if self._has_simple_lines and not self._raw.closed and (task := getattr(context, "task", None)):
            turns = self._turns
            if turns.holder is not None:
                return await self._next_line()
            turns.holder = task
            try:
                decoding = self._decoding
                text, start = decoding._decoded, decoding.used
                if end := text.find("\n", start) + 1:
                    run: Any = task._runner.io_manager
                    task._cancel_points += 1
                    if task._cancel_status.effectively_cancelled or task._runner.ki_pending:
                        await checkpoint_if_cancelled()
                    if not (getattr(run, "budget", 0) and run.spend(task)):
                        await yield_shielded()
                    decoding.used = end
                    return text[start:end]
            finally:
                if turns._waiting is not None:
                    turns.leave(task)
                elif turns.holder is task:
                    turns.holder = None
        return await self._next_line()

    @reading
    async def _next_line(self) -> str:
        decoding = self._decoding
        line = decoding.line_at_hand(-1)
        if line is not None:
            await checkpoint_at_once()
            decoding.used += len(line)
            return line
        if line := await decoding.readline():
            return line
        raise StopAsyncIteration

    @reading
    async def read(self, size: int | None = -1, /) -> str:
        """Reads ``size`` characters, fewer only at the end of the file; all to the end if ``size`` is
        negative or None."""
        decoding = self._decoding
        length = self._length("read", size)
        if length < 0:
            return await decoding.read_all()
        if length > decoding.ahead:
            return await decoding.read(length)
        await checkpoint_at_once(self._turns.holder)
        return decoding.take(length)

    @reading
    async def readline(self, size: int | None = -1, /) -> str:
        """Reads one line, of ``size`` characters at most. It is empty at the end of the file."""
        if size is None:
            self._wrapped.readline(size)  # type: ignore[arg-type]  # which raises
        limit = self._length("readline", size)
        decoding = self._decoding
        line = decoding.line_at_hand(limit)
        if line is None:
            return await decoding.readline(limit)
        await checkpoint_at_once(self._turns.holder)
        decoding.used += len(line)
        return line

    @either
    async def readlines(self, hint: int | None = -1, /) -> list[str]:
        """Reads the lines to the end of the file, or until they are longer than ``hint`` characters
        together, if that is positive."""
        number = self._length("readlines", hint)
        if not self._can_read:
            self._decoding.lose()
            self._wrapped.readlines()  # which raises
        await checkpoint_at_once()
        return await self._decoding.readlines(number)

    @writing
    async def write(self, text: str, /) -> int:
        """Takes all of ``text``, and returns its length in characters."""
        await checkpoint_at_once(self._turns.holder)
        return await self._write(text)

    @writing
    async def writelines(self, lines: Iterable[str], /) -> None:
        """Takes all of ``lines``, one after the other."""
        await write_lines(self._write, lines)

    @either
    async def seek(self, cookie: int, whence: int = 0, /) -> int:
        """Writes what is buffered, and moves to a position that `tell` has returned, to the start (0) or to
        the end (0, 2). Returns the new position. If this is cancelled, the position has not moved."""
        whence = index(whence)
        if not self._seekable or (whence == os.SEEK_SET and cookie < 0) or whence not in (0, 1, 2):
            self._wrapped.seek(cookie, whence)  # which raises
        if whence != os.SEEK_SET and cookie != 0:
            self._wrapped.seek(cookie, whence)  # which raises
        if whence == os.SEEK_CUR:
            cookie = await self._tell()
        await self._flush()
        if whence == os.SEEK_END:
            return await self._seek_end()
        await self._seek(int(cookie))  # a float is taken, too
        return cookie

    @either
    async def tell(self) -> int:
        """Writes what is buffered. Returns the position, as a number that only `seek` understands."""
        await checkpoint_at_once()
        return await self._tell()

    @either
    async def truncate(self, size: int | None = None, /) -> int:
        """Writes what is buffered, and makes the file ``size`` bytes long, or lets it end where the
        last transfer ended. Returns the new size. The ring does it from Linux 6.9 on, else a worker
        thread."""
        await self._flush()
        if not self._can_write:
            self._wrapped.truncate(size)  # which raises
        return await self._buffer.transfers.truncate(size)

    @either
    async def flush(self) -> None:
        """Writes what is buffered. The kernel has it then, and others can read it."""
        if not self._unwritten():
            await checkpoint_at_once()
        await self._flush()

    @either
    async def detach(self) -> BufferedFile:
        """Writes what is buffered, and returns a binary file with the same buffer. This one cannot be used
        any more."""
        await checkpoint_at_once()
        await self._flush()
        binary = self._wrapped.detach()
        self._is_detached = True
        self._has_simple_lines = False
        return buffered(binary, self._buffer, self._turns)

    async def _sync(self, *, data_only: bool) -> None:
        self._own_fileno()  # which raises if it is closed
        await self._turns.within(self._buffer.write_out)
        await self._buffer.transfers.sync(data_only=data_only)

    async def _flush(self) -> None:
        self._decoding.flushed()
        if self._can_write:
            await self._buffer.flush()

    # Writing

    def _new_encoder(self) -> Any:
        wrapped = self._wrapped
        encoder = codecs.getincrementalencoder(wrapped.encoding)(wrapped.errors or "strict")
        # State 0 writes no byte order mark: there is none in the middle of a file, nor in a pipe.
        if self._buffer.tell() != 0 if self._seekable else _has_order(wrapped.encoding):
            encoder.setstate(0)
        return encoder

    async def _write(self, text: str) -> int:
        if not isinstance(text, str):
            self._wrapped.write(text)  # which raises
        length = len(text)
        ends = "\n" in text
        flush = self._line_buffering and (ends or "\r" in text)
        if ends and self._newline and self._newline != "\n":
            text = text.replace("\n", self._newline)
        state = self._encoder.getstate()
        data = self._encoder.encode(text)
        if self._buffer.fits(len(data)):
            self._buffer.put(data, len(data))
        else:
            try:
                await self._buffer.write(pinned(self._wrapped, "write", data))
            except BaseException as stop:
                if not getattr(stop, "characters_written", 0):
                    self._encoder.setstate(state)
                raise
        if flush:
            with suppress(trio.Cancelled):  # the text is accepted, and stays buffered if it is not written
                await self._buffer.flush()
        self._decoding.written()
        return length

    def _at(self, start: bool) -> None:
        """Tells the encoder whether the next text is at the start of the file, where a byte order mark
        goes."""
        if self._encoder is None:
            return
        if start:
            self._encoder.reset()
        else:
            self._encoder.setstate(0)

    # Positions

    async def _tell(self) -> int:
        if not self._seekable:
            self._wrapped.tell()  # which raises
        self._decoding.check_told()
        await self._flush()
        return self._decoding.tell(self._buffer.tell())

    async def _seek(self, number: int) -> None:
        cookie = Cookie.unpacked(number)
        await self._buffer.seek(cookie.position, os.SEEK_SET)
        self._decoding.moved(cookie)
        if cookie.characters:
            with trio.CancelScope(shield=True):  # else a cancellation could leave it half-way
                data = await self._buffer.read(cookie.bytes) or b""
            self._decoding.skip(cookie, data)
        self._at(cookie.position == 0 and cookie.flags == 0)

    async def _seek_end(self) -> int:
        position = await self._buffer.seek(0, os.SEEK_END)
        self._decoding.moved(None)
        self._at(position == 0)
        return position


def buffered(wrapped: Any, buffer: FileBuffer, turns: Turns | None = None) -> BufferedFile:
    """Returns the binary file for ``wrapped``, an open binary file of the standard library's, or what stands
    for one (files/made_later.py)."""
    kind = BufferedReaderFile if buffer.position.raw.readable() else BufferedFile
    return kind(wrapped, buffer, turns)


def _has_order(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-16", "utf-32")
