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

    A round that takes longer than so many seconds hangs: the stacks of all tasks are written to a file, and an
    exception ends the process. If the loop itself hangs, faulthandler does both.
    """

    def __init__(self, share: float, patience: float, stacks: Path) -> None:
        self.stopping = trio.Event()
        self.rounds: collections.Counter[str] = collections.Counter()
        self._share = share
        self._pause = 0.2
        self._patience = patience
        self._path = stacks
        self._file = stacks.open("w")
        self._began: dict[str, float] = {}
        """When each round began that has not ended."""
        self._choices = random.Random(share)
        self._cpu, self._time = time.process_time(), time.monotonic()

    async def repeat(self, name: str, play: Callable[[], Awaitable[object]]) -> None:
        """Rounds until the pace is stopped."""
        while not self.stopping.is_set():
            self._began[name] = time.monotonic()
            await play()
            del self._began[name]
            self.rounds[name] += 1
            with trio.move_on_after(self._choices.uniform(0, 2 * self._pause)):
                await self.stopping.wait()

    async def watch(self) -> None:
        """As long as there are rounds, in a task of its own: adjusts the pauses, and ends what hangs."""
        try:
            while True:
                faulthandler.dump_traceback_later(2 * self._patience, exit=True, file=self._file)
                await trio.sleep(1)
                self._adjust()
                now = time.monotonic()
                if late := [name for name, began in self._began.items() if now - began > self._patience]:
                    self._give_up(", ".join(late))
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._file.close()

    def _adjust(self) -> None:
        cpu, now = time.process_time(), time.monotonic()
        used = (cpu - self._cpu) / (now - self._time)
        self._pause = min(5.0, max(0.001, self._pause * (0.1 + used / self._share) ** 0.5))
        self._cpu, self._time = cpu, now

    def _give_up(self, names: str) -> None:
        root = trio.lowlevel.current_root_task()
        assert root is not None
        print_tasks_below(root, self._file)
        self._file.flush()
        faulthandler.dump_traceback(self._file)
        raise AssertionError(f"longer than {self._patience:g} s: {names}; see {self._path}")
