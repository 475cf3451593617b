"""The files that are read: what is in them is known, so that a read can be checked.

Each block of a data file begins with its number, which costs a reader next to nothing
to compare. The lines of the text are of several lengths, with letters of two bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

BLOCK = 4096
CHUNKS = {"256 KiB": 256 << 10, "1 MiB": 1 << 20}
"""Of sequential reads and writes."""
_FAIR_PLACES = range(32, 4064)
"""Within a page, for data that is written to a file. Some processors (AMD, `rep movsb`) copy at a
ninth of their speed to where the target's offset in its page is less than 32 bytes above the source's."""

_FILLER = bytes(range(256)) * 16
_WORDS = "naïve façades über cafés, señor: plain letters are the rule and accents are not "


class ContentsError(Exception):
    """What was read is not what is in the file there."""


def block(number: int) -> bytes:
    return number.to_bytes(8, "little") + _FILLER[8:]


def chunk(size: int) -> bytes:
    """Blocks to be written at once, whose place in memory does no side harm."""
    unfair = []
    while (id(data := block(0) * (size // BLOCK)) + bytes.__basicsize__ - 1) % 4096 not in _FAIR_PLACES:
        unfair.append(data)
    return data


def check(data: bytes, number: int, size: int) -> None:
    """That ``data`` begins with the block of that number and has that size."""
    if len(data) != size or int.from_bytes(data[:8], "little") != number:
        raise ContentsError(f"block {number}: {len(data)} of {size} bytes, beginning with {data[:8]!r}")


def write_blocks(path: Path, size: int) -> None:
    write(path, (block(number) for number in range(size // BLOCK)))


def line(number: int) -> str:
    return f"{number:>8} {_WORDS[: 40 + number % 31]}\n"


def write_lines(path: Path, count: int) -> None:
    write(path, (line(number).encode() for number in range(count)))


def characters(lines: int) -> int:
    """In the first so many lines."""
    return sum(len(line(number)) for number in range(lines))


def write_tree(path: Path, directories: int, files: int) -> int:
    """So many directories, each with so many empty files, which all are its entries: their number."""
    for directory in range(directories):
        parent = path / f"{directory:03}"
        parent.mkdir(parents=True)
        for file in range(files):
            (parent / f"{file:06}").touch()
    return directories * (1 + files)


def write(path: Path, pieces: Iterable[bytes]) -> None:
    """To the disk: pages that are not written yet cannot be dropped from the cache."""
    with open(path, "wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())
