"""Connections for the tests of this folder, on any backend."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import pytest
import trio

import trio_uring

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        return client, await listener.accept()


async def armed_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """A peer, and a stream that has received so often that a multishot receive is pending."""
    peer, stream = await tcp_pair()
    await arm(stream, peer_socket(peer))
    return peer, stream


async def arm(stream: trio.SocketStream, peer: socket.socket) -> None:
    for letter in (b"1", b"2", b"3"):
        peer.send(letter)
        assert await stream.receive_some() == letter


async def pair_with_unread_data(data: bytes) -> tuple[trio.SocketStream, trio.SocketStream]:
    """The same, and ``data`` has come, of which no tick has told yet."""
    peer, stream = await armed_pair()
    peer_socket(peer).send(data)
    return peer, stream


async def pair_with_data(data: bytes) -> tuple[trio.SocketStream, trio.SocketStream]:
    """The same, and ``data`` was read ahead, which nobody waited for."""
    before = bytes_read_ahead()
    peer, stream = await pair_with_unread_data(data)
    while reads_ahead() and bytes_read_ahead() < before + len(data):
        await trio.lowlevel.checkpoint()
    return peer, stream


def reads_ahead() -> bool:
    """Whether this run receives by completions."""
    statistics: object = trio.lowlevel.current_statistics().io_statistics
    return isinstance(statistics, trio_uring.UringStatistics) and "completions" in statistics.flags


def bytes_read_ahead() -> int:
    statistics: object = trio.lowlevel.current_statistics().io_statistics
    return statistics.bytes_read_ahead if isinstance(statistics, trio_uring.UringStatistics) else 0


def peer_socket(stream: trio.SocketStream) -> socket.socket:
    """The standard library's socket below: whatever uses it goes past the run."""
    sock: socket.socket = stream.socket._sock  # type: ignore[attr-defined]
    return sock


def sees_end(stream: trio.SocketStream) -> bool:
    """Whether the end has come already, without a tick."""
    try:
        return peer_socket(stream).recv(1) == b""
    except BlockingIOError:
        return False


def reset(stream: trio.SocketStream) -> None:
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def fails_with(
    error: type[BaseException], call: Callable[..., Awaitable[object]], *arguments: object
) -> None:
    """For a nursery, which starts it."""
    with pytest.raises(error):
        await call(*arguments)


async def result_of(call: Callable[[], Awaitable[object]]) -> object:
    """What ``call`` returns, or the type of the error that it raises."""
    try:
        return await call()
    except (Exception, trio.Cancelled) as error:
        if isinstance(error, trio.Cancelled):
            raise
        return type(error)
