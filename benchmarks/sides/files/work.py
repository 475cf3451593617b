"""What a measured program is told to do, and what it keeps of it.

| kind | operation | path |
| --- | --- | --- |
| random | seek and read a block; each task has its own file object, unbuffered | a file |
| pread | read a block where it is, by the one call that does; as random | a file |
| small-read | open, read all, close | a folder |
| path-read | read all of a file by one call, `Path.read_bytes` and its like | a folder |
| small-write | open a new file, write a block, close | a folder |
| path-write | write a block to a new file by one call, `Path.write_bytes` and its like | a folder |
| small-stat | stat | a folder |
| small-exists | whether it exists | a folder |
| rglob | the next entry of a tree of directories, by `Path.rglob("*")` | a folder |
| walk | the same by `Path.walk`, or by what a program does where there is none | a folder |
| sequential-read | read the next chunk | a file |
| sequential-write | write the next chunk to a new file, which is flushed, not synchronised | a file |
| lines | the next line, decoded | a file |

A work ends when all of it is done, or when its time is up and its least is done; but those of
TAKE_THEIR_TIME always take it. Files are opened before the clock
starts where one file is worked on, and are closed after it has stopped; what is written is
with the kernel by then.
"""

from __future__ import annotations

import os
import time
from array import array
from typing import Literal

import attrs

from measure.percentiles import percentiles
from measure.processes import cpu_seconds, memory
from sides.files.contents import BLOCK

Kind = Literal[
    "random",
    "pread",
    "small-read",
    "path-read",
    "small-write",
    "path-write",
    "small-stat",
    "small-exists",
    "rglob",
    "walk",
    "sequential-read",
    "sequential-write",
    "lines",
]
READ_BLOCKS: tuple[Kind, ...] = ("random", "pread")
READ_FILES: tuple[Kind, ...] = ("small-read", "path-read")
WRITE_FILES: tuple[Kind, ...] = ("small-write", "path-write")
READ_TREES: tuple[Kind, ...] = ("rglob", "walk")
TAKE_THEIR_TIME: tuple[Kind, ...] = (*READ_BLOCKS, *READ_TREES)
LINES_BETWEEN_LOOKS = 256
"""At the clock, which costs as much as a line does."""


@attrs.frozen
class Work:
    kind: Kind
    path: str
    count: int
    """Blocks that are chosen from, files, entries, chunks or lines."""
    tasks: int
    seconds: float
    size: int = BLOCK
    """Bytes of a block, a file or a chunk."""
    least: int = 1
    """Operations that are done even where they take longer than its time."""

    def small_file(self, number: int) -> str:
        return f"{self.path}/{number:06}"


class Record:
    """Works keep latencies where an operation is long, and else a count of operations."""

    def __init__(self, work: Work) -> None:
        self.operations = 0
        self.characters = 0
        self.latencies = array("d")
        self._seconds = work.seconds
        self.deadline = 0.0

    def begin(self) -> None:
        self._cpu = cpu_seconds(os.getpid())
        self._start = time.perf_counter()
        self.deadline = self._start + self._seconds

    def end(self) -> dict[str, float]:
        """What was done, and at what cost: looked at in this order, so that to tell it is not part of it."""
        return {
            "seconds": time.perf_counter() - self._start,
            "cpu_seconds": cpu_seconds(os.getpid()) - self._cpu,
            "peak_rss": memory(os.getpid(), "VmHWM"),
            "operations": self.operations or len(self.latencies),
            "characters": self.characters,
            **percentiles(self.latencies),
        }
