"""What Trio's sockets are asked for beside data: to be handed over, to be closed, or about themselves.
These functions stand in for Trio's while runs are on io_uring.

In a run that is on epoll, or without completions, each does what Trio's does.

| call | what it does beside what Trio's does |
| --- | --- |
| close | drops what was closed below Trio's socket, of which Trio tells nobody |
| shutdown | first submits what other tasks send; of the receiving side, nothing is taken ahead any more |
| fileno, detach, dup, ``wait_readable`` | nothing is taken ahead any more: others may receive and accept |
| ``trio.socket.fromfd`` | the same, since somebody else has the descriptor |
| setsockopt of SO_OOBINLINE | the same, since a multishot would go past urgent data |
| is_readable | counts what was received or accepted, and nobody has got |
| getsockopt of SO_ERROR | tells of a reset that a multishot has heard of |
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Final

import trio

from ..loop.trio_internals import Replaced, SocketType
from .lookup import (
    ORIGINAL,
    connection_of,
    existing_connection,
    existing_sockets,
    marked_sockets,
    sockets_of_run,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from .run_socket import RunSocket


_ENDS_RECEIVING: Final = (socket.SHUT_RD, socket.SHUT_RDWR)


def _is_of_this_run(run_socket: RunSocket) -> bool:
    """Whether a socket is of the run that calls. The caller may enter no other ring."""
    sockets = sockets_of_run()
    return sockets is not None and run_socket.run is sockets.run


def fileno(self: Any) -> int:
    _take_nothing_ahead(self)  # whoever asks for the descriptor may read from it
    return self._sock.fileno()  # type: ignore[no-any-return]


def is_readable(self: Any) -> bool:
    if ORIGINAL["is_readable"](self):
        return True
    # In this order: a multishot may have taken meanwhile what was in the socket before.
    return any(
        one.readable or (_is_of_this_run(one) and one.has_completed()) for one in existing_sockets(self)
    )


def shutdown(self: Any, flag: int) -> None:
    connection = existing_connection(self)
    if connection is not None:
        connection.submit_sends()
    if flag in _ENDS_RECEIVING:  # the peer may send on: a multishot would tell of the end before that
        _take_nothing_ahead(self)
    ORIGINAL["shutdown"](self, flag)


def detach(self: Any) -> int:
    _give_away(self, "detach")
    _drop(self)
    return self._sock.detach()  # type: ignore[no-any-return]


def dup(self: Any) -> Any:
    _give_away(self, "dup")
    duplicate = ORIGINAL["dup"](self)
    for trio_socket in (self, duplicate):  # neither may take ahead what the other is asked for
        connection = connection_of(trio_socket)
        if connection is not None:
            connection.take_nothing_ahead()
        trio_socket._uring_nothing_ahead = True
    return duplicate


def fromfd(*args: Any, **kwargs: Any) -> Any:
    duplicate = ORIGINAL["fromfd"](*args, **kwargs)
    duplicate._uring_nothing_ahead = True
    return duplicate


def getsockopt(self: Any, /, level: int, optname: int, buflen: int | None = None) -> int | bytes:
    found: int | bytes = ORIGINAL["getsockopt"](self, level, optname, buflen)
    if level == socket.SOL_SOCKET and optname == socket.SO_ERROR and found in (0, bytes(buflen or 0)[:4]):
        connection = existing_connection(self)
        if connection is not None and (error := connection.take_pending_error()):
            return struct.pack("i", error)[:buflen] if buflen else error
    return found


def setsockopt(self: Any, level: int, optname: int, *args: Any, **kwargs: Any) -> None:
    if level == socket.SOL_SOCKET and optname == socket.SO_OOBINLINE:
        _take_nothing_ahead(self)
    ORIGINAL["setsockopt"](self, level, optname, *args, **kwargs)


def _take_nothing_ahead(trio_socket: Any) -> None:
    trio_socket._uring_nothing_ahead = True
    for one in existing_sockets(trio_socket):
        one.take_nothing_ahead()


def _give_away(trio_socket: Any, what: str) -> None:
    """Has nothing be taken ahead any more. Raises RuntimeError if something was, in the call ``what``."""
    for one in existing_sockets(trio_socket):
        one.take_nothing_ahead()
    for one in (*existing_sockets(trio_socket), *marked_sockets(trio_socket)):
        if taken := one.taken_ahead:
            raise RuntimeError(f"{what}: {taken}")


def leave(
    self: Any,
    exc_type: type[BaseException] | None,
    exc_value: BaseException | None,
    traceback: TracebackType | None,
) -> None:
    """Stands in for ``__exit__``."""
    _drop(self)
    self._sock.__exit__(exc_type, exc_value, traceback)


def close(self: Any) -> None:
    if self._sock.fileno() < 0:  # perhaps it was closed below, and Trio tells nobody
        _drop_all(marked_sockets(self))
    ORIGINAL["close"](self)


def _drop(trio_socket: Any) -> None:
    """Drops all that there is for a socket. What is stale goes too: it holds the file that was closed."""
    _drop_all((*existing_sockets(trio_socket), *marked_sockets(trio_socket)))


def _drop_all(run_sockets: Iterable[RunSocket]) -> None:
    for one in run_sockets:
        if one.closed:
            continue
        if _is_of_this_run(one):
            one.drop()
        else:  # its ring is another thread's
            one.drop_soon()


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
