"""Who waits for an operation: a task, a task whose operation is being stopped, or nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, TypeAlias

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.lowlevel import Task


class Stopping:
    """A task whose operation the kernel was asked to stop, and that waits for the kernel's answer. If the
    answer is that the operation has not happened, ``raise_reason`` raises in the task why: it was
    cancelled, or its socket was closed."""

    __slots__ = ("raise_reason", "task")

    def __init__(self, task: Task, raise_reason: Callable[[], NoReturn]) -> None:
        self.task = task
        self.raise_reason = raise_reason

    def answer(self) -> outcome.Error:
        """What to wake the task with if its operation has not happened."""
        # It is not kept in a variable: its traceback refers to this frame, which would be a cycle.
        return outcome.capture(self.raise_reason)


Waiter: TypeAlias = "Task | Stopping | None"
"""Who waits for an operation; None: nobody."""


def task_of(waiter: Waiter) -> Task | None:
    """The task that waits, whether or not its operation is being stopped; None if nobody waits."""
    return waiter.task if isinstance(waiter, Stopping) else waiter


def busy() -> trio.BusyResourceError:
    """Returns the exception for a task that wants what another task waits for."""
    return trio.BusyResourceError("another task is already reading / writing this fd")


def raise_closed() -> NoReturn:
    """Raises what a task is told whose descriptor another task has closed."""
    raise trio.ClosedResourceError("another task closed this fd")
