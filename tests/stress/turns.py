"""What the stress tests share: how long they go on, by which choices, and when they hang.

TRIO_URING_STRESS_SECONDS (default 5) is how long a file's tests take altogether. A failure
prints its seed; TRIO_URING_STRESS_SEED repeats the choices, though not the timing.
"""

from __future__ import annotations

import faulthandler
import os
import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import equivalence

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = float(os.environ.get("TRIO_URING_STRESS_SECONDS", "5"))
SEED = int(os.environ.get("TRIO_URING_STRESS_SEED", random.SystemRandom().randrange(1 << 32)))

# How long one run lasts: many short ones, since beginnings and ends are part of it.
RUN = 0.5
# A run that takes this much longer hangs: every thread's traceback is printed, and that is the end.
PATIENCE = 120


class Turns:
    """One turn, and more until this share of the time is over and something happened."""

    def __init__(self, share: float) -> None:
        print(f"TRIO_URING_STRESS_SEED={SEED}")
        self.end = time.monotonic() + SECONDS * share
        self.happened = 0

    def __iter__(self) -> Iterator[None]:
        yield
        while not self.happened or time.monotonic() < self.end:
            yield


@contextmanager
def watchdog() -> Iterator[None]:
    faulthandler.dump_traceback_later(RUN + PATIENCE, exit=True, file=equivalence.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
