"""Programs that know nothing of us: anyio's streams, httpx and an h11 server, Trio's SSLStream, children.

On epoll they show what is right; on io_uring they have to show the same.
"""

from __future__ import annotations

import os
import random
import ssl
import sys
from contextlib import asynccontextmanager
from functools import partial
from socket import AF_INET, socketpair
from typing import TYPE_CHECKING, Any

import anyio
import h11
import httpx
import pytest
import trio
import trustme
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSListener
from equivalence import EPOLL, RINGS, URING, Backend
from pairs import reset, tcp_pair
from trio.testing import wait_all_tasks_blocked

from trio_uring import RingOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_hanging")

BACKENDS = [EPOLL, URING, RINGS[1], Backend("budget", RingOptions(checkpoint_budget=16))]
every_backend = pytest.mark.parametrize(
    "backend", BACKENDS, ids=lambda backend: backend.name.replace(" ", "-")
)

AUTHORITY = trustme.CA()
SERVER = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
AUTHORITY.issue_cert("localhost").configure_cert(SERVER)
CLIENT = ssl.create_default_context()
AUTHORITY.configure_trust(CLIENT)


def bytes_of(seed: object, size: int) -> bytes:
    return random.Random(repr(seed)).randbytes(size)


async def outcome_of(call: Callable[..., Awaitable[Any]], *args: object) -> object:
    try:
        return await call(*args)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
        return type(error).__name__
    except (anyio.BusyResourceError, anyio.EndOfStream, trio.BrokenResourceError) as error:
        return type(error).__name__


# anyio


async def echo(stream: Any) -> None:
    async with stream:
        async for data in stream:
            await stream.send(data)


async def tcp(path: Path) -> tuple[Any, Callable[[], Awaitable[Any]]]:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    return listener, partial(anyio.connect_tcp, "127.0.0.1", listener.extra(SocketAttribute.local_port))


async def tls(path: Path) -> tuple[Any, Callable[[], Awaitable[Any]]]:
    listener, connect = await tcp(path)
    client = partial(connect, ssl_context=CLIENT, tls_hostname="localhost", tls_standard_compatible=False)
    return TLSListener(listener, SERVER, standard_compatible=False), client


async def unix(path: Path) -> tuple[Any, Callable[[], Awaitable[Any]]]:
    return await anyio.create_unix_listener(path), partial(anyio.connect_unix, path)


@every_backend
@pytest.mark.parametrize("kind", [tcp, tls, unix])
def test_anyio_echoes_and_tells_of_its_ends(backend: Backend, kind: Any, tmp_path: Path) -> None:
    data = bytes_of("anyio", 1_000_000)

    async def main() -> list[object]:
        seen: list[object] = []
        listener, connect = await kind(tmp_path / "socket")
        async with anyio.create_task_group() as server:
            server.start_soon(listener.serve, echo)
            client = await connect()
            async with anyio.create_task_group() as group:
                group.start_soon(client.send, data)
                received = b""
                while len(received) < len(data):
                    received += await client.receive()
            assert received == data

            async def receive() -> None:
                seen.append(await outcome_of(client.receive))

            async with anyio.create_task_group() as group:
                group.start_soon(receive)
                await wait_all_tasks_blocked()
                seen.append(await outcome_of(client.receive))
                await getattr(client, "transport_stream", client).aclose()
            seen.append(await outcome_of(client.receive))
            seen.append(await outcome_of(client.send, b"x"))
            client = await connect()
            await client.send(b"x")
            seen.append(await client.receive())
            await getattr(client, "transport_stream", client).send_eof()
            seen.append(await outcome_of(client.receive))
            await client.aclose()
            server.cancel_scope.cancel()
        return seen

    ends = ["BusyResourceError", "ClosedResourceError", "ClosedResourceError", "ClosedResourceError"]
    assert backend.run(main) == [*ends, b"x", "EndOfStream"]


@every_backend
def test_anyio_passes_descriptors(backend: Backend, tmp_path: Path) -> None:
    async def answer(stream: anyio.abc.UNIXSocketStream) -> None:
        async with stream:
            message, (writable,) = await stream.receive_fds(10, 1)
            with os.fdopen(writable, "wb") as pipe:
                pipe.write(message)

    async def main() -> None:
        listener, connect = await unix(tmp_path / "socket")
        async with anyio.create_task_group() as server:
            server.start_soon(listener.serve, answer)
            async with await connect() as client:
                readable, writable = os.pipe()
                await client.send_fds(b"hello", [writable])
                os.close(writable)
                assert await outcome_of(client.receive) == "EndOfStream"
            server.cancel_scope.cancel()
        with os.fdopen(readable, "rb") as pipe:
            assert pipe.read() == b"hello"

    backend.run(main)


@every_backend
def test_anyio_sends_datagrams(backend: Backend) -> None:
    async def main() -> None:
        async with await anyio.create_udp_socket(family=AF_INET, local_host="127.0.0.1") as server:
            address = server.extra(SocketAttribute.local_address)
            async with await anyio.create_connected_udp_socket(*address) as client:
                for size in (1, 0, 1000, 60_000):
                    await client.send(bytes_of("udp", size))
                    data, sender = await server.receive()
                    await server.send((data[::-1], sender))
                    assert await client.receive() == bytes_of("udp", size)[::-1]

    backend.run(main)


# HTTP


async def serve_http(stream: trio.abc.Stream) -> None:
    """Answers every request of a connection with its body."""
    connection = h11.Connection(h11.SERVER)
    try:
        while True:
            body = b""
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    connection.receive_data(await stream.receive_some())
                elif isinstance(event, h11.ConnectionClosed):
                    return
                elif isinstance(event, h11.Data):
                    body += event.data
            headers = [("content-length", str(len(body)))]
            response = (
                h11.Response(status_code=200, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            )
            await stream.send_all(b"".join(connection.send(part) or b"" for part in response))
            connection.start_next_cycle()
    except (trio.BrokenResourceError, h11.RemoteProtocolError):
        return  # a client that was cancelled
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def http(*, encrypted: bool) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    async def serve(stream: trio.SocketStream) -> None:
        await serve_http(trio.SSLStream(stream, SERVER, server_side=True) if encrypted else stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), serve, 0)
        port = listeners[0].socket.getsockname()[1]
        async with httpx.AsyncClient(verify=CLIENT, trust_env=False, timeout=None) as client:
            yield client, f"http{'s' * encrypted}://localhost:{port}/"
        nursery.cancel_scope.cancel()


@every_backend
@pytest.mark.parametrize("encrypted", [False, True], ids=["http", "https"])
def test_httpx_gets_back_what_it_posts_while_others_are_cancelled(backend: Backend, encrypted: bool) -> None:
    async def main() -> None:
        choices = random.Random(0)
        async with http(encrypted=encrypted) as (client, url):

            async def post(size: int) -> None:
                body = bytes_of("http", size)
                assert (await client.post(url, content=body)).content == body

            async def post_some() -> None:
                for size in (0, 10, 100_000, 300_000):
                    await post(size)

            async def post_and_give_up() -> None:
                for _ in range(5):
                    with trio.move_on_after(choices.random() / 100):
                        await post(300_000)

            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(post_some)
                    nursery.start_soon(post_and_give_up)
            await post(1000)

    backend.run(main)


# Trio's SSLStream


async def half_close(stream: trio.SocketStream) -> None:
    await stream.send_eof()


async def break_off(stream: trio.SocketStream) -> None:
    reset(stream)


async def close_properly(stream: trio.SSLStream[trio.SocketStream]) -> None:
    await stream.aclose()


@pytest.mark.parametrize("backend", BACKENDS[1:], ids=lambda backend: backend.name.replace(" ", "-"))
@pytest.mark.parametrize("end", [half_close, break_off, close_properly])
def test_an_ssl_stream_tells_ends_apart_as_on_epoll(backend: Backend, end: Any) -> None:
    """What a half-closed one is told is for the version of OpenSSL to say."""

    async def main() -> object:
        client, server = await tcp_pair()
        stream = trio.SSLStream(client, CLIENT, server_hostname="localhost")
        other = trio.SSLStream(server, SERVER, server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"hello")
            assert await other.receive_some() == b"hello"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end, stream if end is close_properly else client)
            result = await outcome_of(other.receive_some)
            await trio.aclose_forcefully(other)
        await trio.aclose_forcefully(stream)
        return result

    assert backend.run(main) == EPOLL.run(main)


@every_backend
def test_a_stream_is_unwrapped_and_goes_on_in_the_clear(backend: Backend) -> None:
    async def main() -> None:
        client, server = await tcp_pair()
        stream = trio.SSLStream(client, CLIENT, server_hostname="localhost")
        other = trio.SSLStream(server, SERVER, server_side=True)
        rest: list[bytes] = []

        async def answer() -> None:
            assert await other.receive_some() == b"hello"
            assert await other.receive_some() == b""
            plain, trailing = await other.unwrap()
            await plain.send_all(b"clear")
            rest.append(trailing)

        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            await stream.send_all(b"hello")
            plain, trailing = await stream.unwrap()
            assert (trailing or await plain.receive_some()) == b"clear"
        assert rest == [b""]

    backend.run(main)


# Children


@every_backend
def test_a_child_filters_what_it_gets_by_pipes_and_by_a_socket(backend: Backend) -> None:
    data = bytes_of("child", 300_000)
    backwards = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])"

    async def main() -> None:
        done = await trio.run_process([sys.executable, "-c", backwards], stdin=data, capture_stdout=True)
        assert done.stdout == data[::-1]
        ours, theirs = socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        with theirs:
            command = [sys.executable, "-c", backwards]
            child = await trio.lowlevel.open_process(command, stdin=theirs, stdout=theirs)
        await stream.send_all(data)
        await stream.send_eof()
        assert b"".join([part async for part in stream]) == data[::-1]
        assert await child.wait() == 0
        await stream.aclose()

    backend.run(main)
