"""The wake-up of Trio's entry queue: what `run_sync_soon` calls to wake the loop.

A call from another thread or from a signal handler sets a flag in memory that the core shares with all
threads, and writes to an eventfd only if the loop sleeps (native/interrupt.h).

Signals themselves need something else: `signal.set_wakeup_fd` writes single bytes, which an eventfd
refuses. So Trio's socket pair stays, for signals only.
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
    """Takes the place of the WakeupSocketpair of a run's entry queue. Trio calls its methods, by these names;
    `wakeup_thread_and_signal_safe` is for any thread and for signal handlers."""

    def __init__(
        self, manager: UringManager, socketpair: SignalSocketpair, lock: AbstractContextManager[object]
    ) -> None:
        self._manager = manager
        self._socketpair = socketpair
        self._lock = lock
        self.wakeup_thread_and_signal_safe = manager.signaller()
        self.wait_woken = manager.wait_posted

    def wakeup_on_signals(self) -> None:
        self._socketpair.wakeup_on_signals()
        if self._socketpair.old_wakeup_fd is not None:
            self._manager.watch_signals(self._socketpair.wakeup_sock.fileno(), self._socketpair.drain)

    def close(self) -> None:
        # `run_sync_soon` calls the wake-up with the lock held. So no thread is about to write to the
        # eventfd while it is closed, after which its number may belong to another file.
        with self._lock:
            self._manager.close_interrupt()
        self._socketpair.close()
