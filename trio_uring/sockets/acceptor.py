"""What a run knows of a listening socket: which task waits for a connection, and which connections
were accepted before anybody asked for them.

sockets/states.py has the states of an accept.

- Unless `RingOptions.accept_ahead` allows a multishot, an accept completes once, and takes no
  connection that no task waits for. What a multishot brings while no task waits is *accepted ahead*,
  and given in order to the tasks that accept next. At ``accept_ahead`` connections the multishot is
  stopped, and later clients wait in the kernel's backlog.
- Where nobody may be accepted ahead, an accept first looks for who waits in the kernel's backlog, by
  accept4(2), since that takes less than a submission and its event: a tenth of a short connection, where
  50 clients come at a time.
- A socket that others may accept from (`take_nothing_ahead`) has no multishot any more.
- An error ends an accept of either kind. A task that waits is told; else the next accept meets it again.
- What was accepted ahead and not asked for is reset when the listening socket is closed, as the kernel
  does with its backlog; and closed when the run ends.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

import outcome
from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from ..loop.checkpoints import pass_cancel_point, sleep_for_value, yield_shielded
from ..loop.operation import STOPPED
from ..loop.trio_internals import context
from ..loop.waiter import Stopping
from ..ring.native import lib
from .families import STREAM_FAMILIES, family_of
from .run_socket import RunSocket, SocketGroup, reset_at_close
from .states import IDLE

if TYPE_CHECKING:
    from ..loop.run import Run

_accept = lib.tu_accept


class Acceptor(RunSocket):
    """A listening socket, as one run knows it."""

    __slots__ = ("_most_ahead", "_socket_arguments", "_sockets_ahead")

    def __init__(
        self, group: SocketGroup[Acceptor], sock: socket.socket, most_ahead: int, trio_socket: object
    ) -> None:
        nothing_ahead = not most_ahead or hasattr(trio_socket, "_uring_nothing_ahead")
        super().__init__(group, sock, takes_nothing_ahead=nothing_ahead)
        self._most_ahead = most_ahead
        self._sockets_ahead: deque[socket.socket] = deque()
        """The connections that were accepted ahead."""
        self._socket_arguments = int(sock.family), int(sock.type), sock.proto

    # For tasks of the run

    @property
    def is_busy(self) -> bool:
        """Whether a task waits for a connection, or until the socket is readable."""
        return self.waiter is not None or self.fd in self.run.readers

    @property
    def taken_ahead(self) -> str:
        if not self.connections_ahead:
            return ""
        return (
            f"{self.connections_ahead} connections were accepted ahead from this socket, which its new owner "
            f"would miss; accept them first, or call fileno() before you accept"
        )

    @property
    def readable(self) -> bool:
        return bool(self._sockets_ahead)

    @property
    def connections_ahead(self) -> int:
        """How many connections were accepted ahead."""
        return len(self._sockets_ahead)

    @enable_ki_protection
    async def accept(self) -> socket.socket | int:
        """Returns a connection, which is not inherited; or -errno. This is a checkpoint.

        The caller has seen that it is not `is_busy`, or that there are `connections_ahead`.
        """
        if self._sockets_ahead:
            if pass_cancel_point(context.task):
                await checkpoint_if_cancelled()
            try:
                return self._sockets_ahead.popleft()
            finally:
                if not (self.run.budget and self.run.spend()):
                    await yield_shielded()
        if self.state is IDLE:
            if not self._most_ahead:
                found = await self._accept_at_once()
                if found is not None:
                    return found
            self.submit()
        self.waiter = context.task
        accepted: socket.socket | int = await sleep_for_value(self.message)
        return accepted

    async def _accept_at_once(self) -> socket.socket | int | None:
        """Returns a connection that waits in the kernel's backlog, or -errno. None if there is none."""
        if pass_cancel_point(context.task):
            await checkpoint_if_cancelled()
        sock: Any = self.sock()
        if sock is None:
            return None
        try:
            fd, _ = sock._accept()
        except BlockingIOError:
            return None
        except OSError as error:
            await yield_shielded()
            return -error.errno if error.errno else None
        try:
            return self._socket_of(fd)
        finally:
            if not (self.run.budget and self.run.spend()):
                await yield_shielded()

    def finish_send(self) -> None:
        """Does nothing: a listening socket sends nothing."""

    def close(self) -> bool:
        while self._sockets_ahead:
            self._reset(self._sockets_ahead.popleft())
        return super().close()

    def end_run(self) -> None:
        self.close()

    # For the run, while it processes events

    def complete(self, result: int, *, more: bool, buffer: int) -> None:
        if not more:
            self._has_ended()
        if result in STOPPED and self.waiter is not None:
            if isinstance(self.waiter, Stopping):
                self._wake(self.waiter.answer())
            else:
                self.run.unsettled.append(self)
            return
        if self.waiter is not None:
            # Not by an attribute: before the task has run another one may accept, and be answered.
            # The task is told if a class that somebody has put in the place of `socket.socket` refuses.
            self._wake(outcome.Value(result) if result < 0 else outcome.capture(self._socket_of, result))
        elif result < 0:
            return
        elif self.closed:
            self._reset(self._socket_of(result))
        else:
            self._sockets_ahead.append(self._socket_of(result))
            self.run.unsettled.append(self)

    def _socket_of(self, fd: int) -> socket.socket:
        try:
            return socket.socket(*self._socket_arguments, fileno=fd)
        except MemoryError:
            os.close(fd)
            raise

    def _reset(self, accepted: socket.socket) -> None:
        # A run that has ended only closes it, and so does a forked child, whose parent has it too.
        if not self.run.closed:
            reset_at_close(accepted)
        accepted.close()

    @property
    def _is_full(self) -> bool:
        return len(self._sockets_ahead) >= self._most_ahead

    @property
    def _may_be_multishot(self) -> bool:
        return not self.takes_nothing_ahead

    def _submit_to_core(self, *, multishot: bool) -> int:
        return _accept(self.run.core, self.fd, multishot)


class Acceptors(SocketGroup["Acceptor"]):
    """The listening sockets of a run."""

    event_kind = lib.TU_ACCEPT

    def __init__(self, run: Run, most_ahead: int) -> None:
        super().__init__(run)
        self.most_ahead = most_ahead
        """How many connections each of them may accept ahead."""

    def socket_of(self, trio_socket: Any) -> Acceptor | None:
        sock: socket.socket = trio_socket._sock
        fd = sock.fileno()
        earlier: Acceptor | None = getattr(trio_socket, "_uring_acceptor", None)
        if earlier is not None and earlier.group is self and not earlier.closed and fd != earlier.fd:
            self.drop(earlier)
        acceptor = self.find(sock)
        if acceptor is None:
            if fd < 0 or family_of(sock) not in STREAM_FAMILIES:
                return None
            acceptor = self.by_fd[fd] = Acceptor(self, sock, self.most_ahead, trio_socket)
        trio_socket._uring_acceptor = acceptor
        return acceptor
