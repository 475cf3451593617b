"""The sockets of a run that work by completions, of all kinds: what the loop knows of sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._tasks import is_current
from ..loop.statistics import SocketStatistics
from .acceptor import Acceptors
from .connections import Connections
from .receive_buffers import ReceiveBuffers

if TYPE_CHECKING:
    from ..loop.run import Run
    from ..ring.opening import Ring
    from .run_socket import RunSocket, SocketGroup


class RunSockets:
    """The sockets of one run. Another kind of socket is another one of its `groups`.

    For the run's own thread, but for `statistics`.
    """

    def __init__(self, run: Run, ring: Ring) -> None:
        self.run = run
        run.completes = "completions" in ring.flags
        self.tls = "tls" in ring.flags
        """Whether SSLStreams over them are to be those of sockets/tls.py."""
        self.buffers = ReceiveBuffers(run, ring.options)
        self.connections = Connections(run, self.buffers)
        self.acceptors = Acceptors(run, ring.options.accept_ahead)
        self.groups: tuple[SocketGroup[Any], ...] = (self.connections, self.acceptors)

    def with_descriptor(self, fd: int) -> list[RunSocket]:
        """Returns what the socket that has this descriptor now is in each group. What another socket was,
        which had it before and was closed without our being told, is dropped."""
        found = [one for group in self.groups if (one := group.by_fd.get(fd)) is not None]
        for one in found:
            if not is_current(one):
                one.drop()
        return [one for one in found if not one.closed]

    def notify_closing(self, fd: int) -> None:
        """Drops what has the descriptor: afterwards the ring holds no reference to the file."""
        for group in self.groups:
            one = group.by_fd.get(fd)
            if one is not None:
                group.drop(one)

    def statistics(self) -> SocketStatistics:
        """Counts what the sockets do. For any thread."""
        return SocketStatistics(
            receiving=sum(one.is_waited_for for group in self.groups for one in list(group.by_fd.values())),
            sending=self.connections.tasks_sending(),
            multishot_terminations=sum(group.multishot_terminations for group in self.groups),
            buffer_shortages=self.buffers.shortages,
            bytes_read_ahead=self.buffers.bytes_read_ahead,
        )

    def end(self) -> None:
        """Asks the kernel to stop what it has, and submits nothing any more. Called when the run's last
        tick is over."""
        for group in self.groups:
            group.forget_waiters()
        for group in self.groups:
            group.end()

    def close(self) -> None:
        """Forgets the buffers and all sockets. Called when the ring is gone."""
        self.buffers.close()
        for group in self.groups:
            group.close()
