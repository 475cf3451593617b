"""The stream sockets of a run.

A connection is made for a socket when a task first receives or sends with it, and is
known by its descriptor until that is closed. A socket that is collected, or whose
descriptor turns up in another socket's hands, takes its connection along: a receive that
is pending would keep it open.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from ..loop.trio_internals import context
from ..ring.native import lib
from .connection import Connection
from .families import STREAM_FAMILIES, family_of, type_of
from .run_socket import Kind

if TYPE_CHECKING:
    from ..loop.run import Run
    from .receive_buffers import ReceiveBuffers


class Connections(Kind[Connection]):
    event = lib.TU_RECEIVE

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
            if hasattr(trio_socket, "_uring_excluded") or self.excludes(trio_socket):
                return None
            if not self.buffers.are_provided():
                return None
            connection = self.by_fd[fd] = Connection(
                self, self.buffers, context.runner, sock, takes_nothing_ahead=_is_exact(trio_socket, sock)
            )
            earlier: Connection | None = getattr(trio_socket, "_uring", None)
            if earlier is not None and earlier.sock() is sock:
                connection.inherit(earlier)
        trio_socket._uring = connection
        return connection

    def excludes(self, trio_socket: Any) -> bool:
        """Whether it is of a kind that has no connection, which the socket remembers."""
        sock: socket.socket = trio_socket._sock
        if type_of(sock) == socket.SOCK_STREAM and family_of(sock) in STREAM_FAMILIES:
            return False
        trio_socket._uring_excluded = True
        return True

    def tasks_sending(self) -> int:
        return sum(connection.is_sending for connection in list(self.by_fd.values()))


def _is_exact(trio_socket: Any, sock: socket.socket) -> bool:
    """Whether nothing may be taken ahead: others have the descriptor as well; descriptors may come with
    the data; a receive would go past the urgent mark."""
    return (
        hasattr(trio_socket, "_uring_exact")
        or family_of(sock) == socket.AF_UNIX
        or sock.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE) != 0
    )
