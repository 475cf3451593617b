"""The I/O manager of the run that calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .closing import Closing
from .trio_internals import trio_run

if TYPE_CHECKING:
    from .manager import UringManager


def current_manager() -> UringManager | None:
    """The manager of the run that calls; None if that is not on io_uring.

    Can be called where the core cannot be loaded, and no run is.

    Raises:
      RuntimeError: called outside of a Trio run.
    """
    try:
        manager: Any = trio_run.GLOBAL_RUN_CONTEXT.runner.io_manager
    except AttributeError:
        raise RuntimeError("must be called from async context") from None
    return manager if isinstance(manager, Closing) else None  # type: ignore[return-value]
