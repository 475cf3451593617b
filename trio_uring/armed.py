"""What connections and acceptors have in common: one socket of a run, and the one receive or
accept of it that is with the kernel.

The states are those that connection.py and accepting.py tell of. A slot is the core's again
when it is reaped, and may be somebody else's by the time that Python sees the event. So while
events are processed nothing is armed or stopped: that is left to `Armed.settle`, when all of
them are.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import outcome
import trio
from trio.lowlevel import Abort, reschedule

from ._native import lib
from .internals import WaitTaskRescheduled, context

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import NoReturn

    from trio.lowlevel import Task

    from .connections import Connections

_cancel = lib.tu_cancel
_flush = lib.tu_flush


class SocketReference(weakref.ref["socket.socket"]):
    """A weak reference to a socket that knows its descriptor when the socket is gone."""

    __slots__ = ("fd",)
    fd: int


class Armed(ABC):
    """Of one socket, in one run."""

    __slots__ = (
        "_exact",
        "_multishot",
        "_raise_cancel",
        "_slot",
        "closed",
        "fd",
        "forsaken",
        "message",
        "run",
        "sock",
        "task",
    )

    def __init__(self, run: Connections, sock: socket.socket, *, exact: bool) -> None:
        self.run = run
        self.fd = sock.fileno()
        self.sock = SocketReference(sock, run.forsake)
        self.sock.fd = self.fd
        self.message: Any = WaitTaskRescheduled(self._abort)
        """What a task that waits for it sleeps with."""
        self.closed = False
        self.forsaken = False
        """The socket is gone, and nobody has closed it."""
        self.task: Task | None = None
        """Who waits."""
        self._slot = 0
        """0: IDLE."""
        self._multishot = False
        """What the slot is of."""
        self._exact = exact
        """Nothing may be taken that no task waits for."""
        self._raise_cancel: Callable[[], NoReturn] | None = None

    @property
    @abstractmethod
    def readable(self) -> bool:
        """Something was taken ahead."""

    @property
    def is_sending(self) -> bool:
        """Whether a task is in `trio.SocketStream.send_all`."""
        return False

    @property
    @abstractmethod
    def _is_full(self) -> bool:
        """So much was taken ahead that the multishot has to stop."""

    @abstractmethod
    def _arm(self) -> None: ...

    @abstractmethod
    def _forget(self) -> None:
        """The kernel has never known of what the slot is of."""

    @abstractmethod
    def drop(self) -> None:
        """Afterwards the ring holds no reference to its file."""

    def is_of(self, sock: socket.socket) -> bool:
        """Whether a socket is this one: the same object, or another on its descriptor."""
        known = self.sock()
        return known is sock or (known is not None and known.fileno() == self.fd)

    def make_way(self) -> None:
        """Others may take from the descriptor from now on: nothing is taken ahead any more."""
        self._exact = True
        if getattr(context, "task", None) is None or context.runner.io_manager is not self.run.manager:
            # Another thread, an instrument, a guest run's host: none of them may reap.
            self.run.unsettled.append(self)
            self.run.manager.force_wakeup()
            return
        while self._slot and self._multishot:
            if self._stop():
                self.run.manager.checked(_flush(self.run.core))
                self.run.manager.reap()

    def close(self) -> bool:
        """Whoever waits gets trio.ClosedResourceError. True if the kernel has to be flushed."""
        self.closed = True
        if self._raise_cancel is not None:  # it was cancelled before, and is told that
            self._tell_cancelled()
        elif self.task is not None:
            reschedule(self.task, outcome.Error(trio.ClosedResourceError("another task closed this fd")))
            self.task = None
        self.message = None  # it refers back to us
        return self._slot != 0 and self._stop()

    def settle(self) -> None:
        """Of process_events."""
        if self.forsaken:
            self.drop()
        elif self.task is not None and not self._slot:
            self._arm()
        elif self.readable and self.fd in self.run.readers:
            self.run.manager.wake_reader(self.fd)
        elif self._multishot and self._slot and (self._exact or self._is_full):
            self._stop()

    def _stop(self) -> bool:
        """Whether the kernel knows of it, and will answer."""
        if not _cancel(self.run.core, self._slot):
            return True
        self._forget()
        return False

    def _tell_cancelled(self) -> None:
        assert self.task is not None
        assert self._raise_cancel is not None
        reschedule(self.task, outcome.capture(self._raise_cancel))
        self.task = self._raise_cancel = None

    def _abort(self, raise_cancel: Callable[[], NoReturn]) -> Abort:
        if not self._multishot and self._stop():
            self._raise_cancel = raise_cancel
            return Abort.FAILED
        self.task = None
        return Abort.SUCCEEDED
