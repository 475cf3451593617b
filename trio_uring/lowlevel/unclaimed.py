"""What a thread makes for a task, which may be gone when it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

MadeT = TypeVar("MadeT")


async def made_by_thread(
    make: Callable[[], MadeT], discard: Callable[[MadeT], object], **thread_arguments: Any
) -> MadeT:
    """Returns what ``make``, called in a thread, returns. Calls ``discard`` with it if the task is gone: it
    may have abandoned the thread, or be thrown away together with its run. The other arguments are those of
    `trio.to_thread.run_sync`."""
    new = _Unclaimed(make, discard)
    await trio.to_thread.run_sync(new.make, **thread_arguments)
    return new.claim()


class _Unclaimed(Generic[MadeT]):
    """What a thread makes for a task. It is discarded if nobody claims it before this object is garbage."""

    def __init__(self, make: Callable[[], MadeT], discard: Callable[[MadeT], object]) -> None:
        self._make = make
        self._discard = discard
        self._made: list[MadeT] = []

    def make(self) -> None:
        """Called in a thread."""
        self._made.append(self._make())

    def claim(self) -> MadeT:
        """Returns what was made, which is the caller's from now on. Called by the task."""
        return self._made.pop()

    def __del__(self) -> None:
        for made in self._made:
            self._discard(made)
