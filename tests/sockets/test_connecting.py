"""`connect` of Trio's sockets: the same results, errors and ends as on epoll."""

from __future__ import annotations

import errno
import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import (
    EPOLL,
    PATIENCE,
    URING,
    Backend,
    descriptors_so_far,
    every_backend,
    every_ring,
    open_descriptors,
)
from pairs import result_of
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

NOWHERE = ("127.0.0.1", 1)
Address = tuple[str, int]


@asynccontextmanager
async def full_listener() -> AsyncIterator[socket.socket]:
    """Its backlog is full: whoever connects now waits until somebody is accepted."""
    with socket.socket() as listener, trio.socket.socket() as first:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        listener.settimeout(PATIENCE)
        await first.connect(listener.getsockname())
        yield listener


async def error_of(call: Callable[[], Awaitable[object]]) -> object:
    """All that can be seen of it, on any backend and with any port."""
    try:
        await call()
    except Exception as error:
        said = str(error)
        return type(error), getattr(error, "errno", None), said, error.__cause__, error.__suppress_context__
    return None


@every_backend
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_it_connects_and_is_a_checkpoint(
    backend: Backend, family: socket.AddressFamily, kind: socket.SocketKind, tmp_path: Path
) -> None:
    async def main() -> None:
        with socket.socket(family, kind) as peer, trio.socket.socket(family, kind) as sock:
            host = "::1" if family is socket.AF_INET6 else "127.0.0.1"
            peer.bind(str(tmp_path / "socket") if family is socket.AF_UNIX else (host, 0))
            if kind is socket.SOCK_STREAM:
                peer.listen()
            with assert_checkpoints():
                await sock.connect(peer.getsockname())
            assert sock.getpeername() == peer.getsockname()
            await sock.send(b"hello")
            with peer.accept()[0] if kind is socket.SOCK_STREAM else peer.dup() as receiver:
                assert receiver.recv(10) == b"hello"

    backend.run(main)


CALLS: dict[str, tuple[socket.AddressFamily, list[Any]]] = {
    "nobody listens": (socket.AF_INET, [NOWHERE]),
    "nobody listens, IPv6": (socket.AF_INET6, [("::1", 1, 0, 0)]),
    "tried again after a refusal": (socket.AF_INET, [NOWHERE] * 4),
    "no such path": (socket.AF_UNIX, ["/nonexistent/socket"]),
    "a path that is no socket": (socket.AF_UNIX, ["/dev/null"]),
    "a broadcast address": (socket.AF_INET, [("255.255.255.255", 1)]),
    "an address of another family": (socket.AF_INET, [("::1", 1), "/path", b"path"]),
    "a link-local address without a scope": (socket.AF_INET6, [("fe80::1", 1)]),
    "no address": (socket.AF_INET, [None, 5, ("127.0.0.1",), ("127.0.0.1", 1, 2)]),
    "no port": (socket.AF_INET, [("127.0.0.1", "no port"), ("127.0.0.1", -1), ("127.0.0.1", 65536)]),
    "a path that is too long": (socket.AF_UNIX, ["x" * 200]),
}


@every_ring
@pytest.mark.parametrize(("family", "addresses"), CALLS.values(), ids=CALLS)
def test_what_fails_fails_as_on_epoll(
    backend: Backend, family: socket.AddressFamily, addresses: list[Any]
) -> None:
    async def main() -> list[object]:
        with trio.socket.socket(family) as sock:
            errors = [await error_of(partial(sock.connect, address)) for address in addresses]
            return [*errors, sock.fileno() >= 0]

    expected = EPOLL.run(main)
    assert None not in expected
    assert backend.run(main) == expected


@every_backend
def test_a_refusal_names_the_address_and_the_reason(backend: Backend) -> None:
    async def main() -> None:
        with trio.socket.socket() as sock, pytest.raises(ConnectionRefusedError) as raised:
            await sock.connect(("localhost", 1))
        assert raised.value.errno == errno.ECONNREFUSED
        assert raised.value.strerror == f"Error connecting to {NOWHERE!r}: Connection refused"

    backend.run(main)


@every_backend
def test_a_connected_socket_is_not_connected_again(backend: Backend) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener, trio.socket.socket() as sock:
            await sock.connect(listener.getsockname())
            first = await error_of(partial(sock.connect, listener.getsockname()))
            second = await error_of(partial(sock.connect, NOWHERE))
            assert first == second or first is None  # the first one may be told of the success
            assert isinstance(second, tuple)
            assert second[1:3] == (errno.EISCONN, "[Errno 106] Transport endpoint is already connected")
            assert sock.getpeername() == listener.getsockname()

    backend.run(main)


@pytest.mark.parametrize("backend", [EPOLL, URING], ids=["epoll", "io_uring"])
def test_it_waits_for_a_handshake_and_others_are_told_that_it_does(backend: Backend) -> None:
    async def main() -> None:
        async with full_listener() as listener:
            with trio.socket.socket() as sock:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sock.connect, listener.getsockname())
                    await wait_all_tasks_blocked()
                    for call in (
                        partial(sock.connect, listener.getsockname()),
                        partial(trio.lowlevel.wait_writable, sock),
                    ):
                        with pytest.raises(trio.BusyResourceError):
                            await call()
                    listener.accept()[0].close()
                assert sock.getpeername() == listener.getsockname()
                await sock.send(b"hello")
                with listener.accept()[0] as accepted:
                    assert accepted.recv(10) == b"hello"

    backend.run(main)


@pytest.mark.parametrize("backend", [EPOLL, URING], ids=["epoll", "io_uring"])
def test_a_connection_that_another_call_has_begun_is_waited_for(backend: Backend) -> None:
    async def main() -> None:
        async with full_listener() as listener:
            with trio.socket.socket() as sock:
                begun: int = sock._sock.connect_ex(listener.getsockname())  # type: ignore[attr-defined]
                assert begun == errno.EINPROGRESS
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sock.connect, listener.getsockname())
                    await wait_all_tasks_blocked()
                    listener.accept()[0].close()
                assert sock.getpeername() == listener.getsockname()

    backend.run(main)


@every_backend
@pytest.mark.parametrize("begun", [True, False])
def test_a_cancelled_one_closes_the_socket(backend: Backend, begun: bool) -> None:
    async def main() -> None:
        async with full_listener() as listener:
            before = descriptors_so_far()
            sock = trio.socket.socket()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sock.connect, listener.getsockname())
                if begun:
                    await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            assert sock.fileno() == -1
            assert open_descriptors() == before

    backend.run(main)


@every_backend
def test_closing_in_another_task_ends_it(backend: Backend) -> None:
    async def main() -> None:
        async with full_listener() as listener:
            sock = trio.socket.socket()
            async with trio.open_nursery() as nursery:

                async def connect() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await sock.connect(listener.getsockname())

                nursery.start_soon(connect)
                await wait_all_tasks_blocked()
                sock.close()
            with pytest.raises(OSError, match="Bad file descriptor"):
                await sock.connect(listener.getsockname())

    backend.run(main)


@every_ring
def test_a_full_unix_listener_is_as_on_epoll(backend: Backend, tmp_path: Path) -> None:
    async def main(path: str) -> list[object]:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(0)
            socks = [trio.socket.socket(socket.AF_UNIX) for _ in range(3)]
            shown = [await error_of(partial(sock.connect, path)) for sock in socks]
            for sock in socks:
                shown.append(await error_of(partial(sock.send, b"x")))
                sock.close()
            return shown

    expected = EPOLL.run(partial(main, str(tmp_path / "on epoll")))
    assert backend.run(partial(main, str(tmp_path / "on io_uring"))) == expected


@every_backend
def test_happy_eyeballs_take_the_one_that_answers_and_close_the_others(backend: Backend) -> None:
    class Resolver(trio.abc.HostnameResolver):
        def __init__(self, *addresses: Address) -> None:
            self.addresses = addresses

        async def getaddrinfo(self, *_: object) -> Any:
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in self.addresses]

        async def getnameinfo(self, *_: object) -> Any:
            raise NotImplementedError

    async def main() -> None:
        async with full_listener() as full:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                addresses = NOWHERE, full.getsockname(), listener.getsockname()
                trio.socket.set_custom_hostname_resolver(Resolver(*addresses))
                before = descriptors_so_far()
                stream = await trio.open_tcp_stream("example.test", 1)
                assert open_descriptors() == before + 1
                assert stream.socket.getpeername() == listener.getsockname()
                await stream.aclose()
                trio.socket.set_custom_hostname_resolver(Resolver(NOWHERE, NOWHERE))
                with pytest.raises(OSError, match=r"all attempts to connect to example\.test") as raised:
                    await trio.open_tcp_stream("example.test", 1)
                said = f"[Errno 111] Error connecting to {NOWHERE!r}: Connection refused"
                errors: tuple[OSError, ...] = raised.value.__cause__.exceptions  # type: ignore[union-attr]
                assert {str(error) for error in errors} == {said}

    backend.run(main)


@every_backend
def test_many_connect_at_once_and_each_gets_its_own(backend: Backend) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
            socks = [trio.socket.socket() for _ in range(60)]
            async with trio.open_nursery() as nursery:
                for sock in socks:
                    nursery.start_soon(sock.connect, listener.getsockname())
            accepted = [listener.accept() for _ in socks]
            assert {address for _, address in accepted} == {sock.getsockname() for sock in socks}
            for sock in (*socks, *(sock for sock, _ in accepted)):
                sock.close()

    backend.run(main)


@every_backend
def test_a_socket_that_is_closed_as_it_connects_says_so(backend: Backend) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            for _ in range(20):  # which of the two runs first is up to Trio's dice
                sock = trio.socket.socket()
                told: list[object] = []
                expected: list[object] = []

                async def connect(sock: trio.socket.SocketType = sock, told: list[object] = told) -> None:
                    told.append("begun")
                    told.append(await result_of(partial(sock.connect, listener.getsockname())))

                async def close(
                    sock: trio.socket.SocketType = sock,
                    told: list[object] = told,
                    expected: list[object] = expected,
                ) -> None:
                    expected.append(trio.ClosedResourceError if told else OSError)
                    sock.close()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connect)
                    nursery.start_soon(close)
                assert told[1:] == expected
                if expected == [trio.ClosedResourceError]:
                    listener.accept()[0].close()

    backend.run(main)
