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
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from ._native import lib
from .armed import Armed
from .internals import context
from .operation import STOPPED
from .sleep import READY, is_cancelled, sleep, yield_shielded

if TYPE_CHECKING:
    from .connections import Connections

_accept = lib.tu_accept
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
        earlier: Acceptor | None = getattr(trio_socket, "_uring_acceptor", None)
        if earlier is not None and earlier.acceptors is self and not earlier.closed and fd != earlier.fd:
            self.drop(earlier)
        acceptor = self.by_fd.get(fd)
        if acceptor is not None and not acceptor.is_of(sock):
            self.drop(acceptor)
            acceptor = None
        if acceptor is None:
            if fd < 0 or sock.family not in _FAMILIES:
                return None
            exact = not self.ahead or hasattr(trio_socket, "_uring_exact")
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
            acceptor.task = acceptor._raise_cancel = None
            acceptor.close()
        self.by_fd.clear()


class Acceptor(Armed):
    """Of one listening socket, in one run."""

    __slots__ = ("_accepted", "_ahead", "_kind", "acceptors")

    def __init__(self, acceptors: Acceptors, sock: socket.socket, *, exact: bool) -> None:
        super().__init__(acceptors.run, sock, exact=exact)
        self.acceptors = acceptors
        self._accepted: socket.socket | int = 0
        """For the task that waits, when it is woken: the connection, or -errno."""
        self._ahead: deque[socket.socket] = deque()
        self._kind = int(sock.family), int(sock.type), sock.proto

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

    @enable_ki_protection
    async def accept(self) -> socket.socket | int:
        """A connection, non-blocking and not inherited; or -errno. A checkpoint.

        The caller has seen that it is not `busy`, or that somebody was accepted ahead.
        """
        if self._ahead:
            if is_cancelled(context.task):
                await checkpoint_if_cancelled()
            try:
                return self._ahead.popleft()
            finally:
                if not (self.run.budget and self.run.may_go_on()):
                    await yield_shielded()
        if not self._slot:
            self._arm()
        self.task = context.task
        await sleep(self.message)
        accepted, self._accepted = self._accepted, 0
        return accepted

    def drop(self) -> None:
        self.acceptors.drop(self)

    def close(self) -> bool:
        while self._ahead:
            self._turn_away(self._ahead.popleft())
        return super().close()

    # Of process_events

    def complete(self, result: int, *, more: bool) -> None:
        if not more:
            self._slot = 0
            self.run.multishot_terminations += self._multishot
        if result < 0 and result in STOPPED and self.task is not None:
            if self._raise_cancel is not None:
                self._tell_cancelled()
            else:
                self.run.unsettled.append(self)
            return
        accepted = result if result < 0 else socket.socket(*self._kind, fileno=result)
        if self.task is not None:
            self._accepted = accepted
            self.run.manager.reschedule(self.task, READY)
            self.task = self._raise_cancel = None
        elif isinstance(accepted, int):
            return
        elif self.closed:
            self._turn_away(accepted)
        else:
            self._ahead.append(accepted)
            self.run.unsettled.append(self)

    def _turn_away(self, accepted: socket.socket) -> None:
        if not self.run.manager.closed:  # as in a forked child: the connection is its parent's too
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        accepted.close()

    @property
    def _is_full(self) -> bool:
        return len(self._ahead) >= self.acceptors.ahead

    def _arm(self) -> None:
        self._multishot = not self._exact
        slot = _accept(self.run.core, self.fd, self._multishot)
        if slot < 0:
            self.run.manager.refuse(self.fd, slot)
        self._slot = slot
        self.acceptors.by_slot[slot] = self

    def _forget(self) -> None:
        self.acceptors.by_slot.pop(self._slot, None)
        self._slot = 0
