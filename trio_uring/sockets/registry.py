"""The sockets of a run that work by completions, of all kinds."""

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
    from .run_socket import Kind, RunSocket


class RunSockets:
    """One run's; it asks `kinds`, so that another kind is one row more."""

    def __init__(self, run: Run, ring: Ring) -> None:
        self.run = run
        self.usable = "completions" in ring.flags
        """Whether sockets are to work by completions at all."""
        self.buffers = ReceiveBuffers(run, ring.options)
        self.connections = Connections(run, self.buffers)
        self.acceptors = Acceptors(run, ring.options.accept_ahead)
        self.kinds: tuple[Kind[Any], ...] = (self.connections, self.acceptors)

    def known(self, fd: int) -> list[RunSocket]:
        """What the socket that has this descriptor now is in this run, in each kind. What one was that
        had it before, and was closed without our being told, is dropped."""
        known = [one for kind in self.kinds if (one := kind.by_fd.get(fd)) is not None]
        for one in known:
            if not is_current(one):
                one.drop()
        return [one for one in known if not one.closed]

    def notify_closing(self, fd: int) -> None:
        """Drops what has the descriptor: afterwards the ring holds no reference to the file."""
        for kind in self.kinds:
            one = kind.by_fd.get(fd)
            if one is not None:
                kind.drop(one)

    def statistics(self) -> SocketStatistics:
        return SocketStatistics(
            receiving=sum(one.waiter is not None for kind in self.kinds for one in list(kind.by_fd.values())),
            sending=self.connections.tasks_sending(),
            multishot_terminations=sum(kind.multishot_terminations for kind in self.kinds),
            buffer_shortages=self.buffers.shortages,
            bytes_read_ahead=self.buffers.bytes_read_ahead,
        )

    def end(self) -> None:
        """Stops what is with the kernel: the run's last tick is over."""
        for kind in self.kinds:
            kind.end()

    def close(self) -> None:
        """Gives up the buffers and all sockets: the ring is over."""
        self.buffers.close()
        for kind in self.kinds:
            kind.close()
