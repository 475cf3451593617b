"""The same test on epoll, which is the oracle, and on rings of several shapes."""

from __future__ import annotations

import functools
import gc
import math
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import attrs
import pytest
import trio

import trio_uring
from trio_uring import RingOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

T = TypeVar("T")

# Long enough for any machine: what reaches it hangs.
PATIENCE = 120

stderr = 2
"""A descriptor that shows what is written to it even if the process ends in a test."""


@attrs.frozen
class Backend:
    name: str
    ring: RingOptions | None = None  # None: epoll
    patience: float = PATIENCE

    def run(self, async_fn: Callable[[], Awaitable[T]], **trio_run_arguments: object) -> T:
        async def main() -> T:
            limit = math.inf if "clock" in trio_run_arguments else self.patience
            with trio.fail_after(limit):
                return await async_fn()

        if self.ring is None:
            return trio.run(main, **trio_run_arguments)  # type: ignore[arg-type]
        if self.ring.accept_ahead and not has_completions():
            pytest.skip("accept_ahead needs completions, which there are none of here")
        return trio_uring.run(main, ring=self.ring, **trio_run_arguments)  # type: ignore[arg-type]


@functools.cache
def has_completions() -> bool:
    """Whether stream sockets work by completions on this kernel, as the environment leaves it."""
    return "completions" in trio_uring.capabilities().used


def without(*features: str) -> RingOptions:
    return RingOptions(features=dict.fromkeys(features, False))


EPOLL = Backend("epoll")
URING = Backend("io_uring", RingOptions())
RINGS = (
    URING,
    Backend("tiny ring", RingOptions(entries=1, cq_entries=2)),
    Backend("cooperative task work", without("defer_taskrun")),
    Backend("no task work flags", without("defer_taskrun", "coop_taskrun", "taskrun_flag", "single_issuer")),
    Backend(
        "no flags",
        without("cqsize", "r_disabled", "submit_all", "taskrun_flag", "single_issuer", "no_sqarray"),
    ),
)


def _ids(backend: Backend) -> str:
    return backend.name.replace(" ", "-")


needs_completions = pytest.mark.skipif(
    not has_completions(), reason="stream sockets have no completions here"
)
every_backend = pytest.mark.parametrize("backend", [EPOLL, *RINGS], ids=_ids)
every_ring = pytest.mark.parametrize("backend", RINGS, ids=_ids)

# Trio closes its wake-up sockets, and only then takes the wake-up descriptor back: a signal that
# comes in between cannot be written anywhere, on epoll as well. CPython up to 3.12 does not say what.
signals_as_runs_end = pytest.mark.filterwarnings(
    r"ignore:Exception ignored (wh(en|ile) trying to write to the signal wakeup fd|in). None"
    r"(.|\n)*\[Errno (9|32)\]:pytest.PytestUnraisableExceptionWarning"
)


def io_statistics() -> trio_uring.UringStatistics:
    statistics: object = trio.lowlevel.current_statistics().io_statistics
    assert isinstance(statistics, trio_uring.UringStatistics)
    return statistics


def entered() -> int:
    """The io_uring_enter calls of this run so far."""
    return io_statistics().entered


def python(
    code: str,
    *args: str,
    environment: dict[str, str] | None = None,
    before: tuple[str, ...] = (),
    patience: float = PATIENCE,
) -> str:
    """What a child process that runs ``code`` prints; it has to succeed."""
    done = subprocess.run(
        [*before, sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        timeout=patience,
        env={**os.environ, **(environment or {})},
        cwd=os.path.dirname(__file__),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def failing_if_it_hangs(seconds: float) -> Iterator[None]:
    """Where no time limit of Trio's ends it: its task is not told of its cancellation, or the run
    does not end. The main thread's only."""

    def fail(*_: object) -> None:
        pytest.fail("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds, PATIENCE)  # again: what is told may wait as well
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def open_rings() -> list[int]:
    """The descriptors of this process's rings."""
    rings = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            if "io_uring" in os.readlink(f"/proc/self/fd/{fd}"):
                rings.append(int(fd))
    return rings


def open_descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def descriptors_so_far() -> int:
    """The same, after those of garbage are closed, which earlier tests may have left: a collection that
    comes later would close them before they are counted again."""
    gc.collect()
    return open_descriptors()


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """No number below the limit is free, not even one that was closed before."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(stderr))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for number in taken:
            os.close(number)
