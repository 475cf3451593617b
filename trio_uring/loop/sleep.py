"""How a task sleeps until it is rescheduled, and how it yields, in one frame each."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Final

import outcome

from .trio_internals import CancelShieldedCheckpoint

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
    """What `trio.lowlevel.wait_task_rescheduled` does, less a message and a frame for each
    sleep: ``message`` is a WaitTaskRescheduled, and the answer READY or an error."""
    answer = yield message
    if answer is READY:
        return
    try:
        answer.unwrap()
    finally:
        del answer  # its error's traceback refers to this frame


@types.coroutine
def sleep_for_data(message: object) -> Generator[object, Any, bytes | None]:
    """As `sleep`; the answer may be the data themselves. None: READY."""
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
    """What `trio.lowlevel.cancel_shielded_checkpoint` does, which has a frame more."""
    yield CancelShieldedCheckpoint


def is_cancelled(task: Any) -> bool:
    """A cancel point: whether it has to be `trio.lowlevel.checkpoint_if_cancelled`, which has
    a frame more, and raises."""
    task._cancel_points += 1
    return task._cancel_status.effectively_cancelled or task._runner.ki_pending  # type: ignore[no-any-return]
