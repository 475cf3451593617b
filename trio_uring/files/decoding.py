"""The characters of a text file: its bytes are decoded, cut into lines, and given out.

- What was decoded and not yet given out is ``_decoded[used:]``. ``_snapshot`` is an earlier state of the
  decoder in which it held no bytes, and the bytes that lead from there to ``_decoded``.
- A call that is cancelled in the middle has not happened. In a file that has positions, all is put back
  as it was, and the bytes are read again. In a file without positions (a pipe), the characters are
  kept for the next call.
- As in the standard library, a `readlines` that stops before the end loses the position: `tell` raises
  until the file is moved or flushed. A call that fails leaves the file where it failed.
"""

from __future__ import annotations

import codecs
import io
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .async_file import gather_lines
from .cookies import Cookie, Snapshot, cookie_past

if TYPE_CHECKING:
    from .buffer import FileBuffer

_CHUNK: Final = 8192


class Decoding:
    """What one text file has decoded. For a file that is open for writing only, it knows only whether the
    position is known. Its methods are called by the task that has the file's turn."""

    def __init__(self, wrapped: io.TextIOWrapper, buffer: FileBuffer, newline: str | None) -> None:
        self._wrapped = wrapped
        self._buffer = buffer
        self._newline = newline
        self._seekable = wrapped.seekable()
        self._telling = self._seekable
        """Whether snapshots are made, so that the position is known."""
        self._decoder: Any = _new_decoder(wrapped, newline) if wrapped.readable() else None
        self._decoded = ""
        self.used = 0
        """How many characters of ``_decoded`` were given out."""
        self._snapshot: Snapshot | None = None
        self._bytes_per_character = 0.0

    @property
    def ahead(self) -> int:
        """How many characters can be given out without another transfer."""
        return len(self._decoded) - self.used

    @property
    def newlines(self) -> str | tuple[str, ...] | None:
        """The kinds of line ends that were read so far. None if none was read, or if the file was opened
        with a fixed ``newline``."""
        kinds: str | tuple[str, ...] | None = getattr(self._decoder, "newlines", None)
        return kinds

    def take(self, length: int) -> str:
        """Gives out the next ``length`` characters of what is `ahead`; all of it if that is less."""
        start = self.used
        text = self._decoded[start : start + length]
        self.used = start + len(text)
        return text

    def line_at_hand(self, limit: int) -> str | None:
        """Returns the next line, of ``limit`` characters at most if that is not negative; None if it is not
        all decoded yet. The caller gives it out by adding its length to `used`."""
        if not self._decoded:
            return None
        start = self.used
        end = self._line_end(self._decoded, start)
        if limit >= 0 and (end or len(self._decoded)) - start >= limit:
            end = start + limit
        elif not end:
            return None
        return self._decoded[start:end]

    async def read_all(self) -> str:
        """Reads all characters to the end of the file. If the descriptor is non-blocking and has nothing,
        raises what the standard library does: BlockingIOError, before Python 3.14 the decoder's TypeError."""
        data = await self._buffer.read_all()
        if data is None and sys.version_info >= (3, 14):
            raise BlockingIOError("Read returned None.")
        text: str = self._decoder.decode(data, True)
        text = self.take(len(self._decoded)) + text
        if self._snapshot is not None:
            self._forget()
        return text

    async def read(self, length: int) -> str:
        """Reads so many characters; fewer only at the end of the file."""
        mark = self._mark()
        parts = [self.take(length)]
        left = length - len(parts[0])
        try:
            while left > 0 and await self._read_chunk(left, mark):
                parts.append(self.take(left))
                left -= len(parts[-1])
        except BaseException as stop:
            self._go_back(mark, stop, parts)
            raise
        return "".join(parts)

    async def readline(self, limit: int = -1, mark: _Mark | None = None) -> str:
        """Reads a line of which only a part is decoded, of ``limit`` characters at most if that is not
        negative. If this is a part of a longer call, ``mark`` is that call's beginning."""
        mark = mark or self._mark()
        parts: list[str] = []
        held = ""  # a "\r" that may be the first half of a line end
        length = 0
        while True:
            try:
                while not self._decoded:
                    if not await self._read_chunk(0, mark):
                        self._forget()
                        return "".join((*parts, held))
            except BaseException as stop:
                self._go_back(mark, stop, [*parts, held])
                raise
            line = held + self._decoded[self.used :]
            offset = len(held) - self.used
            end = self._line_end(line, 0)
            found = bool(end)
            if not found:
                end = len(line) - (self._newline == "\r\n" and line.endswith("\r"))
            if limit >= 0 and end + length >= limit:
                found, end = True, limit - length
            parts.append(line[:end])
            if found:
                self.used = end - offset
                return "".join(parts)
            length += end
            held = line[end:]
            self._decoded, self.used = "", 0

    async def readlines(self, hint: int) -> list[str]:
        """Reads the lines to the end of the file, or until they are longer than ``hint`` characters
        together, if that is positive."""
        mark = self._mark()
        lines: list[str] = []
        self._telling = False
        try:
            await gather_lines(partial(self._next_line, mark), hint, lines)
        except BaseException as stop:
            self._go_back(mark, stop, lines)
            raise
        if not 0 < hint < sum(map(len, lines)):
            self._snapshot = None
            self._telling = self._seekable
        return lines

    async def _next_line(self, mark: _Mark) -> str:
        line = self.line_at_hand(-1)
        if line is None:
            return await self.readline(-1, mark)
        self.used += len(line)
        return line

    async def _read_chunk(self, length: int, mark: _Mark) -> bool:
        """Reads about ``length`` more characters with one transfer, and decodes them. They replace what was
        decoded before, which was given out. Returns False at the end of the file."""
        snapshot = Snapshot(*reversed(self._decoder.getstate())) if self._telling else None
        size = max(_CHUNK, int(max(self._bytes_per_character, 1.0) * length))
        data = await self._buffer.read1(size)
        if not mark.has_read:
            mark.has_read, mark.offset = True, self._buffer.tell() - len(data) if self._seekable else 0
        text: str = self._decoder.decode(data, not data)
        self._decoded, self.used = text, 0
        self._bytes_per_character = len(data) / len(text) if text else 0.0
        if snapshot:
            self._snapshot = Snapshot(snapshot.flags, snapshot.data + data)
        return bool(text or data)

    def _line_end(self, text: str, start: int) -> int:
        """Returns the index after the first line end at or after ``start``; 0 if there is none."""
        if self._newline:
            found = text.find(self._newline, start)
            return found + len(self._newline) if found >= 0 else 0
        end = text.find("\n", start) + 1
        if self._newline is None:
            return end
        carriage = text.find("\r", start, end or len(text)) + 1
        return carriage if carriage and carriage != end - 1 else end

    # Going back

    def _mark(self) -> _Mark:
        return _Mark(self, self._decoder.getstate())

    def _go_back(self, mark: _Mark, stop: BaseException, given: list[str]) -> None:
        """Undoes what a call has done since ``mark``, which ``stop`` has ended, as the head of this file
        says. ``given`` are the characters that it had taken."""
        has_failed = isinstance(stop, Exception)
        if not self._seekable:
            if not has_failed or isinstance(stop, OSError):
                self._decoded = "".join(given) + self._decoded[self.used :]
                self.used = 0
        elif not has_failed or not mark.has_read:
            self._decoded, self.used, self._snapshot, self._telling = mark.state
            if mark.has_read:
                self._decoder.setstate(mark.decoder_state)
                self._buffer.go_back(mark.offset)

    def _forget(self) -> None:
        self._decoded, self.used, self._snapshot = "", 0, None

    # Positions

    def flushed(self) -> None:
        """Notes that the file was flushed: its position is known again."""
        self._telling = self._seekable

    def written(self) -> None:
        """Forgets what was read ahead. Called after a write: it is not what comes next any more."""
        if self._snapshot is not None:
            self._forget()
        if self._decoder is not None:
            self._decoder.reset()

    def tell(self, position: int) -> int:
        """Returns the cookie of where the file's user is. ``position`` is where its buffer is, in bytes."""
        if self._snapshot is None:
            return position
        flags, data = self._snapshot
        start = Cookie(position - len(data), flags)
        if not self.used:
            return start.packed()
        return cookie_past(start, data, self.used, self._wrapped, self._newline)

    def moved(self, cookie: Cookie | None) -> None:
        """Brings the decoder into the state for ``cookie``, or for the end of the file if that is None.
        Called when the buffer was moved there."""
        self._forget()
        if self._decoder is None:
            return
        if cookie is not None:
            self._snapshot = Snapshot(cookie.flags, b"")
        if cookie is not None and (cookie.position or cookie.flags):
            self._decoder.setstate((b"", cookie.flags))
        else:
            self._decoder.reset()

    def skip(self, cookie: Cookie, data: bytes) -> None:
        """Skips the characters that ``cookie`` says. ``data`` are the bytes to decode for that."""
        self._decoded = self._decoder.decode(data, bool(cookie.at_end))
        self._snapshot = Snapshot(cookie.flags, data)
        if len(self._decoded) < cookie.characters:
            raise OSError("can't restore logical file position")
        self.used = cookie.characters

    def lose(self) -> None:
        """Notes that the position is not known any more."""
        self._telling = False

    def check_told(self) -> None:
        """Raises OSError if the position is not known."""
        if not self._telling:
            raise OSError("telling position disabled by next() call")


class _State(NamedTuple):
    decoded: str
    used: int
    snapshot: Snapshot | None
    telling: bool


class _Mark:
    """The state in which a call has begun, to go back to."""

    __slots__ = ("decoder_state", "has_read", "offset", "state")

    def __init__(self, decoding: Decoding, decoder_state: Any) -> None:
        self.state = _State(decoding._decoded, decoding.used, decoding._snapshot, decoding._telling)
        self.decoder_state = decoder_state
        self.has_read = False
        """Whether the call has read from the buffer."""
        self.offset = 0
        """Where the buffer was before the call read from it, in bytes."""


def _new_decoder(wrapped: io.TextIOWrapper, newline: str | None) -> Any:
    decoder = codecs.getincrementaldecoder(wrapped.encoding)(wrapped.errors or "strict")
    return decoder if newline else io.IncrementalNewlineDecoder(decoder, newline is None)
