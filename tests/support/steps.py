"""What a task does between two of its yields."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator


class Steps(trio.abc.Instrument):
    """How many calls a task has finished in each of its steps."""

    def __init__(self) -> None:
        self.task = trio.lowlevel.current_task()
        self.calls = [0]

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.calls.append(0)


@types.coroutine
def interrupted(call: Awaitable[object], action: Callable[[], object]) -> Generator[object, Any, object]:
    """Awaits ``call``, and does ``action`` where that first sleeps: what it has queued the kernel
    has not seen."""
    iterator = call.__await__()
    message = next(iterator)
    action()
    while True:
        answer = yield message
        try:
            message = iterator.send(answer)
        except StopIteration as end:
            return end.value
