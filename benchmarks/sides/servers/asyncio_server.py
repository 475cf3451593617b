"""Servers on asyncio and on the loops that take its place, each written as asyncio's documentation advises.

    python -m sides.servers.asyncio_server --runtime RUNTIME --kind KIND

How much a transport receives at once is the loop's choice, not the program's: it is
256 KiB on asyncio. A client that resets its connection ends that connection, and nothing
else. A cancelled `serve_forever` waits for the clients to close, so it is not used.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

from sides.runtimes import ON_ASYNCIO, run_asyncio
from sides.servers.asyncio_control import serve_on_asyncio
from sides.servers.http import Requests
from sides.servers.start import BACKLOG, RECEIVE_SIZE, arguments, bound_socket, port, raise_open_files
from sides.servers.tls import server_context

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(RECEIVE_SIZE):
        writer.write(data)
        await writer.drain()


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    requests = Requests()
    while data := await reader.read(RECEIVE_SIZE):
        if responses := requests.answer(data):
            writer.write(responses)
            await writer.drain()


async def one_reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if data := await reader.read(RECEIVE_SIZE):
        writer.write(data)
        await writer.drain()


async def serve_streams(handler: Handler, bound: socket.socket, tls: ssl.SSLContext | None) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            with contextlib.closing(writer):
                await handler(reader, writer)
            await writer.wait_closed()

    server = await asyncio.start_server(handle, sock=bound, backlog=BACKLOG, limit=RECEIVE_SIZE, ssl=tls)
    with contextlib.closing(server):
        await asyncio.Event().wait()


async def serve_sockets(bound: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    tasks = set()
    while True:
        connection, _ = await loop.sock_accept(bound)
        task = loop.create_task(echo_on_socket(loop, connection))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def echo_on_socket(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    with connection, contextlib.suppress(ConnectionError):
        while data := await loop.sock_recv(connection, RECEIVE_SIZE):
            await loop.sock_sendall(connection, data)


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


async def serve_protocols(bound: socket.socket) -> None:
    server = await asyncio.get_running_loop().create_server(Echo, sock=bound, backlog=BACKLOG)
    with contextlib.closing(server):
        await asyncio.Event().wait()


class DatagramEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, client: tuple[str, int]) -> None:
        self._transport.sendto(data, client)


async def serve_datagrams(bound: socket.socket) -> None:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(DatagramEcho, sock=bound)
    with contextlib.closing(transport):
        await asyncio.Event().wait()


ON_STREAMS = {
    "streams": echo,
    "http": http,
    "connections": one_reply,
    "tls": echo,
    "tls-connections": one_reply,
    "tls-http": http,
}
OTHERS = {"sockets": serve_sockets, "protocols": serve_protocols, "udp": serve_datagrams}


async def serve(kind: str, tls: ssl.SSLContext | None, bound: socket.socket) -> None:
    if kind in ON_STREAMS:
        await serve_streams(ON_STREAMS[kind], bound, tls)
    else:
        await OTHERS[kind](bound)


def main() -> None:
    options = arguments(ON_ASYNCIO, [*ON_STREAMS, *OTHERS])
    raise_open_files()
    tls = server_context(options.certificate) if options.certificate else None
    bound = bound_socket(options.kind)
    run_asyncio(
        options.runtime, partial(serve_on_asyncio, port(bound), partial(serve, options.kind, tls, bound))
    )


if __name__ == "__main__":
    main()
