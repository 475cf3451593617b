"""`connect` and `accept` of Trio's sockets, and `trio.SocketListener.accept`: what they are
replaced by while runs are on io_uring.

In a run that is on epoll, and on sockets that have no acceptor (accepting.py), they are Trio's.

- `connect` is tried at once, as by Trio, which tells errors of the attempt from those of
  the connection and starts it within the call. An attempt through the ring cost a
  connection over loopback 86 us of CPU time where this one cost 73 and Trio's on epoll 104
  (with fifty tasks at it: 56, 67 and 97), and Unix sockets 49 instead of 40, whose `connect`
  never waits. Over loopback a handshake is over when the call returns; otherwise the ring waits.
- `accept` is one submission for each call, or takes who was accepted ahead.
"""

from __future__ import annotations

import errno
import functools
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

from .internals import SocketType
from .operation import failure
from .sockets import ORIGINAL, connections_of_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from .accepting import Acceptor

_accept_stream: Final = trio.SocketListener.accept
_SYN_SENT: Final = b"\2"
_SO_PEERNAME: Final = 28
# What io_uring may answer and accept(2) does not.
_TRY_AGAIN: Final = (-errno.EAGAIN, -errno.EINTR)


async def connect(self: Any, address: Any) -> None:
    if type(self) is not SocketType or connections_of_run() is None:
        await ORIGINAL["connect"](self, address)
        return
    sock: socket.socket = self._sock
    try:
        address = await self._resolve_address_nocp(address, local=False)
        await checkpoint_if_cancelled()
        under_way = False
        try:
            sock.connect(address)
            return
        except BlockingIOError:
            under_way = _is_under_way(sock)
        finally:
            if not under_way:
                await cancel_shielded_checkpoint()
        if under_way:
            await wait_writable(sock)
    except trio.Cancelled:
        sock.close()  # nothing is known of it any more
        raise
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, f"Error connecting to {address!r}: {os.strerror(error)}")


def _is_under_way(sock: socket.socket) -> bool:
    """False if the handshake is over; of what is not TCP nothing is known."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == _SYN_SENT
    except OSError:
        return True


@enable_ki_protection
async def accept(self: Any) -> tuple[Any, Any]:
    acceptor = _acceptor_of(self)
    accepted = -errno.EAGAIN if acceptor is None else await acceptor.accept()
    if isinstance(accepted, socket.socket):
        return trio.socket.from_stdlib_socket(accepted), _address_of_peer(accepted)
    if accepted in _TRY_AGAIN:
        return await ORIGINAL["accept"](self)  # type: ignore[no-any-return]
    raise failure(accepted)


@enable_ki_protection
async def accept_stream(self: trio.SocketListener) -> trio.SocketStream:
    acceptor = _acceptor_of(self.socket)
    accepted = None if acceptor is None else await acceptor.accept()
    if isinstance(accepted, socket.socket):
        return trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
    # Trio knows which errors are to be passed over, and meets the others again.
    return await _accept_stream(self)


def _acceptor_of(trio_socket: Any) -> Acceptor | None:
    """None: Trio's own method accepts."""
    if type(trio_socket) is not SocketType:
        return None
    connections = connections_of_run()
    acceptor = None if connections is None else connections.acceptors.acceptor_of(trio_socket)
    return None if acceptor is None or (acceptor.busy and not acceptor.ahead) else acceptor


def _address_of_peer(sock: socket.socket) -> Any:
    """As accept(2) tells it: also of a connection that was reset since."""
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


REPLACEMENTS: Final[dict[str, Callable[..., Any]]] = {"accept": accept, "connect": connect}
LISTENER_REPLACEMENTS: Final[dict[str, Callable[..., Any]]] = {"accept": accept_stream}
for _name, _function in REPLACEMENTS.items():
    functools.update_wrapper(_function, ORIGINAL[_name], updated=())
functools.update_wrapper(accept_stream, _accept_stream, updated=())
