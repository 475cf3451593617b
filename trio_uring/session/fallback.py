"""What becomes of a run where io_uring cannot be used: it raises an error, or uses epoll after a warning."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from ..ring.errors import UringFallbackWarning, UringUnavailableError, stack_level_of_user
from . import logs

if TYPE_CHECKING:
    from ..ring.options import RingOptions


def fall_back(options: RingOptions, error: UringUnavailableError, *, warned: bool = False) -> None:
    """Raises ``error``, unless the options allow epoll instead. Then it logs and, unless ``warned`` says that
    this was done before, warns."""
    if options.fallback == "error":
        raise error
    text = f"This runs on epoll, not on io_uring: {error.reason}. {error.remedy}"
    logs.warn(text)
    if not warned:
        warnings.warn(UringFallbackWarning(text), stacklevel=stack_level_of_user())
