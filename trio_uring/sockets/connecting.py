"""`connect` and `accept` of Trio's sockets, and `trio.SocketListener.accept`: these functions stand in for
them while runs are on io_uring.

In a run that is on epoll, and for a socket without an acceptor (acceptor.py), each calls Trio's own.

- `connect` calls connect(2) at once, as Trio does, which tells the errors of the call from those of
  the connection. A Unix socket is connected then, and over loopback the handshake is over; otherwise
  the task waits until the socket is writable. IORING_OP_CONNECT would be cheaper only where many tasks
  connect at once (microseconds of CPU time to make, connect and close a socket, medians of 15):

  =================  =======  ==============  =====
  tasks              at once  through a ring  epoll
  =================  =======  ==============  =====
  TCP, 1                  95              98    119
  TCP, 50                 65              59     91
  Unix, 1                 31              44     40
  Unix, 50                26              33     34
  =================  =======  ==============  =====

- `accept` takes a connection that was accepted ahead, or that waits in the backlog, or makes one submission.
"""

from __future__ import annotations

import _socket
import errno
import os
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

import trio
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    enable_ki_protection,
    wait_writable,
)

from .._tasks import is_current
from ..loop.operation import failure
from ..loop.trio_internals import Replaced, SocketListener, SocketType, trio_sockets, trio_streams
from ..loop.waiter import raise_closed
from .below import WRAPPED
from .lookup import ORIGINAL, by_readiness, is_ours, sockets_of_run

if TYPE_CHECKING:
    from .acceptor import Acceptor

_CONNECT: Final = _socket.socket.connect
_connect_ex: Final = _socket.socket.connect_ex
LISTENERS_ORIGINAL: Final[dict[str, Any]] = {}
_UNDER_WAY: Final = (errno.EINPROGRESS, errno.EALREADY, errno.EAGAIN)
_HANDSHAKES: Final = (b"\2", b"\3")
"""TCP_SYN_SENT; and TCP_SYN_RECV, where both sides connect."""
_SO_PEERNAME: Final = 28
# io_uring may give these answers, which accept(2) does not give while it waits.
_TRY_AGAIN: Final = (-errno.EAGAIN, -errno.EINTR)


async def connect(self: Any, address: Any) -> None:
    # A socket of another class may have a `connect` of its own, which is to be asked; so has any, if somebody
    # has replaced that of the standard library, to guard the network from tests.
    is_plain = type(self) is SocketType and type(self._sock) is socket.socket
    if not is_plain or type(self._sock).connect is not _CONNECT or sockets_of_run() is None:
        await ORIGINAL["connect"](self, address)
        return
    sock: socket.socket = self._sock
    waits = under_way = False
    try:
        address = await self._resolve_address_nocp(address, local=False)
        await checkpoint_if_cancelled()
        try:
            under_way = _begin(sock, address)
            waits = under_way and not _is_over(sock)
        finally:
            if not waits:
                await cancel_shielded_checkpoint()
        if waits:
            await wait_writable(sock)
        elif under_way and sock.fileno() < 0:  # on epoll the task would have waited
            raise_closed()
    except trio.Cancelled:
        sock.close()  # as Trio does: the handshake may go on
        raise
    if under_way and (error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
        raise OSError(error, f"Error connecting to {address!r}: {os.strerror(error)}")


def _begin(sock: socket.socket, address: Any) -> bool:
    """Calls connect(2). Returns whether the connection is still under way, where `socket.connect` raises
    BlockingIOError, which costs 10 us."""
    try:
        error = _connect_ex(sock, address)
    except Exception:
        error = None
    if error is None:
        sock.connect(address)  # raises the same exception, with `connect` in its words
    elif error and error not in _UNDER_WAY:
        raise failure(-error)
    return bool(error)


def _is_over(sock: socket.socket) -> bool:
    """Whether a TCP handshake is over. False for other sockets, of which it is not known."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) not in _HANDSHAKES
    except OSError:
        return False


@enable_ki_protection
async def accept(self: Any) -> tuple[Any, Any]:
    accepted, address = await accept_below(self)
    return trio_sockets.from_stdlib_socket(accepted), address


@enable_ki_protection
async def accept_below(self: Any) -> tuple[socket.socket, Any]:
    """Accepts a connection as the standard library's `accept` does: returns its own socket, and the peer's
    address."""
    acceptor = _acceptor_of(self)
    accepted = -errno.EAGAIN if acceptor is None else await acceptor.accept()
    if not isinstance(accepted, int):
        return accepted, _address_of_peer(accepted)
    if accepted in _TRY_AGAIN:
        return await by_readiness(self, "accept")  # type: ignore[no-any-return]
    raise failure(accepted)


@enable_ki_protection
async def accept_stream(self: trio.SocketListener) -> trio.SocketStream:
    acceptor = _acceptor_of(self.socket) if is_ours(self.socket.accept, accept) else None
    accepted = None if acceptor is None else await acceptor.accept()
    if accepted is not None and not isinstance(accepted, int):
        return trio_streams.SocketStream(trio_sockets.from_stdlib_socket(accepted))
    # Of an error Trio decides whether it is to be passed over: its accept meets it again.
    stream: trio.SocketStream = await LISTENERS_ORIGINAL["accept"](self)
    return stream


def _acceptor_of(trio_socket: Any) -> Acceptor | None:
    """Returns the socket's acceptor, if the calling task may accept by it. None if Trio's own method has to
    do it."""
    if type(trio_socket) is not SocketType or WRAPPED:
        return None
    sockets = sockets_of_run()
    if sockets is None or (sockets.acceptors.most_ahead and hasattr(trio_socket, "_uring_excluded")):
        return None
    acceptor: Acceptor | None = getattr(trio_socket, "_uring_acceptor", None)
    if (
        acceptor is None
        or acceptor.group is not sockets.acceptors
        or acceptor.closed
        or not is_current(acceptor)
    ):
        acceptor = sockets.acceptors.socket_of(trio_socket)
    if acceptor is None or acceptor.connections_ahead:
        return acceptor
    acceptor.finish()
    return None if acceptor.is_busy else acceptor


def _address_of_peer(sock: socket.socket) -> Any:
    """Returns the peer's address as accept(2) tells it, also for a connection that was reset since."""
    try:
        return sock.getpeername()
    except OSError:
        if sock.family == socket.AF_INET:
            name = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERNAME, 16)
            return socket.inet_ntop(socket.AF_INET, name[4:8]), int.from_bytes(name[2:4], "big")
        if sock.family != socket.AF_INET6:
            raise
        name = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERNAME, 28)
        host = socket.inet_ntop(socket.AF_INET6, name[8:24])
        port, flow = int.from_bytes(name[2:4], "big"), int.from_bytes(name[4:8], "big")
        return host, port, flow, int.from_bytes(name[24:], sys.byteorder)


REPLACEMENTS: Final = (
    Replaced(SocketType, {"accept": accept, "connect": connect}, ORIGINAL),
    Replaced(SocketListener, {"accept": accept_stream}, LISTENERS_ORIGINAL),
)
