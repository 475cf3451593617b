"""Listeners for the tests of this folder, their clients, and whom they accept."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import trio
from equivalence import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable


async def listen() -> trio.SocketListener:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=200)
    return listener


def connect(listener: trio.SocketListener) -> socket.socket:
    """A socket of the standard library's, which goes past the run."""
    client = socket.create_connection(listener.socket.getsockname())
    client.settimeout(PATIENCE)
    return client


async def gets_in_order(
    accept: Callable[[], Awaitable[trio.SocketStream]], clients: Iterable[socket.socket]
) -> None:
    """What ``accept`` brings are the connections of ``clients``; both ends are closed."""
    for client in clients:
        with client:
            stream = await accept()
            assert stream.socket.getpeername() == client.getsockname()
            await stream.aclose()


def close_all(clients: Iterable[socket.socket]) -> None:
    for client in clients:
        client.close()
