"""What happens where io_uring cannot be used: an error, or epoll after a warning."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from .errors import UringFallbackWarning, UringUnavailableError, stack_level_of_user

if TYPE_CHECKING:
    from .options import RingOptions


def fall_back(options: RingOptions, error: UringUnavailableError) -> None:
    """Warns, if the options allow to go on without io_uring; else raises."""
    if options.fallback == "error":
        raise error
    warnings.warn(
        UringFallbackWarning(f"This runs on epoll, not on io_uring: {error.reason}. {error.remedy}"),
        stacklevel=stack_level_of_user(),
    )
