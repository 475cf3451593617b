"""What is raised and warned of when io_uring cannot be used."""

from __future__ import annotations

_OR_EPOLL = '; or run on epoll, with RingOptions(fallback="epoll") or TRIO_URING_FALLBACK=epoll'


class UringUnavailableError(RuntimeError):
    """io_uring cannot be used here.

    Raised before any code of the user's runs. ``errno`` is the kernel's answer
    (None if it was not the kernel that refused), ``reason`` says in words what
    is in the way, and ``remedy`` what to do about it.
    """

    def __init__(self, reason: str, remedy: str, errno: int | None = None) -> None:
        super().__init__(reason, remedy, errno)
        self.reason = reason
        self.remedy = remedy
        self.errno = errno

    def __str__(self) -> str:
        return f"io_uring cannot be used here: {self.reason}. {self.remedy}{_OR_EPOLL}"


class UringFallbackWarning(RuntimeWarning):
    """``fallback="epoll"`` was used: the run is on Trio's own epoll manager. Or, on io_uring: its
    stream sockets wait by readiness, since there was no locked memory for their buffers."""
