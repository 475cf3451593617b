"""The characters of a file with a buffer: decoded, cut into lines, and put back.

- What was decoded and not yet given out is ``_decoded[_used:]``. ``_snapshot`` is a state of
  the decoder in which it holds no bytes, and the bytes that lead from there to ``_decoded``.
- A call that is cancelled in the middle puts back what it had decoded, with the earliest
  snapshot.
"""

from __future__ import annotations

import codecs
import io
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from .async_file import AsyncFile, gather_lines
from .text_position import Snapshot

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .buffered_file import BufferedFile

T = TypeVar("T")

_CHUNK: Final = 8192


class Decoding(AsyncFile[str]):
    """The reading half of a text file, without its calls."""

    _wrapped: io.TextIOWrapper

    def __init__(self, wrapped: io.TextIOWrapper, buffered: BufferedFile, newline: str | None) -> None:
        super().__init__(wrapped, buffered._turns)
        self._buffered = buffered
        self._newline = newline
        self._seekable = self._telling = wrapped.seekable()
        self._decoder: Any = self._new_decoder() if self._can_read else None
        self._decoded = ""
        self._used = 0
        self._snapshot: Snapshot | None = None
        self._bytes_per_character = 0.0

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


class _Passed:
    """What one call has gone over, to put it back if the call is cancelled."""

    def __init__(self, file: Decoding) -> None:
        self.start = (file._decoded, file._used, file._snapshot)
        self.chunks: list[tuple[str, bytes, Snapshot | None]] = []

    def put_back(self, file: Decoding) -> None:
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
