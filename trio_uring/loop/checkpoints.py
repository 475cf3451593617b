"""Checkpoints: how a task sleeps until it is rescheduled, and how it yields.

The functions do what those of `trio.lowlevel` do, with fewer frames for each call. They are called by
the task itself.

A checkpoint is a cancel point and a yield. Trio's rule is that every call has both. With
`RingOptions.checkpoint_budget`, calls that need not wait go without the yield, so many in a row for
each task, on files and sockets together (`Run.spend`). Each is still a cancel point.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Final

import outcome
from trio.lowlevel import checkpoint_if_cancelled

from .trio_internals import CancelShieldedCheckpoint, context

if TYPE_CHECKING:
    from collections.abc import Generator


class _Ready(outcome.Value[None]):  # type: ignore[misc]  # final for type checkers
    """An `outcome.Value` of None that any number of tasks may be woken with. Other outcomes may be
    unwrapped once only, so that each wake-up would need a new one."""

    def unwrap(self) -> None:
        return None


READY: Final = _Ready(None)
"""What a task is woken with that has nothing to be told."""


@types.coroutine
def sleep(message: object) -> Generator[object, Any, None]:
    """Sleeps as `trio.lowlevel.wait_task_rescheduled` does, and returns when the task is woken with READY.
    Raises the error if it is woken with one. ``message``, a WaitTaskRescheduled, may be used for any
    number of sleeps."""
    answer = yield message
    if answer is READY:
        return
    try:
        answer.unwrap()
    finally:
        del answer  # its error's traceback refers to this frame


@types.coroutine
def sleep_for_value(message: object) -> Generator[object, Any, Any]:
    """Sleeps as `sleep` does, and returns the value of the outcome that the task is woken with."""
    answer = yield message
    try:
        return answer.unwrap()
    finally:
        del answer


@types.coroutine
def sleep_for_data(message: object) -> Generator[object, Any, bytes | None]:
    """Sleeps as `sleep` does; the task may also be woken with bytes, which are returned. Returns None if
    it is woken with READY."""
    answer = yield message
    if type(answer) is bytes:
        return answer
    try:
        answer.unwrap()
    finally:
        del answer
    return None


@types.coroutine
def yield_shielded() -> Generator[object, Any, None]:
    """Yields as `trio.lowlevel.cancel_shielded_checkpoint` does."""
    yield CancelShieldedCheckpoint


def pass_cancel_point(task: Any) -> bool:
    """Counts a cancel point of ``task``, which calls. True if it was cancelled, or has to be told of
    Ctrl-C: then the caller awaits `trio.lowlevel.checkpoint_if_cancelled`, which raises that."""
    task._cancel_points += 1
    return task._cancel_status.effectively_cancelled or task._runner.ki_pending  # type: ignore[no-any-return]


async def checkpoint_at_once(caller: Any = None) -> None:
    """Makes the checkpoint of a call on a file that need not wait: as `trio.lowlevel.checkpoint`, or
    without the yield while the budget lasts. ``caller`` is the calling task, if it is at hand."""
    try:
        task = caller or context.task
    except AttributeError:
        raise RuntimeError("must be called from async context") from None
    runner = task._runner
    run = runner.io_manager
    if getattr(run, "budget", 0) and run.spend(task) and not pass_cancel_point(task):
        return
    await yield_shielded()
    # This is `pass_cancel_point`, inlined for speed.
    task._cancel_points += 1
    if task._cancel_status.effectively_cancelled or runner.ki_pending:
        await checkpoint_if_cancelled()


async def go_on() -> None:
    """Yields, unless the calling task has a budget left. This is the second half of the checkpoint of a call
    that did not have to wait. In the first half it has looked whether it was cancelled."""
    run = context.runner.io_manager
    if not (run.budget and run.spend()):
        await yield_shielded()
