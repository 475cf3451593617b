"""What a run knows of a listening socket: who waits for a connection, and who has come.

sockets/run_socket.py has the states.

- An accept is one of ONCE, which takes nobody that no task waits for, unless
  `RingOptions.accept_ahead` allows a multishot. Whom that brings while no task waits is
  *accepted ahead*, and given to the next ones in order. At ``accept_ahead`` connections
  the multishot is stopped, and later clients wait in the backlog.
- A socket that others may accept from (`take_nothing_ahead`) has no multishot any more.
- An error ends either; a task that waits is told. Otherwise the next accept meets it again.
- Connections that nobody has got are reset when the listening socket is closed, as the
  kernel does with its backlog; and closed when the run ends.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from ..loop.checkpoints import READY, pass_cancel_point, sleep, yield_shielded
from ..loop.operation import STOPPED
from ..loop.trio_internals import context
from ..loop.waiter import Stopping
from ..ring.native import lib
from .families import STREAM_FAMILIES, family_of
from .run_socket import IDLE, Kind, RunSocket

if TYPE_CHECKING:
    from ..loop.run import Run

_accept = lib.tu_accept

_RESET: Final = struct.pack("ii", 1, 0)


class Acceptor(RunSocket):
    """A listening socket, in one run."""

    __slots__ = ("_accepted", "_ahead", "_family", "_most_ahead")

    def __init__(
        self, kind: Kind[Acceptor], sock: socket.socket, most_ahead: int, trio_socket: object
    ) -> None:
        exact = not most_ahead or hasattr(trio_socket, "_uring_exact")
        super().__init__(kind, sock, takes_nothing_ahead=exact)
        self._most_ahead = most_ahead
        self._accepted: socket.socket | int = 0
        """For the task that waits, when it is woken: the connection, or -errno."""
        self._ahead: deque[socket.socket] = deque()
        self._family = int(sock.family), int(sock.type), sock.proto

    # For the tasks of the run

    @property
    def busy(self) -> bool:
        """Another task waits, for a connection or for readability."""
        return self.is_waited_for() or self.fd in self.run.readers

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
            if pass_cancel_point(context.task):
                await checkpoint_if_cancelled()
            try:
                return self._ahead.popleft()
            finally:
                if not (self.run.budget and self.run.spend()):
                    await yield_shielded()
        if self.state is IDLE:
            self._arm()
        self.waiter = context.task
        await sleep(self.message)
        accepted, self._accepted = self._accepted, 0
        return accepted

    def close(self) -> bool:
        while self._ahead:
            self._turn_away(self._ahead.popleft())
        return super().close()

    def end_run(self) -> None:
        self.waiter = None
        self.close()

    # For the run, when it processes events

    def complete(self, result: int, *, more: bool, buffer: int) -> None:
        if not more:
            self._has_ended()
        if result in STOPPED and self.waiter is not None:
            if isinstance(self.waiter, Stopping):
                self._wake(self.waiter.answer())
            else:
                self.run.unsettled.append(self)
            return
        accepted = result if result < 0 else self._socket_of(result)
        if self.waiter is not None:
            self._accepted = accepted
            self._wake(READY)
        elif isinstance(accepted, int):
            return
        elif self.closed:
            self._turn_away(accepted)
        else:
            self._ahead.append(accepted)
            self.run.unsettled.append(self)

    def _socket_of(self, fd: int) -> socket.socket:
        try:
            return socket.socket(*self._family, fileno=fd)
        except MemoryError:
            os.close(fd)
            raise

    def _turn_away(self, accepted: socket.socket) -> None:
        if not self.run.closed:  # as in a forked child: the connection is its parent's too
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        accepted.close()

    @property
    def _is_full(self) -> bool:
        return len(self._ahead) >= self._most_ahead

    @property
    def _may_be_multishot(self) -> bool:
        return not self.takes_nothing_ahead

    def _submit(self, *, multishot: bool) -> int:
        return _accept(self.run.core, self.fd, multishot)


class Acceptors(Kind["Acceptor"]):
    """The listening sockets of a run."""

    event = lib.TU_ACCEPT

    def __init__(self, run: Run, ahead: int) -> None:
        super().__init__(run)
        self.ahead = ahead
        """Connections that each may accept before anybody asks."""

    def socket_of(self, trio_socket: Any) -> Acceptor | None:
        sock: socket.socket = trio_socket._sock
        fd = sock.fileno()
        earlier: Acceptor | None = getattr(trio_socket, "_uring_acceptor", None)
        if earlier is not None and earlier.kind is self and not earlier.closed and fd != earlier.fd:
            self.drop(earlier)
        acceptor = self.find(sock)
        if acceptor is None:
            if fd < 0 or family_of(sock) not in STREAM_FAMILIES:
                return None
            acceptor = self.by_fd[fd] = Acceptor(self, sock, self.ahead, trio_socket)
        trio_socket._uring_acceptor = acceptor
        return acceptor
