"""What a file's buffer holds: bytes that were read and not yet given out, or accepted and not yet written.

One buffer serves reading and writing. These are indexes into its memory:

    0 ........ pos ........ read_end          what was read, and is still to be given out
    0 . write_pos .. pos .. write_end         what was written, and has still to go out
                            raw_pos           the index that the file's own position is at

- ``pos`` is where the file's user is. ``read_end`` is -1 if nothing was read, and ``write_end`` is -1 if
  nothing was written. A write over data that was read ahead changes that in place, as in the
  standard library.
- The kernel reads into this memory and writes from it. So it is replaced only when no transfer is
  under way. A transfer holds it, so that it stays where it is.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from ..ring.native import ffi

_from_buffer: Any = ffi.from_buffer
_memmove: Any = ffi.memmove


_NOTHING: Final = bytearray()


class HeldBytes:
    """The memory of a file's buffer. Its methods are called by the task that has the file's turn."""

    # Many a file is read by one call, straight into its result. So what an empty buffer is stands here, and
    # memory is made at the first need.
    _pos = 0
    _raw_pos = 0
    _read_end = -1
    _write_pos = 0
    _write_end = -1
    _buffer = _NOTHING
    _memory: Any = None
    _view = memoryview(_NOTHING)
    _is_longer = False

    def __init__(self, size: int) -> None:
        self.size = size
        # A write of this many bytes goes past the buffer. The limit is that of the standard library's files.
        self._large = size if sys.version_info >= (3, 13) else size + 1

    @property
    def ahead(self) -> int:
        """How many bytes can be given out from the buffer."""
        return self._read_end - self._pos if self._read_end != -1 else 0

    def _raw_offset(self) -> int:
        """Returns by how many bytes the file's own position is past where its user is."""
        return self._raw_pos - self._pos if self._read_end != -1 or self._write_end != -1 else 0

    def _in_buffer(self) -> bool:
        """Tells whether the buffer has data that is not written yet."""
        return self._write_pos < self._write_end

    def _make(self) -> None:
        """Makes the memory if there is none. Called before anything is put into it."""
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
        """Gives out the next ``length`` bytes, which have to be `ahead`."""
        start = self._pos
        self._pos = end = start + length
        return bytes(self._view[start:end])

    def look(self) -> bytes:
        """Returns all that is `ahead`, without giving it out."""
        return bytes(self._view[self._pos : self._pos + self.ahead])

    def line_at_hand(self, limit: int) -> bytes | None:
        """Returns the next line, of ``limit`` bytes at most if that is not negative, without giving it out;
        None if the buffer has not all of it."""
        ahead = self.ahead
        most = ahead if limit < 0 else min(ahead, limit)
        start = self._pos
        end = self._buffer.find(b"\n", start, start + most) + 1
        if end or most == limit:
            return bytes(self._view[start : end or start + most])
        return None

    def pass_over(self, length: int) -> None:
        """Gives out ``length`` bytes, those of a line that `line_at_hand` has returned."""
        self._pos += length

    def give_back(self, data: bytes) -> None:
        """Takes back data that a call had read, so that the next call reads it."""
        if not data:
            return
        if self._in_buffer():  # then the data came from the buffer, and is still there
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
        """Tells whether data of this length can be `put` in the buffer."""
        if self._read_end == -1 and self._write_end == -1:
            self._pos = self._raw_pos = 0
        end = self._pos + length
        if length >= self._large or end > self.size:
            return False
        if self._read_end == -1:
            return True
        # What was read is not written again: it may be older than what `BinaryFile.pwrite` has written there.
        # So data that would leave a gap to what is to be written does not fit.
        start, stop = self._write_pos, self._write_end
        return start >= stop or (start <= end and self._pos <= stop)

    def put(self, data: Any, length: int) -> None:
        """Copies ``length`` bytes into the buffer, which have to fit (`fits`). ``data`` is a bytes object or
        a pointer."""
        self._make()
        start = self._pos
        _memmove(self._memory + start, data, length)
        if self._write_end == -1 or self._write_pos > start:
            self._write_pos = start
        self._pos = end = start + length
        if self._read_end != -1 and self._read_end < end:
            self._read_end = end
        self._write_end = max(self._write_end, end)

    def _move_up(self) -> None:
        """Moves what is still to be written to the start of the memory, and forgets what was read. The file's
        own position is where that is to be written."""
        start = self._write_pos
        if self._in_buffer():
            self._view[: self._write_end - start] = self._view[start : self._write_end]
            self._pos -= start
            self._write_end -= start
        else:
            self._pos = 0
            self._write_end = -1
        self._write_pos = self._raw_pos = 0
        self._read_end = -1

    def _keep(self, address: Any, left: int) -> None:
        """Copies ``left`` bytes from ``address`` into the buffer, which is empty. They are the rest of a
        large write, to be written later."""
        self._make()
        if left > self.size:
            self._use(bytearray(left))
        _memmove(self._memory, address, left)
        self._raw_pos = self._write_pos = 0
        self._pos = self._write_end = left
