"""When a process does what it does, and whether it still does it."""

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
    """Runs rounds of many kinds, with a pause after each: what is wanted of the machine is always the same.

    A round that takes longer than so many seconds hangs: the stacks of all tasks are written to a file, and
    an exception ends the process. If the loop itself hangs, faulthandler does both.
    """

    def __init__(self, pause: float, patience: float, stacks: Path) -> None:
        self.rounds: collections.Counter[str] = collections.Counter()
        self._pause = pause
        self._patience = patience
        self._file = stacks.open("w")
        self._choices = random.Random(pause)
        self._began: dict[str, float] = {}
        """When each round began that has not ended."""
        self._may_begin = trio.Event()
        self._none_goes_on = trio.Event()

    async def repeat(self, name: str, play: Callable[[], Awaitable[object]]) -> None:
        """Rounds, until it is cancelled between two of them."""
        while True:
            await self._may_begin.wait()
            self._began[name] = time.monotonic()
            await play()
            del self._began[name]
            self.rounds[name] += 1
            if not self._began:
                self._none_goes_on.set()
            await trio.sleep(self._choices.uniform(0, 2 * self._pause))

    def go_on(self) -> None:
        self._none_goes_on = trio.Event()
        self._may_begin.set()

    async def rest(self) -> None:
        """Lets no round begin, and returns when all have ended."""
        if self._may_begin.is_set():
            self._may_begin = trio.Event()
        if self._began:
            await self._none_goes_on.wait()

    async def watch(self) -> None:
        """Ends what hangs. As long as there are rounds, in a task of its own."""
        try:
            while True:
                faulthandler.dump_traceback_later(2 * self._patience, exit=True, file=self._file)
                await trio.sleep(1)
                now = time.monotonic()
                if late := [name for name, began in self._began.items() if now - began > self._patience]:
                    self._give_up(", ".join(late))
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._file.close()

    def _give_up(self, names: str) -> None:
        root = trio.lowlevel.current_root_task()
        assert root is not None
        print_tasks_below(root, self._file)
        self._file.flush()
        faulthandler.dump_traceback(self._file)
        raise AssertionError(f"longer than {self._patience:g} s: {names}")
