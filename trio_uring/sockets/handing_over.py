"""Where a socket of Trio's changes hands, or is closed, or is asked about itself: what these methods are
replaced by while runs are on io_uring.

In a run that is on epoll, or without completions, each calls Trio's own.

| call | how |
| --- | --- |
| close | Trio's own, and lets go of what was closed below it |
| shutdown | Trio's own, when what other tasks send has been submitted |
| fileno, detach, dup, ``wait_readable`` | let others receive and accept: nothing is taken ahead any more |
| ``trio.socket.fromfd`` | a copy of a descriptor that somebody else has: the same |
| setsockopt of SO_OOBINLINE | the same: urgent data are where they are on epoll |
| is_readable | asks the socket, and what was received and nobody has got |
| getsockopt of SO_ERROR | a reset that a multishot has heard of is told here, too |
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

import trio

from ..loop.trio_internals import Replaced, SocketType
from .lookup import ORIGINAL, acceptor_of_known, connection_of, connection_of_known, sockets_of_run

if TYPE_CHECKING:
    from types import TracebackType

    from .run_socket import RunSocket


def _is_of_this_run(known: RunSocket) -> bool:
    """Whether a socket is of the run that calls, whose ring alone the caller may enter."""
    sockets = sockets_of_run()
    return sockets is not None and known.run is sockets.run


def fileno(self: Any) -> int:
    """Whoever asks for the descriptor may read from it."""
    _take_nothing_ahead(self)
    return self._sock.fileno()  # type: ignore[no-any-return]


def is_readable(self: Any) -> bool:
    if ORIGINAL["is_readable"](self):
        return True
    # Afterwards: what a multishot takes is in the socket before, and then with us.
    return any(
        known.readable or (_is_of_this_run(known) and known.has_completed())
        for known in (connection_of_known(self), acceptor_of_known(self))
        if known is not None
    )


def shutdown(self: Any, flag: int) -> None:
    connection = connection_of_known(self)
    if connection is not None:
        connection.submit_sends()
    ORIGINAL["shutdown"](self, flag)


def detach(self: Any) -> int:
    _give_away(self, "detach")
    _drop(self)
    return self._sock.detach()  # type: ignore[no-any-return]


def dup(self: Any) -> Any:
    _give_away(self, "dup")
    duplicate = ORIGINAL["dup"](self)
    for trio_socket in (self, duplicate):  # neither may take what the other asks for
        connection = connection_of(trio_socket)
        if connection is not None:
            connection.take_nothing_ahead()
        trio_socket._uring_exact = True
    return duplicate


def fromfd(*args: Any, **kwargs: Any) -> Any:
    duplicate = ORIGINAL["fromfd"](*args, **kwargs)
    duplicate._uring_exact = True
    return duplicate


def getsockopt(self: Any, /, level: int, optname: int, buflen: int | None = None) -> int | bytes:
    if level == socket.SOL_SOCKET and optname == socket.SO_ERROR and not buflen:
        connection = connection_of_known(self)
        if connection is not None and (error := connection.take_error()):
            return error
    return ORIGINAL["getsockopt"](self, level, optname, buflen)  # type: ignore[no-any-return]


def setsockopt(self: Any, level: int, optname: int, *args: Any, **kwargs: Any) -> None:
    if level == socket.SOL_SOCKET and optname == socket.SO_OOBINLINE:
        _take_nothing_ahead(self)  # which would go past the urgent mark
    ORIGINAL["setsockopt"](self, level, optname, *args, **kwargs)


def _take_nothing_ahead(trio_socket: Any) -> None:
    trio_socket._uring_exact = True
    for known in (connection_of_known(trio_socket), acceptor_of_known(trio_socket)):
        if known is not None:
            known.take_nothing_ahead()


def _give_away(trio_socket: Any, what: str) -> None:
    acceptor = acceptor_of_known(trio_socket)
    if acceptor is not None:
        acceptor.take_nothing_ahead()
        if acceptor.ahead:
            raise RuntimeError(
                f"{what}: {acceptor.ahead} connections were accepted ahead from this socket, which its new "
                f"owner would miss; accept them first, or call fileno() before you accept"
            )
    # An earlier run's is closed, and may still have something.
    connection = connection_of_known(trio_socket) or getattr(trio_socket, "_uring", None)
    if connection is None:
        return
    if not connection.closed:
        connection.take_nothing_ahead()
    if connection.ahead:
        raise RuntimeError(
            f"{what}: {connection.ahead} bytes were read ahead from this socket, which its new owner "
            f"would miss; receive them first, or call fileno() before you receive for the second time"
        )


def leave(
    self: Any,
    exc_type: type[BaseException] | None,
    exc_value: BaseException | None,
    traceback: TracebackType | None,
) -> None:
    _drop(self)
    self._sock.__exit__(exc_type, exc_value, traceback)


def close(self: Any) -> None:
    if self._sock.fileno() < 0:  # it was closed below, and Trio tells nobody
        _drop(self)
    ORIGINAL["close"](self)


def _drop(trio_socket: Any) -> None:
    """Also what is stale: it holds the file that was closed."""
    for known in (
        connection_of_known(trio_socket),
        acceptor_of_known(trio_socket),
        getattr(trio_socket, "_uring", None),
        getattr(trio_socket, "_uring_acceptor", None),
    ):
        if known is None or known.closed:
            continue
        if _is_of_this_run(known):
            known.drop()
        else:  # its ring is another thread's
            known.forsake()


REPLACEMENTS: Final = (
    Replaced(SocketType, {"close": close}, ORIGINAL),
    Replaced(
        SocketType,
        {
            "fileno": fileno,
            "is_readable": is_readable,
            "shutdown": shutdown,
            "detach": detach,
            "dup": dup,
            "getsockopt": getsockopt,
            "setsockopt": setsockopt,
            "__exit__": leave,
        },
        ORIGINAL,
        vital=True,
    ),
    Replaced(trio.socket, {"fromfd": fromfd}, ORIGINAL, vital=True),
)
