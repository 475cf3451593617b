"""What happens where io_uring cannot be used: an error, or epoll after a warning."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

from .errors import UringFallbackWarning, UringUnavailableError

if TYPE_CHECKING:
    from .options import RingOptions

_NOT_THE_USERS = ("trio", "trio_uring", "contextlib")


def fall_back(options: RingOptions, error: UringUnavailableError) -> None:
    """Warns, if the options allow to go on without io_uring; else raises."""
    if options.fallback == "error":
        raise error
    warnings.warn(
        UringFallbackWarning(f"This runs on epoll, not on io_uring: {error.reason}. {error.remedy}"),
        stacklevel=stack_level_of_user(),
    )


def stack_level_of_user() -> int:
    """How many frames up the first one is that is neither ours nor Trio's."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in _NOT_THE_USERS:
        level += 1
        frame = frame.f_back
    return level
