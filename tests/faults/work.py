"""What the parts of the workload share: their choices, the bytes that they expect, and the errors
that they may meet."""

from __future__ import annotations

import collections
import contextlib
import random
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A receive is given up after so many seconds: at once, in the middle of something, or never.
_PATIENCE = (0, 0.0001, 0.001, 10, 10, 10)


class Work:
    """One run's."""

    def __init__(self, seed: int, folder: Path, visible: frozenset[int], *, lossy: bool = False) -> None:
        self.choices = random.Random(seed)
        self.folder = folder
        self.visible = visible
        self.met: collections.Counter[int] = collections.Counter()
        """Errors that the program saw, by errno."""
        self.checked = 0
        """Bytes that were as they should be."""
        self.lossy = lossy
        """A byte is lost on purpose, which has to be noticed."""
        self._pattern = self.choices.randbytes(4093)  # a prime: no size of a piece divides it

    def expected(self, start: int, size: int) -> bytes:
        """The bytes that every stream and file consists of."""
        start %= len(self._pattern)
        return (self._pattern * (2 + size // len(self._pattern)))[start : start + size]

    def check(self, data: bytes, start: int) -> None:
        if data != self.expected(start, len(data)):
            raise AssertionError(f"{len(data)} bytes at {start} are not what was sent")
        self.checked += len(data)

    def size(self, most: int) -> int:
        """Of a piece: most are small, some are not."""
        return self.choices.choice((1, self.choices.randint(1, 100), self.choices.randint(1, most), most))

    def patience(self) -> trio.CancelScope:
        return trio.move_on_after(self.choices.choice(_PATIENCE))

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Around what may meet an error of the rule's, and nothing else."""
        try:
            yield
        except OSError as error:
            if error.errno not in self.visible:
                raise
            self.met[error.errno] += 1
