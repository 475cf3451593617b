"""What others put in the place of the standard library's sockets, and of the classes that Trio makes of
them, is called where Trio calls it, and nowhere else."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
from child_process import output_of
from equivalence import EPOLL, URING, Backend, every_backend
from trio.testing import wait_all_tasks_blocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("no_hanging")
both = pytest.mark.parametrize("backend", [EPOLL, URING], ids=["epoll", "io_uring"])


class RefusedError(Exception):
    """What a guard of the network raises."""


def refuse(*_: object, **__: object) -> Any:
    raise RefusedError


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@both
def test_a_guard_in_the_place_of_connect_is_called(
    backend: Backend, kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with trio.socket.socket(type=kind) as sock, pytest.raises(RefusedError):
            await sock.connect(("127.0.0.1", 9))

    monkeypatch.setattr(socket.socket, "connect", refuse)
    backend.run(main)


def test_what_replaces_another_method_after_trios_import_is_not_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        for name in ("recv", "recv_into", "recvfrom", "recvmsg", "send", "accept", "connect_ex"):
            monkeypatch.setattr(socket.socket, name, refuse)
        client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        async with listener, client, await listener.accept() as server:
            await client.send_all(b"1")
            assert await server.receive_some() == b"1"
            for method, arguments in (
                ("recv", (1,)),
                ("recvfrom", (1,)),
                ("recvmsg", (1,)),
                ("recv_into", (bytearray(1),)),
            ):
                await client.socket.send(b"2")
                await getattr(server.socket, method)(*arguments)
        with trio.socket.socket(type=socket.SOCK_DGRAM) as sock:
            await sock.bind(("127.0.0.1", 0))
            await sock.connect(sock.getsockname())
            await sock.send(b"3")
            assert await sock.recv(1) == b"3"

    URING.run(main)


REPLACED = """
%s
import socket

called = set()

def wrapped(name):
    method = getattr(socket.socket, name)
    def wrapper(*arguments):
        called.add(name)
        return method(*arguments)
    return wrapper

for name in ("recv", "send", "accept"):
    setattr(socket.socket, name, wrapped(name))

import trio, trio_uring

async def main():
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
    server = await listener.accept()
    called.discard("send")  # Trio's own wake-up has called it
    called.discard("recv")
    for _ in range(3):
        await client.send_all(b"x")
        await server.receive_some()
    print(*sorted(called), *getattr(trio.lowlevel.current_statistics().io_statistics, "wrapped", ()))

%s.run(main)
"""


def test_what_replaced_methods_before_trios_import_is_called_and_named() -> None:
    assert output_of(REPLACED % ("", "trio")) == "accept recv send\n"
    named = " socket.socket.recv socket.socket.send socket.socket.accept"
    assert output_of(REPLACED % ("", "trio_uring")) == f"accept recv send{named}\n"


@pytest.mark.parametrize("module", ["trio", "trio_uring"])
def test_what_replaced_methods_after_trios_import_and_before_ours_is_not_called(module: str) -> None:
    assert output_of(REPLACED % ("import trio", module)) == "\n"


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Puts a class that refuses into the place of the standard library's sockets, as pytest-socket does."""

    class Guarded(socket.socket):
        def __new__(cls, *_: object, **__: object) -> Any:
            raise RefusedError

    def guard() -> None:
        monkeypatch.setattr(socket, "socket", Guarded)

    yield guard
    monkeypatch.undo()


@every_backend
def test_a_class_that_refuses_is_told_to_who_accepts(backend: Backend, guarded: Callable[[], None]) -> None:
    async def refused(call: Callable[[], Any]) -> None:
        with pytest.raises(RefusedError):
            await call()

    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = listener.socket.getsockname()
        async with listener:
            with socket.socket() as waited_for, socket.socket() as at_once, socket.socket() as late:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(refused, listener.accept)
                    await wait_all_tasks_blocked()
                    guarded()
                    waited_for.connect(address)
                at_once.connect(address)
                await refused(listener.accept)
                late.connect(address)
                await refused(listener.socket.accept)

    backend.run(main)


@both
def test_accept_makes_what_trios_own_makes(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def from_stdlib_socket(sock: socket.socket) -> trio.socket.SocketType:
        made.append(sock)
        return original(sock)

    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        made.clear()
        async with listener:
            with socket.create_connection(listener.socket.getsockname()):
                async with await listener.accept() as server:
                    assert type(server) is stream
        assert len(made) == 1

    stream, original = trio.SocketStream, trio.socket.from_stdlib_socket
    monkeypatch.setattr(trio, "SocketStream", refuse)  # the names by which users ask
    monkeypatch.setattr(trio.socket, "from_stdlib_socket", refuse)
    monkeypatch.setattr("trio._socket.from_stdlib_socket", from_stdlib_socket)
    backend.run(main)


@both
def test_the_standard_librarys_class_is_not_asked_in_a_call(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with trio.socket.socket(type=socket.SOCK_DGRAM) as sock:
            await sock.bind(("127.0.0.1", 0))
            await sock.connect(sock.getsockname())
            monkeypatch.setattr(socket, "socket", object())
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def receive() -> None:
                    assert await sock.recv(1) == b"x"

                await wait_all_tasks_blocked()
                await sock.send(b"x")
            monkeypatch.undo()

    backend.run(main)
