"""Servers on Trio, each written as Trio's documentation advises.

    python -m sides.servers.trio_server --runtime RUNTIME --kind KIND

A client that resets its connection ends that connection, and nothing else.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial

import trio
from trio.abc import Listener, Stream

from sides.runtimes import TRIO, run_trio
from sides.servers.http import Requests
from sides.servers.start import DATAGRAM_SIZE, RECEIVE_SIZE, arguments, bound_socket, port, raise_open_files
from sides.servers.tls import server_context
from sides.servers.trio_control import serve_on_trio


async def echo(stream: Stream) -> None:
    while data := await stream.receive_some(RECEIVE_SIZE):
        await stream.send_all(data)


async def http(stream: Stream) -> None:
    requests = Requests()
    while data := await stream.receive_some(RECEIVE_SIZE):
        if responses := requests.answer(data):
            await stream.send_all(responses)


async def one_reply(stream: Stream) -> None:
    if data := await stream.receive_some(RECEIVE_SIZE):
        await stream.send_all(data)


async def serve_streams(
    handler: Callable[[Stream], Awaitable[None]], bound: trio.socket.SocketType, tls: ssl.SSLContext | None
) -> None:
    async def handle(stream: Stream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                await handler(stream)

    plain = trio.SocketListener(bound)
    listener: Listener[Stream] = trio.SSLListener(plain, tls, https_compatible=True) if tls else plain
    await trio.serve_listeners(handle, [listener])


async def serve_sockets(bound: trio.socket.SocketType) -> None:
    async with trio.open_nursery() as nursery:
        while True:
            connection, _ = await bound.accept()
            nursery.start_soon(echo_on_socket, connection)


async def echo_on_socket(connection: trio.socket.SocketType) -> None:
    with connection, contextlib.suppress(ConnectionError):
        while data := await connection.recv(RECEIVE_SIZE):
            sent = await connection.send(data)
            while sent < len(data):
                sent += await connection.send(memoryview(data)[sent:])


async def serve_datagrams(bound: trio.socket.SocketType) -> None:
    while True:
        data, client = await bound.recvfrom(DATAGRAM_SIZE)
        await bound.sendto(data, client)


async def serve_batches(bound: trio.socket.SocketType) -> None:
    from trio_uring import Datagrams

    async with Datagrams(bound, count=64, size=DATAGRAM_SIZE) as datagrams:
        while True:
            await datagrams.send([(each.data, each.address) for each in await datagrams.receive()])


ON_STREAMS = {
    "streams": echo,
    "http": http,
    "connections": one_reply,
    "tls": echo,
    "tls-connections": one_reply,
    "tls-http": http,
}
ON_SOCKETS = {"sockets": serve_sockets, "udp": serve_datagrams, "udp-batches": serve_batches}


async def serve(kind: str, tls: ssl.SSLContext | None, bound: socket.socket) -> None:
    trio_socket = trio.socket.from_stdlib_socket(bound)
    if kind in ON_STREAMS:
        await serve_streams(ON_STREAMS[kind], trio_socket, tls)
    else:
        await ON_SOCKETS[kind](trio_socket)


def main() -> None:
    options = arguments(TRIO, [*ON_STREAMS, *ON_SOCKETS])
    raise_open_files()
    tls = server_context(options.certificate) if options.certificate else None
    bound = bound_socket(options.kind)
    run_trio(options.runtime, partial(serve_on_trio, port(bound), partial(serve, options.kind, tls, bound)))


if __name__ == "__main__":
    main()
