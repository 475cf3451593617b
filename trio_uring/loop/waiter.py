"""Who waits for an operation, and how a task is told that it was stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, TypeAlias

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.lowlevel import Task


class Stopping:
    """A task whose operation the kernel was asked to stop: it waits for the answer. If that is that
    the operation has not happened, ``raise_reason`` tells the task why."""

    __slots__ = ("raise_reason", "task")

    def __init__(self, task: Task, raise_reason: Callable[[], NoReturn]) -> None:
        self.task = task
        self.raise_reason = raise_reason

    def answer(self) -> outcome.Error:
        """What the task is to be sent if its operation has not happened."""
        # No name here refers to it: the traceback of its error refers to this frame.
        return outcome.capture(self.raise_reason)


Waiter: TypeAlias = "Task | Stopping | None"
"""A task that waits, one whose operation is being stopped, or nobody."""


def task_of(waiter: Waiter) -> Task | None:
    """The task that waits, whether its operation is being stopped or not."""
    return waiter.task if isinstance(waiter, Stopping) else waiter


def raise_closed() -> NoReturn:
    raise trio.ClosedResourceError("another task closed this fd")
