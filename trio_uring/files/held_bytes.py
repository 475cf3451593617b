"""What a file's buffer holds: bytes that were read and not given out, or accepted and not written.

One buffer serves reading and writing. Seen from the file:

    0 ........ pos ........ read_end          what was read, and is still to be given out
    0 . write_pos .. pos .. write_end         what was written, and has still to go out
                            raw_pos           where in this picture the file's position is

- ``read_end`` and ``write_end`` are -1 where there is nothing of that kind. Data that is
  written over data that was read ahead changes it in place, as the standard library does.
- The kernel reads into the buffer and writes from it. So it is replaced only when no
  transfer is under way, and it is kept from moving by what a transfer holds.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from ..ring.native import ffi

_from_buffer: Any = ffi.from_buffer
_memmove: Any = ffi.memmove


_NOTHING: Final = bytearray()


class HeldBytes:
    """The memory of a buffer. Who calls has the file's turn."""

    def __init__(self, size: int) -> None:
        self.size = size
        # A write of this many bytes goes past the buffer; the limit is that of `open`.
        self._large = size if sys.version_info >= (3, 13) else size + 1
        self._pos = 0
        self._raw_pos = 0
        self._read_end = -1
        self._write_pos = 0
        self._write_end = -1
        # Many a file is read by one call, to where that wants it. So the memory is for who first needs it.
        self._buffer = _NOTHING
        self._memory: Any = None
        self._view = memoryview(_NOTHING)
        self._is_longer = False

    @property
    def ahead(self) -> int:
        """How many bytes can be given out from the buffer."""
        return self._read_end - self._pos if self._read_end != -1 else 0

    def _raw_offset(self) -> int:
        """How far the file's position is past ours."""
        return self._raw_pos - self._pos if self._read_end != -1 or self._write_end != -1 else 0

    def _in_buffer(self) -> bool:
        """Whether the buffer has data that has still to go out."""
        return self._write_pos < self._write_end

    def _make(self) -> None:
        """Before anything is put into memory."""
        if self._memory is None:
            self._use(bytearray(self.size))

    def _use(self, buffer: bytearray) -> None:
        self._is_longer = len(buffer) > self.size
        self._buffer = buffer
        self._memory = _from_buffer(buffer)
        self._view = memoryview(buffer)

    def _drop_read(self) -> None:
        self._read_end = -1
        self._restore_size()

    def _restore_size(self) -> None:
        if self._read_end == -1 and self._write_end == -1 and self._is_longer:
            self._use(bytearray(self.size))

    # Reading

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes of what is `ahead`."""
        start = self._pos
        self._pos = end = start + length
        return bytes(self._view[start:end])

    def look(self) -> bytes:
        """All that is `ahead`, which stays there."""
        return bytes(self._view[self._pos : self._pos + self.ahead])

    def line_at_hand(self, limit: int) -> bytes | None:
        """The next line, of ``limit`` bytes at most, if the buffer has it; it stays there."""
        ahead = self.ahead
        most = ahead if limit < 0 else min(ahead, limit)
        start = self._pos
        end = self._buffer.find(b"\n", start, start + most) + 1
        if end or most == limit:
            return bytes(self._view[start : end or start + most])
        return None

    def pass_over(self, length: int) -> None:
        """What `line_at_hand` has returned is given out."""
        self._pos += length

    def give_back(self, data: bytes) -> None:
        """Data that a call had read, and that the next one shall read."""
        if not data:
            return
        if self._in_buffer():  # so it came from the buffer
            self._pos -= len(data)
            return
        if ahead := self.ahead:
            data += self.take(ahead)
        self._make()
        if len(data) > len(self._buffer):
            self._use(bytearray(data))
        else:
            self._view[: len(data)] = data
        self._pos = 0
        self._raw_pos = self._read_end = len(data)

    # Writing

    def fits(self, length: int) -> bool:
        """Whether data of this length can be `put` in the buffer."""
        if self._read_end == -1 and self._write_end == -1:
            self._pos = self._raw_pos = 0
        return length < self._large and self._pos + length <= self.size

    def put(self, data: Any, length: int) -> None:
        """Takes what `fits`: bytes, or a pointer to some."""
        self._make()
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
        self._make()
        if left > self.size:
            self._use(bytearray(left))
        _memmove(self._memory, address, left)
        self._raw_pos = self._write_pos = 0
        self._pos = self._write_end = left
