"""What the stress tests share: how long they go on, by which choices, on which rings, and when they hang.

TRIO_URING_STRESS_SECONDS (default 5) is how long a file's tests take altogether. A failure
prints its seed; TRIO_URING_STRESS_SEED repeats the choices, though not the timing.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import equivalence

from trio_uring import RingOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = float(os.environ.get("TRIO_URING_STRESS_SECONDS", "5"))
SEED = int(os.environ.get("TRIO_URING_STRESS_SEED", random.SystemRandom().randrange(1 << 32)))

# How long one run lasts: many short ones, since beginnings and ends are part of it.
RUN = 0.5
# A run that takes this much longer hangs: what its threads and its rings are at is printed,
# and that is the end.
PATIENCE = 120

RINGS = {
    "default": RingOptions(),
    "small": RingOptions(entries=8, cq_entries=16),
    "tiny": RingOptions(entries=1, cq_entries=1),
    "cooperative": RingOptions(entries=4, cq_entries=4, features={"defer_taskrun": False}),
    "plain": RingOptions(
        features=dict.fromkeys(("taskrun_flag", "single_issuer", "submit_all", "no_sqarray"), False)
    ),
}


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
    timer = threading.Timer(RUN + PATIENCE, give_up)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def give_up() -> None:
    with open(equivalence.stderr, "w", closefd=False) as stderr:
        stderr.write(f"\nhangs with TRIO_URING_STRESS_SEED={SEED}\n")
        for fd in equivalence.open_rings():
            stderr.write(Path(f"/proc/self/fdinfo/{fd}").read_text())
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):
                name = (task / "comm").read_text().strip()
                stderr.write(f"{name} {(task / 'syscall').read_text()}{(task / 'stack').read_text()}")
        stderr.flush()
        faulthandler.dump_traceback(stderr)
    os._exit(1)
