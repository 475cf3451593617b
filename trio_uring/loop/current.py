"""Which run a call comes from."""

from __future__ import annotations

from typing import Any

from .run import Run
from .trio_internals import trio_run


def current_run() -> Run | None:
    """The run of the calling task; None if that run is not on io_uring.

    May be called even where the core cannot be loaded: then no run is on io_uring.

    Raises:
      RuntimeError: called outside of a Trio run.
    """
    try:
        manager: object = trio_run.GLOBAL_RUN_CONTEXT.runner.io_manager
    except AttributeError:
        raise RuntimeError("must be called from async context") from None
    return manager if isinstance(manager, Run) else None


def run_of(task: Any) -> Run | None:
    """The run of ``task``; None if that run is not on io_uring."""
    manager: object = task._runner.io_manager
    return manager if isinstance(manager, Run) else None
