"""Positions in text files: the standard library's cookies.

A cookie says where in the file to start, and what to do there to have the decoder, which may
be in the middle of a character or of a line end, in the state that it was in. The standard
library works it out itself, on a text file in memory that has the bytes since the snapshot.
"""

from __future__ import annotations

import io
from typing import NamedTuple


class Snapshot(NamedTuple):
    """A state of the decoder in which it holds no bytes, and the bytes that were decoded since."""

    flags: int
    data: bytes


class Cookie(NamedTuple):
    """A position: go there, give the decoder these flags and these bytes, then skip these
    characters."""

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
    """The cookie of as many characters past ``start``, where the file has ``data``."""
    memory = io.TextIOWrapper(
        _Memory(data, start.position), encoding=like.encoding, errors=like.errors, newline=newline
    )
    memory._CHUNK_SIZE = max(len(data), 1)  # type: ignore[attr-defined]
    memory.seek(start.packed())
    memory.read(characters)
    return memory.tell()


class _Memory(io.BytesIO):
    """A part of a file, from a position on."""

    def __init__(self, data: bytes, position: int) -> None:
        super().__init__(data)
        self._start = position

    def tell(self) -> int:
        return self._start + super().tell()

    def seek(self, position: int, whence: int = 0, /) -> int:
        return self._start + super().seek(position - self._start, whence)
