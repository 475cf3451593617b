"""The ways from a socket of Trio's to what the run that calls has for it, and to Trio's own methods.

  question                                    who answers             what None means
  which sockets of the run work by            `sockets_of_run`        none: it is on epoll, or without
  completions                                                         completions
  which connection does a socket send and     `connection_of`, which  none: Trio's own method has to do it
  receive by                                  makes it if need be
  was anything taken ahead of a socket, or    `existing_connection`,  nothing was taken ahead, and nothing
  is anything going on                        `existing_acceptor`     goes on

A socket of Trio's has its connection and its acceptor as attributes (`SocketMarks`), those of whichever
run had it last. If two of Trio's sockets are on one descriptor, one of them may have no attribute: then
the run's tables know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from trio.lowlevel import wait_readable, wait_writable

from .._tasks import is_current
from ..loop.trio_internals import SocketType, context
from .below import below

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .acceptor import Acceptor
    from .connection import Connection
    from .registry import RunSockets
    from .run_socket import RunSocket

ORIGINAL: Final[dict[str, Any]] = {}
"""What Trio's sockets, and the functions of its module ``trio.socket``, had by the names that we replace,
when these were first replaced."""
_WRITES: Final = frozenset({"send", "sendmsg", "sendto"})


def sockets_of_run() -> RunSockets | None:
    """Returns the sockets of the run that calls. None on epoll, without completions, and outside of a run."""
    runner = getattr(context, "runner", None)
    run: Any = None if runner is None else runner.io_manager
    return run.sockets if getattr(run, "completes", False) else None


def connection_of(trio_socket: Any) -> Connection | None:
    """Returns the socket's connection in the run that calls, and makes it if there is none. None if Trio's
    own method has to do it."""
    if type(trio_socket) is not SocketType:  # a user's own class may find our attributes by __getattr__
        return None
    connection: Connection | None = getattr(trio_socket, "_uring", None)
    runner = getattr(context, "runner", None)
    if connection is not None and connection.runner is runner and not connection.closed:
        if is_current(connection):
            return connection
        connection.drop()
    sockets = sockets_of_run()
    return None if sockets is None else sockets.connections.socket_of(trio_socket)


def existing_connection(trio_socket: Any) -> Connection | None:
    """Returns the socket's connection, of whichever run, if it has one already."""
    connection: Connection | None = getattr(trio_socket, "_uring", None)
    if connection is None:  # another Trio socket on the same descriptor may have one
        if hasattr(trio_socket, "_uring_at_once") or hasattr(trio_socket, "_uring_excluded"):
            return None
        sockets = sockets_of_run()
        if sockets is None or sockets.connections.works_by_readiness(trio_socket):
            return None
        connection = sockets.connections.existing(trio_socket._sock)
        if connection is None:
            return None
    return None if connection.closed or not is_current(connection) else connection


def existing_acceptor(trio_socket: Any) -> Acceptor | None:
    """Returns the socket's acceptor, of whichever run, if it has one already."""
    acceptor: Acceptor | None = getattr(trio_socket, "_uring_acceptor", None)
    if acceptor is None:  # another Trio socket on the same descriptor may have one
        sockets = sockets_of_run()
        acceptor = None if sockets is None else sockets.acceptors.existing(trio_socket._sock)
        if acceptor is None:
            return None
    return None if acceptor.closed or not is_current(acceptor) else acceptor


def existing_sockets(trio_socket: Any) -> list[RunSocket]:
    """Returns all that a run, whichever it is, has for the socket already."""
    found = (existing_connection(trio_socket), existing_acceptor(trio_socket))
    return [one for one in found if one is not None]


def marked_sockets(trio_socket: Any) -> list[RunSocket]:
    """Returns all that a run has ever made for the socket, and that is its latest of its kind: it may be
    closed, of an earlier run, or for a descriptor that the socket has no longer."""
    marks = (getattr(trio_socket, name, None) for name in ("_uring", "_uring_acceptor"))
    return [mark for mark in marks if mark is not None]


def by_readiness(trio_socket: Any, name: str, *args: Any, **kwargs: Any) -> Awaitable[Any]:
    """Calls the standard library's method ``name`` as Trio's own of that name would do: it waits until the
    socket is ready. Nobody's wrapper of Trio's method hears of it."""
    helper = ORIGINAL.get("_nonblocking_helper") or SocketType._nonblocking_helper
    wait = wait_writable if name in _WRITES else wait_readable
    awaitable: Awaitable[Any] = helper(trio_socket, wait, below(name), *args, **kwargs)
    return awaitable


def is_ours(bound: Any, function: object) -> bool:
    """Whether an object's method is the ``function`` that we have put into its class, and nobody has
    wrapped it, in the class or on the object."""
    return getattr(bound, "__func__", None) is function
