"""The error and the warning for places where io_uring cannot be used."""

from __future__ import annotations

import sys

_NOT_THE_USERS = ("trio", "trio_uring", "contextlib")
_OR_EPOLL = '; or run on epoll, with RingOptions(fallback="epoll") or TRIO_URING_FALLBACK=epoll'


class UringUnavailableError(RuntimeError):
    """io_uring cannot be used here.

    Raised before any code of the user's runs. ``errno`` is the kernel's answer
    (None if it was not the kernel that refused), ``reason`` says in words what
    is in the way, and ``remedy`` what to do about it.
    """

    __module__ = "trio_uring"  # where users find it, as tracebacks say

    def __init__(self, reason: str, remedy: str, errno: int | None = None) -> None:
        super().__init__(reason, remedy, errno)
        self.reason = reason
        self.remedy = remedy
        self.errno = errno

    def __str__(self) -> str:
        return f"io_uring cannot be used here: {self.reason}. {self.remedy}{_OR_EPOLL}"


class UringFallbackWarning(RuntimeWarning):
    """``fallback="epoll"`` was used, and the run is on Trio's own epoll manager. Or the run is on io_uring,
    but its stream sockets wait by readiness, since there was no locked memory for their buffers."""

    __module__ = "trio_uring"


def stack_level_of_user() -> int:
    """The ``stacklevel`` of a warning that is to name the user's code: how many frames up the first frame is
    that is neither ours nor Trio's."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in _NOT_THE_USERS:
        level += 1
        frame = frame.f_back
    return level
