"""Text files: characters over a file with a buffer.

- What was decoded and not yet given out is ``_decoded[_used:]``. ``_snapshot`` is a state of
  the decoder in which it holds no bytes, and the bytes that lead from there to ``_decoded``.
- Text is encoded and handed to the buffer at once. The buffer's own rules then say when it
  is written.
- A call that is cancelled in the middle puts back what it had decoded, with the earliest
  snapshot.
"""

from __future__ import annotations

import codecs
import io
import os
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from .async_file import AsyncFile, either, gather_lines, reading, write_lines, writing
from .budget import checkpoint_at_once
from .text_position import Cookie, Snapshot, cookie_past
from .transfers import pinned, truncate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from .buffered_file import BufferedFile


T = TypeVar("T")


class TextFile(AsyncFile[str]):
    """A text file; as `io.TextIOWrapper`."""

    _wrapped: io.TextIOWrapper

    def __init__(self, wrapped: io.TextIOWrapper, buffered: BufferedFile, newline: str | None) -> None:
        super().__init__(wrapped, buffered._turns)
        self._buffered = buffered
        buffered._kept.append(wrapped)
        self._newline = newline
        self._line_buffering = wrapped.line_buffering
        self._seekable = self._telling = wrapped.seekable()
        self._decoder: Any = self._new_decoder() if self._can_read else None
        self._encoder: Any = self._new_encoder() if self._can_write else None
        self._decoded = ""
        self._used = 0
        self._snapshot: Snapshot | None = None
        self._bytes_per_character = 0.0

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

    # Reading

    def _new_decoder(self) -> Any:
        wrapped = self._wrapped
        decoder = codecs.getincrementaldecoder(wrapped.encoding)(wrapped.errors or "strict")
        if self._newline:
            return decoder
        return io.IncrementalNewlineDecoder(decoder, self._newline is None)

    def _take(self, length: int) -> str:
        start = self._used
        text = self._decoded[start : start + length]
        self._used = start + len(text)
        return text

    def _forget(self) -> None:
        self._decoded, self._used, self._snapshot = "", 0, None

    async def _read_all(self) -> str:
        data = await self._buffered._read_all()
        text: str = self._decoder.decode(data or b"", True)
        text = self._take(len(self._decoded)) + text
        if self._snapshot is not None:
            self._forget()
        return text

    async def _read(self, length: int) -> str:
        passed = _Passed(self)
        parts = [self._take(length)]
        left = length - len(parts[0])
        while left > 0 and await self._read_chunk(left, passed):
            parts.append(self._take(left))
            left -= len(parts[-1])
        return "".join(parts)

    async def _read_chunk(self, length: int, passed: _Passed) -> bool:
        """Decodes one more transfer, of about ``length`` characters, over what there was.
        False at the end."""
        snapshot = Snapshot(*reversed(self._decoder.getstate())) if self._telling else None
        size = max(_CHUNK, int(max(self._bytes_per_character, 1.0) * length))
        try:
            data = await self._buffered._read1(size)
        except BaseException:
            passed.put_back(self)
            raise
        text: str = self._decoder.decode(data, not data)
        self._decoded, self._used = text, 0
        self._bytes_per_character = len(data) / len(text) if text else 0.0
        if snapshot:
            self._snapshot = Snapshot(snapshot.flags, snapshot.data + data)
        passed.chunks.append((text, data, self._snapshot))
        return bool(text or data)

    def _line_end(self, text: str, start: int) -> int:
        """Where the line ends, past its end mark; 0 if there is none."""
        if self._newline:
            found = text.find(self._newline, start)
            return found + len(self._newline) if found >= 0 else 0
        end = text.find("\n", start) + 1
        if self._newline is None:
            return end
        carriage = text.find("\r", start, end or len(text)) + 1
        return carriage if carriage and carriage != end - 1 else end

    def _line_at_hand(self, limit: int) -> str | None:
        """The next line, if it is decoded already; the position does not move."""
        if not self._decoded:
            return None
        start = self._used
        end = self._line_end(self._decoded, start)
        if limit >= 0 and (end or len(self._decoded)) - start >= limit:
            end = start + limit
        elif not end:
            return None
        return self._decoded[start:end]

    async def _readline(self, limit: int = -1, passed: _Passed | None = None) -> str:
        """A line of which only a part is decoded."""
        passed = passed or _Passed(self)
        parts: list[str] = []
        held = ""  # may be the first half of an end mark
        length = 0
        while True:
            while not self._decoded:
                if not await self._read_chunk(0, passed):
                    self._forget()
                    return "".join((*parts, held))
            line = held + self._decoded[self._used :]
            offset = len(held) - self._used
            end = self._line_end(line, 0)
            found = bool(end)
            if not found:
                end = len(line) - (self._newline == "\r\n" and line.endswith("\r"))
            if limit >= 0 and end + length >= limit:
                found, end = True, limit - length
            parts.append(line[:end])
            if found:
                self._used = end - offset
                return "".join(parts)
            length += end
            held = line[end:]
            self._decoded, self._used = "", 0

    async def _readlines(self, hint: int, lines: list[str]) -> None:
        passed = _Passed(self)

        async def next_line() -> str:
            line = self._line_at_hand(-1)
            if line is None:
                return await self._readline(-1, passed)
            self._used += len(line)
            return line

        await gather_lines(next_line, hint, lines)

    async def _untold(self, work: Awaitable[T]) -> T:
        """``work``, after which, as after `next`, the position is not known; unless it is
        cancelled, and so has not happened."""
        snapshot, happened = self._snapshot, True
        try:
            return await work
        except (trio.Cancelled, KeyboardInterrupt):
            happened = False
            raise
        finally:
            if happened:
                self._telling, self._snapshot = False, snapshot

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


_CHUNK: Final = 8192


class _Passed:
    """What one call has gone over, to put it back if the call is cancelled."""

    def __init__(self, file: TextFile) -> None:
        self.start = (file._decoded, file._used, file._snapshot)
        self.chunks: list[tuple[str, bytes, Snapshot | None]] = []

    def put_back(self, file: TextFile) -> None:
        decoded, used, snapshot = self.start
        if snapshot is not None:
            snapshot = Snapshot(snapshot.flags, snapshot.data + b"".join(data for _, data, _ in self.chunks))
        elif self.chunks:
            _, _, first = self.chunks[0]
            if first is not None:
                rest = b"".join(data for _, data, _ in self.chunks[1:])
                snapshot = Snapshot(first.flags, first.data + rest)
        file._decoded = decoded + "".join(text for text, _, _ in self.chunks)
        file._used = used
        file._snapshot = snapshot


def _has_order(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-16", "utf-32")
