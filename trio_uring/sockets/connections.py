"""The stream sockets of a run.

A connection is made for a socket when a task first receives or sends with it, and is found by its
descriptor until that is closed. It is dropped with a socket that is collected, or whose descriptor
turns up in another socket's hands: a pending receive would keep the file open.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from ..loop.trio_internals import context
from ..ring.native import lib
from .below import WRAPPED
from .connection import Connection
from .families import STREAM_FAMILIES, family_of, type_of
from .run_socket import SocketGroup

if TYPE_CHECKING:
    from ..loop.run import Run
    from .receive_buffers import ReceiveBuffers


class Connections(SocketGroup[Connection]):
    event_kind = lib.TU_RECEIVE

    def __init__(self, run: Run, buffers: ReceiveBuffers) -> None:
        super().__init__(run)
        self.buffers = buffers

    def socket_of(self, trio_socket: Any) -> Connection | None:
        sock: socket.socket = trio_socket._sock
        fd = sock.fileno()
        if fd < 0:
            return None
        connection = self.find(sock)
        if connection is None:
            if hasattr(trio_socket, "_uring_at_once") or hasattr(trio_socket, "_uring_excluded"):
                return None
            if self.works_by_readiness(trio_socket):
                return None
            if not self.buffers.provide():
                return None
            connection = Connection(
                self,
                self.buffers,
                context.runner,
                sock,
                takes_nothing_ahead=_has_to_take_nothing_ahead(trio_socket, sock),
            )
            earlier: Connection | None = getattr(trio_socket, "_uring", None)
            if earlier is not None and earlier.sock() is sock:
                connection.inherit(earlier)
            self.by_fd[fd] = connection
        trio_socket._uring = connection
        return connection

    def works_by_readiness(self, trio_socket: Any) -> bool:
        """Whether a socket is of a kind that has no connection, or none of them has one. It is asked once:
        the socket remembers the answer."""
        sock: socket.socket = trio_socket._sock
        if type_of(sock) == socket.SOCK_STREAM and family_of(sock) in STREAM_FAMILIES and not WRAPPED:
            return False
        trio_socket._uring_at_once = True
        return True

    def tasks_sending(self) -> int:
        """How many tasks are in `trio.SocketStream.send_all`. For any thread."""
        return sum(connection.is_sending for connection in list(self.by_fd.values()))


def _has_to_take_nothing_ahead(trio_socket: Any, sock: socket.socket) -> bool:
    """Whether others may read from the descriptor as well, or descriptors may come with the data, or a
    receive would go past the urgent mark."""
    return (
        hasattr(trio_socket, "_uring_nothing_ahead")
        or family_of(sock) == socket.AF_UNIX
        or sock.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE) != 0
    )
