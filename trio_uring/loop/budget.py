"""Whether a task that works with files and need not wait has to yield.

By Trio's rule each call yields. `RingOptions.checkpoint_budget` lets a task make so many in
a row that do not, whatever they are done with, files or sockets: `Connections.may_go_on`
counts them. A call that spends it still is a cancel point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio.lowlevel import checkpoint_if_cancelled

from .sleep import is_cancelled, yield_shielded
from .trio_internals import context

if TYPE_CHECKING:
    from ..sockets.connections import Connections


async def checkpoint_at_once() -> None:
    """The checkpoint of a call that need not wait: `trio.lowlevel.checkpoint`, or one call of
    the budget."""
    try:
        task = context.task
    except AttributeError:
        raise RuntimeError("must be called from async context") from None
    run: Connections | None = getattr(task._runner.io_manager, "connections", None)
    if run is not None and run.budget and run.may_go_on() and not is_cancelled(task):
        return
    await yield_shielded()
    if is_cancelled(task):
        await checkpoint_if_cancelled()
