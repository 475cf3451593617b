"""How a task sleeps until it is rescheduled, with a message that may be made once."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Final

import outcome

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
    if answer is not READY:
        answer.unwrap()
