"""Positions in text files: the standard library's cookies.

The decoder of a text file may be in the middle of a character or of a line end. So a position in the
file is more than an offset. It is a number, the cookie, which says at which byte to start, and what to
decode and skip there until the decoder is in the same state. The standard library computes it for us: a
text file of its own, in memory, reads the bytes since the snapshot.
"""

from __future__ import annotations

import io
from typing import NamedTuple


class Snapshot(NamedTuple):
    """A state of the decoder in which it holds no bytes (so its flags are all), and the bytes that it was
    given since."""

    flags: int
    data: bytes


class Cookie(NamedTuple):
    """A cookie in its parts: go to the byte ``position``, set the decoder's ``flags``, decode as many
    ``bytes``, and skip as many ``characters``. ``at_end`` is 1 if the decoder has to be told that the file
    ends after the bytes."""

    position: int
    flags: int = 0
    bytes: int = 0
    characters: int = 0
    at_end: int = 0

    @classmethod
    def unpacked(cls, number: int) -> Cookie:
        return cls(
            number & (1 << 64) - 1,
            number >> 64 & (1 << 32) - 1,
            number >> 96 & (1 << 32) - 1,
            number >> 128 & (1 << 32) - 1,
            number >> 160 & 0xFF,
        )

    def packed(self) -> int:
        return self.position | self.flags << 64


def cookie_past(
    start: Cookie, data: bytes, characters: int, like: io.TextIOWrapper, newline: str | None
) -> int:
    """Returns the cookie of the place that is ``characters`` past ``start``. ``data`` is what the file has
    from ``start`` on, and ``like`` a text file with the same encoding."""
    memory = io.TextIOWrapper(
        _Memory(data, start.position), encoding=like.encoding, errors=like.errors, newline=newline
    )
    memory._CHUNK_SIZE = max(len(data), 1)  # type: ignore[attr-defined]
    memory.seek(start.packed())
    memory.read(characters)
    return memory.tell()


class _Memory(io.BytesIO):
    """A binary file in memory that has a part of another, and the same positions."""

    def __init__(self, data: bytes, position: int) -> None:
        super().__init__(data)
        self._start = position

    def tell(self) -> int:
        return self._start + super().tell()

    def seek(self, position: int, whence: int = 0, /) -> int:
        return self._start + super().seek(position - self._start, whence)
