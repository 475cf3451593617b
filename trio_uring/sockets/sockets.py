"""Trio's sockets: what their methods are replaced by while runs are on io_uring.

In a run that is on epoll, or without completions, each calls Trio's own: ``ORIGINAL``, or, where
that does no more, what is below it (`by_readiness`), which also those get who have it wrapped.

| call | how |
| --- | --- |
| recv, recv_into and their kin | sockets/receiving.py |
| send | with the tick (sockets/sender.py) if many tasks run, else tried |
| sendto, sendmsg | tried (sockets/attempts.py); Trio's own, if a name has to be looked up |
| close | Trio's own, and lets go of what was closed below it |
| shutdown | Trio's own, when what other tasks send has been submitted |
| fileno, detach, dup, ``wait_readable`` | let others receive and accept: nothing is taken ahead any more |
| ``trio.socket.fromfd`` | a copy of a descriptor that somebody else has: the same |
| setsockopt of SO_OOBINLINE | the same: urgent data are where they are on epoll |
| is_readable | asks the socket, and what was received and nobody has got |
| getsockopt of SO_ERROR | a reset that a multishot has heard of is told here, too |
| connect, accept | sockets/connecting.py |
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

import trio
from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection, wait_readable, wait_writable

from .._tasks import FEW_WOKEN, is_current
from ..loop.sleep import is_cancelled, sleep, yield_shielded
from ..loop.trio_internals import Replaced, SocketType, context
from .attempts import attempt, is_resolved

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

    from .acceptor import Acceptor
    from .connection import Connection
    from .connections import Connections
    from .sender import Sender

ORIGINAL: Final[dict[str, Any]] = {}
"""What Trio has by the names of the tables below, since they were first replaced."""
_WRITES: Final = frozenset({"send", "sendmsg", "sendto"})


def connection_of(trio_socket: Any) -> Connection | None:
    """The socket's connection in the run that calls. None: use Trio's own method."""
    if type(trio_socket) is not SocketType:  # a user's own may find ours by __getattr__
        return None
    connection: Connection | None = getattr(trio_socket, "_uring", None)
    runner = getattr(context, "runner", None)
    if connection is not None and connection.runner is runner and not connection.closed:
        if is_current(connection):
            return connection
        connection.drop()
    connections = connections_of_run()
    return None if connections is None else connections.connection_of(trio_socket)


def connections_of_run() -> Connections | None:
    """None on epoll, without completions, and outside of a run."""
    runner = getattr(context, "runner", None)
    connections: Connections | None = (
        None if runner is None else getattr(runner.io_manager, "connections", None)
    )
    return connections if connections is not None and connections.usable else None


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


# Plain functions where they can be: what is not ours costs no further frame. They take any
# arguments, since Trio leaves it to the standard library to refuse some, after a checkpoint.


def send(self: Any, *args: Any, **kwargs: Any) -> Awaitable[int]:
    if kwargs:  # it takes none
        return by_readiness(self, "send", *args, **kwargs)
    connection = connection_of(self)
    if connection is None:
        return send_as_it_is(self, "send", *args)
    return _send_part(self, connection, *args)


@enable_ki_protection
async def _send_part(self: Any, connection: Connection, *args: Any) -> int:
    if is_cancelled(context.task):
        await checkpoint_if_cancelled()
    # It may have been closed since the call that this coroutine is of.
    many = connection.run.woken > FEW_WOKEN and not connection.closed
    if many and len(args) == 1 and type(args[0]) is bytes and args[0]:
        sender = connection.part_sender or connection.new_part_sender()
        if sender.task is None:
            return await _send_with_others(self, connection, sender, args[0])
    connection.submit_sends()
    try:
        sent: int = self._sock.send(*args)
    except BlockingIOError:
        await wait_writable(self._sock)
        return await by_readiness(self, "send", *args)  # type: ignore[no-any-return]
    except BrokenPipeError as met:
        await yield_shielded()
        raise connection.reason(met) from None
    except BaseException:
        await yield_shielded()
        raise
    if not (connection.run.budget and connection.run.may_go_on()):
        await yield_shielded()
    return sent


async def _send_with_others(self: Any, connection: Connection, sender: Sender, data: bytes) -> int:
    sender.submit(connection, data, len(data), data, whole=False)
    await sleep(sender.message)
    result = sender.result
    if result >= 0:
        sender.finish()
        return result
    sender.progress(connection, result)
    await wait_writable(self._sock)
    return await by_readiness(self, "send", data)  # type: ignore[no-any-return]


def sendto(self: Any, *args: Any) -> Awaitable[int]:
    if len(args) in (2, 3) and is_resolved(self._sock, args[-1]):
        return send_as_it_is(self, "sendto", *args)
    return ORIGINAL["sendto"](self, *args)  # type: ignore[no-any-return]


def sendmsg(
    self: Any, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None, /
) -> Awaitable[int]:
    if address is None or is_resolved(self._sock, address):
        return send_as_it_is(self, "sendmsg", buffers, ancdata, flags, address)
    return ORIGINAL["sendmsg"](self, buffers, ancdata, flags, address)  # type: ignore[no-any-return]


def send_as_it_is(trio_socket: Any, name: str, *args: Any) -> Awaitable[int]:
    """Calls the standard library's method ``name``: the address, if there is one, is looked up."""
    run = connections_of_run()
    if run is None:
        return by_readiness(trio_socket, name, *args)
    connection = connection_of_known(trio_socket)
    if connection is not None:
        connection.submit_sends()
    return attempt(run, trio_socket._sock, wait_writable, getattr(socket.socket, name), *args)


def fileno(self: Any) -> int:
    """Whoever asks for the descriptor may read from it."""
    _take_nothing_ahead(self)
    return self._sock.fileno()  # type: ignore[no-any-return]


def is_readable(self: Any) -> bool:
    if ORIGINAL["is_readable"](self):
        return True
    # Afterwards: what a multishot takes is in the socket before, and then with us.
    return any(
        known.readable or (known.run is connections_of_run() and known.has_completed())
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
        if known.run is connections_of_run():
            known.drop()
        else:  # its ring is another thread's
            known.forsake()


def connection_of_known(trio_socket: Any) -> Connection | None:
    """The socket's connection, if it has one already, whichever run it belongs to."""
    connection: Connection | None = getattr(trio_socket, "_uring", None)
    if connection is None:  # another Trio socket on the same descriptor may have one
        if hasattr(trio_socket, "_uring_excluded"):
            return None
        connections = connections_of_run()
        if connections is None or connections.excludes(trio_socket) or not connections.by_fd:
            return None
        connection = connections.by_fd.get(trio_socket._sock.fileno())
        if connection is None or not connection.is_of(trio_socket._sock):
            return None
    return None if connection.closed or not is_current(connection) else connection


def acceptor_of_known(trio_socket: Any) -> Acceptor | None:
    """What accepts for the socket, if something does, in whichever run."""
    acceptor: Acceptor | None = getattr(trio_socket, "_uring_acceptor", None)
    if acceptor is None:  # another Trio socket on the same descriptor may have one
        connections = connections_of_run()
        if connections is None or not connections.acceptors.by_fd:
            return None
        acceptor = connections.acceptors.by_fd.get(trio_socket._sock.fileno())
        if acceptor is None or not acceptor.is_of(trio_socket._sock):
            return None
    return None if acceptor.closed or not is_current(acceptor) else acceptor


REPLACEMENTS: Final = (
    Replaced(SocketType, {"send": send, "sendto": sendto, "sendmsg": sendmsg, "close": close}, ORIGINAL),
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
