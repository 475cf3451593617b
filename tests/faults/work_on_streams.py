"""The part of the workload that is made of streams: TCP, Unix sockets, TLS and pipes."""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING, Any

import trio
import trustme

if TYPE_CHECKING:
    from work import Work

BYTES = 60_000
MOST = 20_000
CLIENTS = 4

Broken = (trio.BrokenResourceError, trio.ClosedResourceError)


# Both ways, and the end


async def exchange(work: Work, left: trio.abc.Stream, right: trio.abc.Stream) -> None:
    """Sends to both sides at once, and closes one."""
    async with trio.open_nursery() as nursery:
        for sender, receiver in ((left, right), (right, left)):
            nursery.start_soon(send, work, sender, BYTES)
            nursery.start_soon(receive, work, receiver, BYTES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.aclose)
        assert await right.receive_some(10) == b""
    await right.aclose()


async def send(work: Work, stream: trio.abc.SendStream, size: int) -> None:
    sent = 0
    while sent < size:
        piece = work.expected(sent, min(work.size(MOST), size - sent))
        if work.lossy and sent:
            piece, work.lossy = b"?" + piece[1:], False
        await send_somehow(work, stream, piece)
        sent += len(piece)


async def send_somehow(work: Work, stream: trio.abc.SendStream, piece: bytes) -> None:
    if isinstance(stream, trio.SocketStream) and work.choices.random() < 0.3:
        while piece:
            piece = piece[await stream.socket.send(piece) :]
        return
    if work.choices.random() < 0.2:
        await stream.send_all(bytearray(piece))
    else:
        await stream.send_all(piece)


async def receive(work: Work, stream: trio.abc.ReceiveStream, size: int) -> None:
    """All of it, though many of the receives are cancelled."""
    received = 0
    while received < size:
        data = None
        with work.patience():
            data = await receive_somehow(work, stream)
        if data is not None:
            assert data, f"the end after {received} of {size} bytes"
            work.check(data, received)
            received += len(data)
    assert received == size


async def receive_somehow(work: Work, stream: trio.abc.ReceiveStream) -> bytes:
    size = work.size(MOST)
    way = work.choices.random()
    if not isinstance(stream, trio.SocketStream) or way < 0.6:
        return bytes(await stream.receive_some(size))
    if way < 0.8:
        return await stream.socket.recv(size)
    buffer = bytearray(size)
    return bytes(buffer[: await stream.socket.recv_into(buffer)])


# Connections


async def echoes(work: Work) -> None:
    """Clients of a server, over TCP."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    await serve(work, listener, lambda: trio.open_tcp_stream(*listener.socket.getsockname()))


async def unix_echoes(work: Work) -> None:
    path = str(work.folder / "socket")
    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.bind(path)
    sock.listen(CLIENTS)
    await serve(work, trio.SocketListener(sock), lambda: trio.open_unix_socket(path))
    os.unlink(path)


async def serve(work: Work, listener: trio.SocketListener, connect: Any) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_all, work, listener, nursery)
        async with trio.open_nursery() as clients:
            for _ in range(CLIENTS):
                clients.start_soon(be_client, work, connect)
        await listener.aclose()


async def accept_all(work: Work, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
    """Nobody who has connected is forgotten, though many accepts are cancelled."""
    while True:
        stream = None
        try:
            with work.errors(), work.patience():
                if work.choices.random() < 0.5:
                    stream = await listener.accept()
                else:
                    stream = trio.SocketStream((await listener.socket.accept())[0])
        except trio.ClosedResourceError:
            return
        if stream is not None:
            nursery.start_soon(echo, work, stream)


async def echo(work: Work, stream: trio.SocketStream) -> None:
    received = 0
    async with stream:
        while True:
            data = None
            with work.patience():
                data = await receive_somehow(work, stream)
            if data == b"":
                break
            if data is not None:
                work.check(data, received)
                received += len(data)
                await send_somehow(work, stream, data)
        await stream.send_eof()


async def be_client(work: Work, connect: Any) -> None:
    async with await connect() as stream:
        stream.socket.getpeername()  # it is connected
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, work, stream, BYTES)
            await send(work, stream, BYTES)
            await stream.send_eof()
        assert await stream.receive_some(1) == b""


class Kept:
    """A connection that several runs use, one after the other: what one has left there, read ahead
    or still in the socket, the next one gets. Each ends with a receive in the kernel."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            left = socket.create_connection(listener.getsockname())
            right, _ = listener.accept()
        self.left, self.right = (
            trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in (left, right)
        )
        self.sent = self.received = 0

    async def go_on(self, work: Work) -> None:
        for _ in range(5):
            await self.left.send_all(expected_of_kept(self.sent, 3000))
            self.sent += 3000
            while self.sent - self.received > 2000:
                data = None
                with work.patience():
                    data = await self.right.receive_some(work.choices.randint(1, 1000))
                if data is not None:
                    assert data == expected_of_kept(self.received, len(data)), f"at {self.received}"
                    self.received += len(data)
                    work.checked += len(data)


def expected_of_kept(start: int, size: int) -> bytes:
    return bytes((place * place) % 251 for place in range(start, start + size))


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        left = await trio.open_tcp_stream(*listener.getsockname())
        right, _ = listener.accept()
        return left, trio.SocketStream(trio.socket.from_stdlib_socket(right))


async def unix_pair_exchanges(work: Work) -> None:
    left, right = (trio.SocketStream(end) for end in trio.socket.socketpair())
    await exchange(work, left, right)


_authority = trustme.CA()
_server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
_authority.issue_cert("localhost").configure_cert(_server_context)
_client_context = ssl.create_default_context()
_authority.configure_trust(_client_context)


async def tls_exchanges(work: Work) -> None:
    left, right = await tcp_pair()
    client = trio.SSLStream(left, _client_context, server_hostname="localhost")
    server = trio.SSLStream(right, _server_context, server_side=True)
    async with trio.open_nursery() as nursery:  # which cannot be cancelled and go on
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    await exchange(work, client, server)


async def pipe_exchanges(work: Work) -> None:
    reader, writer = os.pipe()
    async with trio.lowlevel.FdStream(reader) as source, trio.lowlevel.FdStream(writer) as sink:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, work, source, BYTES)
            await send(work, sink, BYTES)
        await sink.aclose()
        assert await source.receive_some(1) == b""


async def slowly(work: Work) -> None:
    """Little comes, and seldom: the run only waits, with a receive and an accept in the kernel."""
    left, right = await tcp_pair()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with left, right, listener, trio.open_nursery() as nursery:
        nursery.start_soon(accept_all, work, listener, nursery)
        nursery.start_soon(receive, work, right, 20)
        for place in range(20):
            await trio.sleep(0.002)
            await left.send_all(work.expected(place, 1))
        await listener.aclose()


# What is given up


async def given_up(work: Work) -> None:
    """A send that was cancelled may have sent a part: the stream is of no use any more, and what
    has come is the beginning."""
    for _ in range(3):
        sender, receiver = await tcp_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_beginning, work, receiver)
            sent = 0
            while True:
                data = work.expected(sent, 200_000)
                with trio.move_on_after(work.choices.choice((0, 0.0005, 0.005))) as scope:
                    await sender.send_all(data)
                    sent += len(data)
                if scope.cancelled_caught:
                    break
            await trio.aclose_forcefully(sender)


async def receive_beginning(work: Work, stream: trio.abc.ReceiveStream) -> None:
    received = 0
    async with stream:
        try:
            while data := bytes(await stream.receive_some(work.size(MOST))):
                work.check(data, received)
                received += len(data)
        except trio.BrokenResourceError:
            pass


async def closed_by_another(work: Work) -> None:
    """A task that receives, sends or accepts hears of it, and the peer sees the end."""
    for _ in range(3):
        left, right = await tcp_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_until_closed, left)
            nursery.start_soon(send_until_closed, work, left)
            await trio.sleep(work.choices.choice((0, 0.001)))
            left.socket.close()
            await receive_beginning(work, right)
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_until_closed, work, listener)
        await trio.sleep(work.choices.choice((0, 0.001)))
        listener.close()


async def receive_until_closed(stream: trio.SocketStream) -> None:
    try:
        await stream.receive_some(1)
    except trio.ClosedResourceError:
        return
    raise AssertionError("there was nothing to receive")


async def send_until_closed(work: Work, stream: trio.SocketStream) -> None:
    sent = 0
    try:
        while True:
            await stream.send_all(work.expected(sent, 50_000))
            sent += 50_000
    except trio.ClosedResourceError:
        return


async def accept_until_closed(work: Work, listener: trio.socket.SocketType) -> None:
    while True:
        with work.errors():
            try:
                await listener.accept()
            except (trio.ClosedResourceError, OSError) as error:
                if isinstance(error, trio.ClosedResourceError) or listener.fileno() < 0:
                    return
                raise


PARTS = (
    echoes,
    unix_echoes,
    unix_pair_exchanges,
    tls_exchanges,
    pipe_exchanges,
    given_up,
    closed_by_another,
)
