"""How much a process does, and whether it still does it."""

from __future__ import annotations

import collections
import faulthandler
import random
import time
from typing import TYPE_CHECKING

import trio
from stacks import print_tasks_below

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


class Pace:
    """Runs rounds of many kinds, with pauses by which the process takes a share of one CPU.

    A kind of which no round has ended for so many seconds hangs: the stacks of all tasks are written to a
    file, and an exception ends the process. If the loop itself hangs, faulthandler does both.
    """

    def __init__(self, share: float, patience: float, stacks: Path) -> None:
        self.stopping = trio.Event()
        self.rounds: collections.Counter[str] = collections.Counter()
        self._share = share
        self._pause = 0.2
        self._patience = patience
        self._path = stacks
        self._file = stacks.open("w")
        self._alive: dict[str, float] = {}
        self._choices = random.Random(share)
        self._cpu, self._time = time.process_time(), time.monotonic()

    async def repeat(self, name: str, play: Callable[[], Awaitable[object]]) -> None:
        """Rounds until the pace is stopped."""
        while not self.stopping.is_set():
            self._alive[name] = time.monotonic()
            await play()
            self.rounds[name] += 1
            self._alive[name] = time.monotonic()
            with trio.move_on_after(self._choices.uniform(0, 2 * self._pause)):
                await self.stopping.wait()
        del self._alive[name]

    def look(self) -> None:
        """Called again and again, by a task."""
        faulthandler.dump_traceback_later(2 * self._patience, exit=True, file=self._file)
        cpu, now = time.process_time(), time.monotonic()
        if now - self._time > 0.5:
            used = (cpu - self._cpu) / (now - self._time)
            self._pause = min(5.0, max(0.001, self._pause * (0.1 + used / self._share) ** 0.5))
            self._cpu, self._time = cpu, now
        for name, alive in self._alive.items():
            if now - alive > self._patience:
                self._give_up(name)

    def end(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._file.close()

    def _give_up(self, name: str) -> None:
        root = trio.lowlevel.current_root_task()
        assert root is not None
        print_tasks_below(root, self._file)
        self._file.flush()
        faulthandler.dump_traceback(self._file)
        raise AssertionError(f"no round of {name} has ended for {self._patience:g} s: see {self._path}")
