"""What a run knows of a listening socket: who waits for a connection, and who has come.

  state      with the kernel             next
  IDLE       nothing                     ONCE or ARMED, by a task that accepts
  ONCE       an accept                   IDLE, by its completion: the task's, whose
                                         cancellation waits for it
  ARMED      a multishot accept          IDLE, by its last completion

- An accept is one of ONCE, which takes nobody that no task waits for, unless
  `RingOptions.accept_ahead` allows a multishot. Whom that brings while no task waits is
  *accepted ahead*, and given to the next ones in order. At ``accept_ahead`` connections
  the multishot is stopped, and later clients wait in the backlog.
- A socket that others may accept from (`make_way`) has no multishot any more.
- An error ends either; a task that waits is told. Otherwise the next accept meets it again.
- Connections that nobody has got are reset when the listening socket is closed, as the
  kernel does with its backlog; and closed when the run ends.
- As for receives (connection.py), nothing is armed or stopped while events are processed.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import outcome
import trio
from trio.lowlevel import Abort, checkpoint_if_cancelled, enable_ki_protection, reschedule

from ._native import lib
from .connection import SocketReference
from .internals import WaitTaskRescheduled, context
from .operation import STOPPED
from .sleep import READY, sleep

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from trio.lowlevel import Task

    from .connections import Connections

_accept = lib.tu_accept
_cancel = lib.tu_cancel
_flush = lib.tu_flush

_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_UNIX})
_RESET: Final = struct.pack("ii", 1, 0)


class Acceptors:
    """The listening sockets of a run."""

    def __init__(self, run: Connections, ahead: int) -> None:
        self.run = run
        self.ahead = ahead
        """Connections that each may accept before anybody asks."""
        self.by_fd: dict[int, Acceptor] = {}
        self.by_slot: dict[int, Acceptor] = {}

    def acceptor_of(self, trio_socket: Any) -> Acceptor | None:
        """What accepts for a socket of Trio's own class, made if need be. None for what
        accepts by readiness: other families, and closed sockets."""
        sock: socket.socket = trio_socket._sock
        fd = sock.fileno()
        acceptor = self.by_fd.get(fd)
        if acceptor is not None and not acceptor.is_of(sock):
            self.drop(acceptor)
            acceptor = None
        if acceptor is None:
            if fd < 0 or sock.family not in _FAMILIES:
                return None
            exact = not self.ahead or "_uring_exact" in trio_socket.__dict__
            acceptor = self.by_fd[fd] = Acceptor(self, sock, exact=exact)
        trio_socket._uring_acceptor = acceptor
        return acceptor

    def drop(self, acceptor: Acceptor) -> None:
        """Afterwards the ring holds no reference to its file."""
        if self.by_fd.get(acceptor.fd) is acceptor:
            del self.by_fd[acceptor.fd]
        if acceptor.close():
            _flush(self.run.core)

    def complete(self, slot: int, result: int, *, more: bool) -> None:
        """Of process_events."""
        acceptor = self.by_slot[slot] if more else self.by_slot.pop(slot)
        acceptor.complete(result, more=more)

    def tasks_accepting(self) -> int:
        return sum(acceptor.task is not None for acceptor in self.by_fd.values())

    def end(self) -> None:
        """The run's last tick is over."""
        for acceptor in self.by_fd.values():
            acceptor.task = None
            acceptor.close()
        self.by_fd.clear()


class Acceptor:
    """Of one listening socket, in one run."""

    __slots__ = (
        "_accepted",
        "_ahead",
        "_exact",
        "_kind",
        "_multishot",
        "_raise_cancel",
        "_slot",
        "acceptors",
        "closed",
        "fd",
        "forsaken",
        "message",
        "run",
        "sock",
        "task",
    )

    def __init__(self, acceptors: Acceptors, sock: socket.socket, *, exact: bool) -> None:
        self.acceptors = acceptors
        self.run = acceptors.run
        self.fd = sock.fileno()
        self.sock = SocketReference(sock, self.run.forsake)
        self.sock.fd = self.fd
        self.message: Any = WaitTaskRescheduled(self._abort)
        """What an accepting task sleeps with."""
        self.closed = False
        self.forsaken = False
        """The socket is gone, and nobody has closed it."""
        self.task: Task | None = None
        """Who waits for a connection."""
        self._accepted: socket.socket | int = 0
        """For that task, when it is woken: the connection, or -errno."""
        self._ahead: deque[socket.socket] = deque()
        self._kind = sock.family, sock.type, sock.proto
        self._slot = 0
        """0: IDLE."""
        self._multishot = False
        """What the slot is of."""
        self._exact = exact
        self._raise_cancel: Callable[[], NoReturn] | None = None

    # For the tasks of the run

    @property
    def busy(self) -> bool:
        """Another task waits, for a connection or for readability."""
        return self.task is not None or self.fd in self.run.readers

    @property
    def readable(self) -> bool:
        return bool(self._ahead)

    @property
    def ahead(self) -> int:
        """Connections that were accepted ahead."""
        return len(self._ahead)

    def is_of(self, sock: socket.socket) -> bool:
        """Whether a socket is this one: the same object, or another on its descriptor."""
        known = self.sock()
        return known is sock or (known is not None and known.fileno() == self.fd)

    @enable_ki_protection
    async def accept(self) -> socket.socket | int:
        """A connection, non-blocking and not inherited; or -errno. A checkpoint.

        The caller has seen that it is not `busy`, or that somebody was accepted ahead.
        """
        if self._ahead:
            await checkpoint_if_cancelled()
            try:
                return self._ahead.popleft()
            finally:
                await self.run.end_checkpoint()
        if not self._slot:
            self._arm()
        self.task = context.task
        await sleep(self.message)
        accepted, self._accepted = self._accepted, 0
        return accepted

    def make_way(self) -> None:
        """Others may accept from the descriptor from now on: nobody is accepted ahead any more."""
        self._exact = True
        if getattr(context, "task", None) is None or context.runner.io_manager is not self.run.manager:
            # Another thread, an instrument, a guest run's host: none of them may reap.
            self.run.unsettled.append(self)
            self.run.manager.force_wakeup()
            return
        while self._slot and self._multishot:
            if _cancel(self.run.core, self._slot):
                self._forget()
            else:
                _flush(self.run.core)
                self.run.manager.reap()

    def close(self) -> bool:
        """Whoever waits gets trio.ClosedResourceError. True if the kernel has to be flushed."""
        self.closed = True
        while self._ahead:
            self._turn_away(self._ahead.popleft())
        task, cancel = self.task, self._raise_cancel
        self.task = self._raise_cancel = None
        if task is not None:
            closed = outcome.Error(trio.ClosedResourceError("another task closed this fd"))
            # If it was cancelled before, it is told that.
            reschedule(task, outcome.capture(cancel) if cancel is not None else closed)
        self.message = None  # it refers back to us
        if not self._slot:
            return False
        if _cancel(self.run.core, self._slot):
            self._forget()
            return False
        return True

    # Of process_events

    def complete(self, result: int, *, more: bool) -> None:
        if not more:
            self._slot = 0
            self.run.multishot_terminations += self._multishot
        if result >= 0:
            self._deliver(socket.socket(*self._kind, fileno=result))
        elif self.task is None:
            return
        elif result not in STOPPED:
            self._wake(result)
        elif self._raise_cancel is None:
            self.run.unsettled.append(self)
        else:
            task, cancelled = self.task, outcome.capture(self._raise_cancel)
            self.task = self._raise_cancel = None
            reschedule(task, cancelled)

    def settle(self) -> None:
        if self.forsaken:
            self.acceptors.drop(self)
        elif self.task is not None and not self._slot:
            self._arm()
        elif self._ahead and self.fd in self.run.readers:
            self.run.manager.wake_reader(self.fd)
        elif self._is_too_far_ahead and _cancel(self.run.core, self._slot):
            self._forget()

    def _deliver(self, accepted: socket.socket) -> None:
        if self.closed:
            self._turn_away(accepted)
        elif self.task is not None:
            self._wake(accepted)
        else:
            self._ahead.append(accepted)
            self.run.unsettled.append(self)

    def _wake(self, accepted: socket.socket | int) -> None:
        task = self.task
        assert task is not None
        self._accepted = accepted
        self.task = self._raise_cancel = None
        self.run.manager.reschedule(task, READY)

    def _turn_away(self, accepted: socket.socket) -> None:
        if not self.run.manager.closed:  # as in a forked child: the connection is its parent's too
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        accepted.close()

    @property
    def _is_too_far_ahead(self) -> bool:
        too_far = self._exact or len(self._ahead) >= self.acceptors.ahead
        return self._multishot and self._slot != 0 and too_far

    def _arm(self) -> None:
        self._multishot = not self._exact
        slot = _accept(self.run.core, self.fd, self._multishot)
        if slot < 0:
            self.run.manager.refuse(self.fd, slot)
        self._slot = slot
        self.acceptors.by_slot[slot] = self

    def _forget(self) -> None:
        """The kernel has never known of the accept."""
        self.acceptors.by_slot.pop(self._slot, None)
        self._slot = 0

    def _abort(self, raise_cancel: Callable[[], NoReturn]) -> Abort:
        if not self._multishot:
            if not _cancel(self.run.core, self._slot):
                self._raise_cancel = raise_cancel
                return Abort.FAILED
            self._forget()
        self.task = None
        return Abort.SUCCEEDED
