"""The wake-up of Trio's entry queue: the eventfd interrupt behind `run_sync_soon`.

Calls from other threads and from signal handlers set a word in memory that the
core shares with them, and write to an eventfd only if the loop sleeps. Signals
themselves are another matter: `signal.set_wakeup_fd` writes single bytes, which
an eventfd refuses. So Trio's socket pair stays, for signals and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .manager import UringManager
    from .readiness import HasFileno


class SignalSocketpair(Protocol):
    """The part of Trio's WakeupSocketpair that is about signals."""

    @property
    def wakeup_sock(self) -> HasFileno: ...
    @property
    def old_wakeup_fd(self) -> int | None: ...
    def wakeup_on_signals(self) -> None: ...
    def drain(self) -> None: ...
    def close(self) -> None: ...


class UringWakeup:
    """Stands in for the WakeupSocketpair of a run's entry queue."""

    def __init__(
        self, manager: UringManager, socketpair: SignalSocketpair, lock: AbstractContextManager[object]
    ) -> None:
        self._manager = manager
        self._socketpair = socketpair
        self._lock = lock
        self.wakeup_thread_and_signal_safe = manager.signaller()
        self.wait_woken = manager.wait_woken

    def wakeup_on_signals(self) -> None:
        self._socketpair.wakeup_on_signals()
        if self._socketpair.old_wakeup_fd is not None:
            self._manager.watch_signals(self._socketpair.wakeup_sock.fileno(), self._socketpair.drain)

    def close(self) -> None:
        # `run_sync_soon` signals with the lock held: none is on its way into an
        # eventfd whose number may belong to somebody else by then.
        with self._lock:
            self._manager.close_interrupt()
        self._socketpair.close()
