"""Text files: characters over a file with a buffer.

How they are read is for decoding.py. Text that is written is encoded and handed to the buffer
at once; the buffer's own rules then say when it is written.
"""

from __future__ import annotations

import codecs
import os
from typing import TYPE_CHECKING, Any

import trio

from .async_file import either, reading, write_lines, writing
from .budget import checkpoint_at_once
from .decoding import Decoding
from .text_position import Cookie, Snapshot, cookie_past
from .transfers import pinned, truncate

if TYPE_CHECKING:
    import io
    from collections.abc import Iterable

    from .buffered_file import BufferedFile


class TextFile(Decoding):
    """A text file; as `io.TextIOWrapper`."""

    def __init__(self, wrapped: io.TextIOWrapper, buffered: BufferedFile, newline: str | None) -> None:
        super().__init__(wrapped, buffered, newline)
        buffered._kept.append(wrapped)
        self._line_buffering = wrapped.line_buffering
        self._encoder: Any = self._new_encoder() if self._can_write else None

    def __del__(self) -> None:
        # Before the standard library's file closes the descriptor.
        if "_buffered" in self.__dict__:
            self._buffered._write_abandoned()

    @property
    def buffer(self) -> Any:
        """The standard library's file on the same descriptor: past our buffers."""
        return self._wrapped.buffer

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
        """The kinds of line ends that were read, if they are translated or told apart."""
        none: Any = self._wrapped.newlines  # or raises, as we are detached
        kinds: str | tuple[str, ...] | None = getattr(self._decoder, "newlines", none)
        return kinds

    @either
    async def __anext__(self) -> str:
        if not self._can_read:
            self._telling = False
            next(self._wrapped)  # which raises
        line = self._line_at_hand(-1)
        if line is not None:
            await checkpoint_at_once()
            self._telling = False
            self._used += len(line)
            return line
        if line := await self._untold(self._readline()):
            return line
        self._snapshot = None
        self._telling = self._seekable
        raise StopAsyncIteration

    @reading
    async def read(self, size: int | None = -1, /) -> str:
        """``size`` characters, fewer only at the end; all to the end if that is negative."""
        length = self._length("read", size)
        if length < 0:
            return await self._read_all()
        if length > len(self._decoded) - self._used:
            return await self._read(length)
        await checkpoint_at_once()
        return self._take(length)

    @reading
    async def readline(self, size: int | None = -1, /) -> str:
        """One line, of ``size`` characters at most; empty at the end."""
        if size is None:
            self._wrapped.readline(size)  # type: ignore[arg-type]  # which raises
        limit = self._length("readline", size)
        line = self._line_at_hand(limit)
        if line is None:
            return await self._readline(limit)
        await checkpoint_at_once()
        self._used += len(line)
        return line

    @either
    async def readlines(self, hint: int | None = -1, /) -> list[str]:
        """The lines to the end, or until they are longer than ``hint`` characters."""
        number = self._length("readlines", hint)
        if not self._can_read:
            self._telling = False
            self._wrapped.readlines()  # which raises
        lines: list[str] = []
        await checkpoint_at_once()
        await self._untold(self._readlines(number, lines))
        if not 0 < number < sum(map(len, lines)):
            self._snapshot = None
            self._telling = self._seekable
        return lines

    @writing
    async def write(self, text: str, /) -> int:
        """Takes all of ``text``; its length in characters."""
        await checkpoint_at_once()
        return await self._write(text)

    @writing
    async def writelines(self, lines: Iterable[str], /) -> None:
        """Takes all of ``lines``, one after the other."""
        await write_lines(self._write, lines)

    @either
    async def seek(self, cookie: int, whence: int = 0, /) -> int:
        """Moves to where `tell` was, to the start (0) or to the end (0, 2). Writes what is
        buffered. A cancelled one has not happened."""
        if not self._seekable or (whence == os.SEEK_SET and cookie < 0) or whence not in (0, 1, 2):
            self._wrapped.seek(cookie, whence)  # which raises
        if whence != os.SEEK_SET and cookie != 0:
            self._wrapped.seek(cookie, whence)  # which raises
        if whence == os.SEEK_CUR:
            cookie = await self._tell()
        await self._flush()
        if whence == os.SEEK_END:
            return await self._seek_end()
        await self._seek(cookie)
        return cookie

    @either
    async def tell(self) -> int:
        """Where we are, as a number that only `seek` understands. Writes what is buffered."""
        await checkpoint_at_once()
        return await self._tell()

    @either
    async def truncate(self, size: int | None = None, /) -> int:
        """Makes the file ``size`` bytes long, or as long as where the last transfer ended,
        after writing what is buffered. By the ring from Linux 6.9 on, else by a worker thread."""
        await self._flush()
        if not self._can_write:
            self._wrapped.truncate(size)  # which raises
        return await truncate(self._buffered._raw, size)

    @either
    async def flush(self) -> None:
        """Writes what is buffered."""
        if not self._unwritten():
            await checkpoint_at_once()
        await self._flush()

    @either
    async def detach(self) -> BufferedFile:
        """Writes what is buffered, and returns the binary file; this one is of no use from
        then on."""
        await checkpoint_at_once()
        await self._flush()
        self._wrapped.detach()
        return self._buffered

    def _unwritten(self) -> bool:
        return self._buffered._unwritten()

    async def _write_out(self) -> None:
        await self._buffered._write_out()

    async def _settle(self) -> None:
        await self._buffered._settle()

    async def _flush(self) -> None:
        self._telling = self._seekable
        if self._can_write:
            await self._buffered._flush()

    # Writing

    def _new_encoder(self) -> Any:
        wrapped = self._wrapped
        encoder = codecs.getincrementalencoder(wrapped.encoding)(wrapped.errors or "strict")
        # No byte order mark in the middle of a file, nor into a pipe.
        if self._buffered._tell() != 0 if self._seekable else _has_order(wrapped.encoding):
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
        if self._buffered._fits(len(data)):
            self._buffered._put(data, len(data))
        else:
            try:
                await self._buffered._write(pinned(self._wrapped, "write", data))
            except BaseException:
                self._encoder.setstate(state)
                raise
        if flush:
            await self._buffered._flush()
        if self._snapshot is not None:
            self._forget()
        if self._decoder is not None:
            self._decoder.reset()
        return length

    def _at(self, start: bool) -> None:
        """Tells the encoder whether what comes is the start of the file."""
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
        if not self._telling:
            raise OSError("telling position disabled by next() call")
        await self._flush()
        position = self._buffered._tell()
        if self._decoder is None or self._snapshot is None:
            return position
        flags, data = self._snapshot
        start = Cookie(position - len(data), flags)
        if not self._used:
            return start.packed()
        return cookie_past(start, data, self._used, self._wrapped, self._newline)

    async def _seek(self, number: int) -> None:
        cookie = Cookie.unpacked(number)
        chars, data = "", b""
        await self._buffered._seek(cookie.position, os.SEEK_SET)
        self._forget()
        self._snapshot = Snapshot(cookie.flags, b"") if self._decoder is not None else None
        if self._decoder is not None:
            if cookie.position or cookie.flags:
                self._decoder.setstate((b"", cookie.flags))
            else:
                self._decoder.reset()
        if cookie.characters:
            with trio.CancelScope(shield=True):  # or we would be neither here nor there
                data = await self._buffered._read(cookie.bytes) or b""
            chars = self._decoder.decode(data, bool(cookie.at_end))
            self._decoded, self._snapshot = chars, Snapshot(cookie.flags, data)
            if len(chars) < cookie.characters:
                raise OSError("can't restore logical file position")
            self._used = cookie.characters
        self._at(cookie.position == 0 and cookie.flags == 0)

    async def _seek_end(self) -> int:
        position = await self._buffered._seek(0, os.SEEK_END)
        self._forget()
        if self._decoder is not None:
            self._decoder.reset()
        self._at(position == 0)
        return position


def _has_order(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-16", "utf-32")
