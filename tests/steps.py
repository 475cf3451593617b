"""What a task does between two of its yields."""

from __future__ import annotations

import trio


class Steps(trio.abc.Instrument):
    """How many calls a task has finished in each of its steps."""

    def __init__(self) -> None:
        self.task = trio.lowlevel.current_task()
        self.calls = [0]

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.calls.append(0)
