"""Wrappers around what is replaced in Trio, and a program that calls all of it.

Imports neither trio_uring nor what would, for programs that patch Trio before that."""

from __future__ import annotations

import functools
import os
import socket
import ssl
from typing import Any

import trio
import trustme
from trio._socket import _SocketType

_AUTHORITY = trustme.CA()
_SERVER = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
_CLIENT = ssl.create_default_context()
_AUTHORITY.issue_cert("localhost").configure_cert(_SERVER)
_AUTHORITY.configure_trust(_CLIENT)

OWNERS: dict[str, Any] = {
    "SocketType": _SocketType,
    "SocketStream": trio.SocketStream,
    "SocketListener": trio.SocketListener,
    "SSLStream": trio.SSLStream,
    "FdStream": trio.lowlevel.FdStream,
    "socket": trio.socket,
    "trio": trio,
}
NAMES = (
    "SocketType.send",
    "SocketType.sendto",
    "SocketType.sendmsg",
    "SocketType.recv",
    "SocketType.recv_into",
    "SocketType.recvfrom",
    "SocketType.recvfrom_into",
    "SocketType.recvmsg",
    "SocketType.recvmsg_into",
    "SocketType.accept",
    "SocketType.connect",
    "SocketType.fileno",
    "SocketType.is_readable",
    "SocketType.shutdown",
    "SocketType.detach",
    "SocketType.dup",
    "SocketType.getsockopt",
    "SocketType.setsockopt",
    "SocketType.close",
    "SocketType.__exit__",
    "SocketStream.receive_some",
    "SocketStream.send_all",
    "SocketStream.wait_send_all_might_not_block",
    "SocketStream.aclose",
    "SocketListener.accept",
    "SSLStream.receive_some",
    "SSLStream.send_all",
    "SSLStream.wait_send_all_might_not_block",
    "SSLStream._retry",
    "FdStream.receive_some",
    "FdStream.send_all",
    "socket.fromfd",
    "trio.aclose_forcefully",
)


def find(name: str) -> tuple[Any, str]:
    owner, _, attribute = name.partition(".")
    return OWNERS[owner], attribute


def held(name: str) -> Any:
    owner, attribute = find(name)
    return vars(owner)[attribute]


def put(name: str, function: Any) -> None:
    owner, attribute = find(name)
    setattr(owner, attribute, function)


TRIOS = {name: held(name) for name in NAMES}
"""What Trio has there, if nobody has patched it before this was imported."""


class Wrapper:
    """Counts the calls, and calls what it was put over, or what it is told to."""

    def __init__(self, name: str, below: Any = None) -> None:
        self.calls = 0
        self.name = name
        self.below = below or held(name)

        @functools.wraps(self.below)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return self.below(*args, **kwargs)

        self.function = wrapper

    def put(self) -> None:
        put(self.name, self.function)

    @property
    def is_there(self) -> bool:
        return held(self.name) is self.function


async def call_everything() -> list[object]:
    """What it has seen: the same on every backend."""
    seen: list[object] = []
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = listener.socket.getsockname()
    near = trio.socket.socket()
    await near.connect(address)
    server = await listener.accept()
    client = trio.SocketStream(near)
    await _stream(client, server, seen)
    await _receives(client, server.socket, seen)
    await _sends(near, server, seen)
    near.shutdown(socket.SHUT_WR)
    seen.append(await server.receive_some())
    await client.aclose()
    await trio.aclose_forcefully(server)
    await _encrypted(listener, seen)
    await _handing_over(listener, seen)
    await listener.aclose()
    await _pipe(seen)
    return seen


async def _stream(client: trio.SocketStream, server: trio.SocketStream, seen: list[object]) -> None:
    for number in range(4):
        await client.wait_send_all_might_not_block()
        await client.send_all(b"%d: to the server" % number)
        seen.append(await server.receive_some(3))
        seen.append(await _exactly(server.socket.recv, 13))
        await server.send_all(b"to the client")
        seen.append(await client.receive_some())
    await client.send_all(b"")


async def _exactly(recv: Any, length: int) -> bytes:
    data = b""
    while len(data) < length:
        data += await recv(length - len(data))
    return data


async def _receives(client: trio.SocketStream, sock: Any, seen: list[object]) -> None:
    """Each takes a part of what came at once, of which the first has the rest read ahead."""
    buffer = bytearray(4)
    for _ in range(2):
        await client.send_all(b"abcdefghijklmnopqrstuvwxyz")
        seen.append(await sock.recv(4))
        await trio.testing.wait_all_tasks_blocked()
        seen.append(sock.is_readable())
        seen.append((await sock.recv_into(buffer), bytes(buffer)))
        seen.append((await sock.recvfrom(4))[0])
        seen.append(((await sock.recvfrom_into(buffer))[0], bytes(buffer)))
        seen.append((await sock.recvmsg(4))[0])
        seen.append(((await sock.recvmsg_into([buffer]))[0], bytes(buffer)))
        seen.append(await sock.recv(1, socket.MSG_PEEK))
        seen.append(await sock.recv(100))
        seen.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        seen.append(sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1))


async def _sends(sock: Any, server: trio.SocketStream, seen: list[object]) -> None:
    seen.append(await sock.send(b"send"))
    seen.append(await sock.sendmsg([b"send", b"msg"]))
    seen.append(await _exactly(server.receive_some, 11))
    one, other = (trio.socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
    with one, other:
        await one.bind(("127.0.0.1", 0))
        seen.append(await other.sendto(b"datagram", one.getsockname()))
        seen.append(await one.recv(100))


async def _encrypted(listener: trio.SocketListener, seen: list[object]) -> None:
    near = trio.socket.socket()
    await near.connect(listener.socket.getsockname())
    client = trio.SSLStream(trio.SocketStream(near), _CLIENT, server_hostname="localhost")
    server = trio.SSLStream(await listener.accept(), _SERVER, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    for number in range(3):
        await client.wait_send_all_might_not_block()
        await client.send_all(b"%d: to the server" % number)
        seen.append(await server.receive_some(3))
        seen.append(await server.receive_some())
        await server.send_all(b"to the client")
        seen.append(await client.receive_some())
    await client.aclose()
    seen.append(await server.receive_some())
    await server.aclose()


async def _handing_over(listener: trio.SocketListener, seen: list[object]) -> None:
    near = trio.socket.socket()
    await near.connect(listener.socket.getsockname())
    far, _ = await listener.socket.accept()
    with far.dup() as duplicate, trio.socket.fromfd(far.fileno(), far.family, far.type) as another:
        for receiver in (far, duplicate, another):
            await near.send(b"whose?")
            seen.append(await receiver.recv(100))
    with socket.socket(fileno=far.detach()) as plain:
        plain.setblocking(True)
        await near.send(b"whose?")
        seen.append(plain.recv(100))
    near.close()


async def _pipe(seen: list[object]) -> None:
    reader, writer = map(trio.lowlevel.FdStream, os.pipe())
    async with reader, writer:
        for number in range(3):
            await writer.send_all(b"%d: by the pipe" % number)
            seen.append(await reader.receive_some(3))
            seen.append(await reader.receive_some())
        await writer.aclose()
        seen.append(await reader.receive_some())
