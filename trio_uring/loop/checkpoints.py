"""Checkpoints: how a task sleeps until it is rescheduled, how it yields, and whether it has to.

Each is what one of `trio.lowlevel` does, with fewer frames. A checkpoint has two halves: a cancel
point, and a yield. By Trio's rule each call has both. `RingOptions.checkpoint_budget` lets a task
make so many calls in a row that need not wait without the yield, whatever they are made of, files
or sockets (`Run.spend`); each is a cancel point still.
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
    """A `Value(None)` that any number of tasks may be sent.

    An Outcome may be unwrapped once only, so every wake-up would need its own.
    """

    def unwrap(self) -> None:
        return None


READY: Final = _Ready(None)


@types.coroutine
def sleep(message: object) -> Generator[object, Any, None]:
    """Sleeps as `trio.lowlevel.wait_task_rescheduled` does, which makes a message and has a frame for
    each sleep: ``message`` is a WaitTaskRescheduled, and the answer READY or an error."""
    answer = yield message
    if answer is READY:
        return
    try:
        answer.unwrap()
    finally:
        del answer  # its error's traceback refers to this frame


@types.coroutine
def sleep_for_data(message: object) -> Generator[object, Any, bytes | None]:
    """Sleeps as `sleep` does; the answer may be the data themselves. Returns None for READY."""
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
    """Yields as `trio.lowlevel.cancel_shielded_checkpoint` does, which has a frame more."""
    yield CancelShieldedCheckpoint


def pass_cancel_point(task: Any) -> bool:
    """Counts a cancel point of the calling task. True if something has to be raised there, which
    `trio.lowlevel.checkpoint_if_cancelled` does."""
    task._cancel_points += 1
    return task._cancel_status.effectively_cancelled or task._runner.ki_pending  # type: ignore[no-any-return]


async def checkpoint_at_once() -> None:
    """The checkpoint of a call on a file that need not wait: `trio.lowlevel.checkpoint`, or one call
    of the budget."""
    try:
        task = context.task
    except AttributeError:
        raise RuntimeError("must be called from async context") from None
    run = task._runner.io_manager
    if getattr(run, "budget", 0) and run.spend() and not pass_cancel_point(task):
        return
    await yield_shielded()
    if pass_cancel_point(task):
        await checkpoint_if_cancelled()
