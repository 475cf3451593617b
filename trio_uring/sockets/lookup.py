"""From a socket of Trio's to what it is in the run that calls, and to what Trio has for it.

  question                                     answer                  if there is none
  what does the run know of sockets            `sockets_of_run`        the run is on epoll, or without
                                                                       completions
  what does this socket send and receive by    `connection_of`         one is made; or Trio's own
                                                                       method has to do it
  has this socket anything taken ahead,        `connection_of_known`,  nothing is made, and nothing was
  or something that goes on                    `acceptor_of_known`     taken

A socket of Trio's has its connection and its acceptor as attributes (`SocketMarks`), of whichever run
had it last. Two of Trio's sockets may be on one descriptor; then the run's tables have it.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from trio.lowlevel import wait_readable, wait_writable

from .._tasks import is_current
from ..loop.trio_internals import SocketType, context

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .acceptor import Acceptor
    from .connection import Connection
    from .registry import RunSockets

ORIGINAL: Final[dict[str, Any]] = {}
"""What Trio's sockets, streams and functions have by the names that are replaced, since they were first
replaced."""
_WRITES: Final = frozenset({"send", "sendmsg", "sendto"})


def sockets_of_run() -> RunSockets | None:
    """The sockets of the run that calls. None on epoll, without completions, and outside of a run."""
    runner = getattr(context, "runner", None)
    sockets: RunSockets | None = None if runner is None else getattr(runner.io_manager, "sockets", None)
    return sockets if sockets is not None and sockets.usable else None


def connection_of(trio_socket: Any) -> Connection | None:
    """The socket's connection in the run that calls, made if need be. None: Trio's own method has to do
    it."""
    if type(trio_socket) is not SocketType:  # a user's own may find ours by __getattr__
        return None
    connection: Connection | None = getattr(trio_socket, "_uring", None)
    runner = getattr(context, "runner", None)
    if connection is not None and connection.runner is runner and not connection.closed:
        if is_current(connection):
            return connection
        connection.drop()
    sockets = sockets_of_run()
    return None if sockets is None else sockets.connections.socket_of(trio_socket)


def connection_of_known(trio_socket: Any) -> Connection | None:
    """The socket's connection, if it has one already, whichever run it belongs to."""
    connection: Connection | None = getattr(trio_socket, "_uring", None)
    if connection is None:  # another Trio socket on the same descriptor may have one
        if hasattr(trio_socket, "_uring_excluded"):
            return None
        sockets = sockets_of_run()
        if sockets is None or sockets.connections.excludes(trio_socket) or not sockets.connections.by_fd:
            return None
        connection = sockets.connections.by_fd.get(trio_socket._sock.fileno())
        if connection is None or not connection.is_of(trio_socket._sock):
            return None
    return None if connection.closed or not is_current(connection) else connection


def acceptor_of_known(trio_socket: Any) -> Acceptor | None:
    """The socket's acceptor, if it has one already, whichever run it belongs to."""
    acceptor: Acceptor | None = getattr(trio_socket, "_uring_acceptor", None)
    if acceptor is None:  # another Trio socket on the same descriptor may have one
        sockets = sockets_of_run()
        if sockets is None or not sockets.acceptors.by_fd:
            return None
        acceptor = sockets.acceptors.by_fd.get(trio_socket._sock.fileno())
        if acceptor is None or not acceptor.is_of(trio_socket._sock):
            return None
    return None if acceptor.closed or not is_current(acceptor) else acceptor


def by_readiness(trio_socket: Any, name: str, *args: Any, **kwargs: Any) -> Awaitable[Any]:
    """What Trio's own method ``name`` does with the standard library's, whoever has wrapped it."""
    helper = ORIGINAL.get("_nonblocking_helper") or SocketType._nonblocking_helper
    wait = wait_writable if name in _WRITES else wait_readable
    awaitable: Awaitable[Any] = helper(trio_socket, wait, getattr(socket.socket, name), *args, **kwargs)
    return awaitable


def is_ours(bound: Any, function: object) -> bool:
    """Whether an object's method is what we have put into its class: nobody has wrapped it, there
    or on the object."""
    return getattr(bound, "__func__", None) is function
