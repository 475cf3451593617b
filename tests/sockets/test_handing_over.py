"""A socket in several hands: detached, duplicated, known twice, waited for by hand, wrapped.

What was read ahead is in the run and no longer in the kernel: it is received first, or
giving the socket away is an error that says so.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import pytest
import trio
from equivalence import URING, Backend, every_backend, every_ring, needs_completions
from pairs import armed_pair, fails_with, pair_with_data, pair_with_unread_data, peer_socket, tcp_pair
from trio.lowlevel import wait_readable
from trio.testing import wait_all_tasks_blocked

import trio_uring

pytestmark = [pytest.mark.usefixtures("no_hanging"), needs_completions]

RECEIVERS: dict[str, Any] = {
    "recv": lambda sock: sock.recv(100),
    "recvfrom": lambda sock: sock.recvfrom(100),
    "recvmsg": lambda sock: sock.recvmsg(100),
    "recv with a flag": lambda sock: sock.recv(100, socket.MSG_DONTWAIT),
    "peek": lambda sock: sock.recv(100, socket.MSG_PEEK),
}

GIVING: dict[str, Any] = {
    "detach": lambda sock: socket.socket(fileno=sock.detach()),
    "dup": lambda sock: sock.dup(),
    "fromfd": lambda sock: trio.socket.fromfd(sock.fileno(), socket.AF_INET, socket.SOCK_STREAM),
}


def data_of(result: object) -> object:
    return result[0] if isinstance(result, tuple) else result


@every_ring
@pytest.mark.parametrize("twin", [False, True], ids=["itself", "twin"])
@pytest.mark.parametrize("method", ["detach", "dup"])
def test_a_socket_with_data_read_ahead_is_not_given_away_and_loses_nothing(
    backend: Backend, method: str, twin: bool
) -> None:
    async def main() -> None:
        peer, stream = await pair_with_data(b"read ahead")
        sock = trio.socket.from_stdlib_socket(peer_socket(stream)) if twin else stream.socket
        async with peer:
            with pytest.raises(RuntimeError, match=rf"^{method}: 10 bytes were read ahead"):
                GIVING[method](sock)
            assert stream.socket.fileno() >= 0
            assert await stream.receive_some(5) == b"read "
            with pytest.raises(RuntimeError, match=rf"^{method}: 5 bytes were read ahead"):
                GIVING[method](sock)
            assert await stream.receive_some() == b"ahead"
            given = GIVING[method](sock)
            new = given if method == "detach" else given._sock
            peer_socket(peer).send(b"for the new owner")
            with new:
                assert new.recv(100) == b"for the new owner"
        await stream.aclose()

    backend.run(main)


@every_ring
@pytest.mark.parametrize("method", ["detach", "dup"])
def test_what_an_earlier_run_had_read_ahead_is_not_given_away(backend: Backend, method: str) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match=rf"^{method}: 10 bytes were read ahead"):
            getattr(stream.socket, method)()

    with trio_uring.installed(backend.ring):
        peer, stream = trio.run(read_ahead_in_a_run)
        with peer_socket(peer), peer_socket(stream):
            with pytest.raises(RuntimeError, match=rf"^{method}: 10 bytes were read ahead"):
                getattr(stream.socket, method)()
            trio.run(main)
            assert trio.run(stream.receive_some) == b"read ahead"


@every_backend
@pytest.mark.parametrize("twin", [False, True], ids=["itself", "twin"])
def test_a_detached_descriptor_gets_all_that_comes(backend: Backend, twin: bool) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        given = trio.socket.from_stdlib_socket(peer_socket(stream)) if twin else stream.socket
        number = given.detach()
        assert stream.socket.fileno() == given.detach() == -1
        peer_socket(peer).send(b"1")
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        with socket.socket(fileno=number) as sock:
            assert sock.recv(10) == b"1"
        assert await peer.receive_some() == b""
        await peer.aclose()

    backend.run(main)


@every_backend
def test_detach_ends_the_receive_of_another_task_or_leaves_it(backend: Backend) -> None:
    """On epoll that task sleeps on; here, where nothing would end its receive, it is told."""

    async def main() -> None:
        peer, stream = await armed_pair()
        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope
            error = trio.ClosedResourceError if backend.ring else trio.Cancelled
            nursery.start_soon(fails_with, error, stream.receive_some)
            await wait_all_tasks_blocked()
            os.close(stream.socket.detach())
            if not backend.ring:
                scope.cancel()
        assert await peer.receive_some() == b""
        await peer.aclose()

    backend.run(main)


@every_backend
@pytest.mark.parametrize("method", ["dup", "fromfd"])
@pytest.mark.parametrize("receive", RECEIVERS.values(), ids=RECEIVERS)
def test_two_duplicates_share_what_comes(backend: Backend, receive: Any, method: str) -> None:
    """However often one has received, it takes nothing that it has not asked for."""

    async def main() -> None:
        peer, stream = await tcp_pair()
        first, second = stream.socket, GIVING[method](stream.socket)
        with first, second:
            for sock, other in ((first, second), (second, first)) * 2:
                for letter in (b"1", b"2", b"3"):
                    peer_socket(peer).send(letter)
                    assert await sock.recv(10) == letter
                await trio.lowlevel.checkpoint()
                peer_socket(peer).send(b"for the other")
                for _ in range(3):
                    await trio.lowlevel.checkpoint()
                assert data_of(await receive(other)) == b"for the other"
                if receive is RECEIVERS["peek"]:
                    await other.recv(100)
        await peer.aclose()

    backend.run(main)


@every_backend
@pytest.mark.parametrize("receive", RECEIVERS.values(), ids=RECEIVERS)
def test_a_socket_that_trio_knows_twice_is_one(backend: Backend, receive: Any) -> None:
    async def main() -> None:
        peer, stream = await pair_with_data(b"read ahead")
        twin = trio.socket.from_stdlib_socket(peer_socket(stream))
        assert twin.is_readable()
        assert data_of(await receive(twin)) == b"read ahead"
        if receive is RECEIVERS["peek"]:
            assert await stream.receive_some() == b"read ahead"
        await peer.send_all(b"1")
        assert await stream.receive_some() == b"1"
        twin.close()
        assert await peer.receive_some() == b""
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        await peer.aclose()

    backend.run(main)


@every_backend
def test_who_knows_the_descriptor_may_read_from_it(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        number = stream.socket.fileno()
        for _ in range(3):
            peer_socket(peer).send(b"1")
            await wait_readable(number)
            assert os.read(number, 10) == b"1"
            peer_socket(peer).send(b"2")
            assert await stream.receive_some() == b"2"
            peer_socket(peer).send(b"3")
            await wait_readable(stream.socket)
            assert stream.socket.is_readable()
            assert await stream.receive_some() == b"3"
            assert not stream.socket.is_readable()
        await peer.aclose()
        await stream.aclose()

    backend.run(main)


@every_backend
def test_data_that_is_read_ahead_is_readable(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await pair_with_data(b"read ahead")
        assert stream.socket.is_readable()
        await wait_readable(stream.socket)
        await wait_readable(peer_socket(stream))
        assert await stream.receive_some() == b"read ahead"
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_readable, stream.socket)
                await wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await stream.receive_some()
                scope.cancel()
        await peer.aclose()
        await stream.aclose()

    backend.run(main)


@every_backend
def test_the_end_is_readable(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        await peer.aclose()
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        assert stream.socket.is_readable()
        await wait_readable(stream.socket)
        assert await stream.receive_some() == b""
        await wait_readable(stream.socket)
        assert await stream.receive_some() == b""
        await stream.aclose()

    backend.run(main)


@every_backend
def test_a_child_process_takes_over_a_socket(backend: Backend) -> None:
    code = "import socket, sys; s = socket.socket(fileno=0); s.setblocking(True); s.sendall(s.recv(100) * 2)"

    async def main() -> None:
        peer, stream = await armed_pair()
        async with peer, stream, trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: trio.run_process([sys.executable, "-c", code], stdin=stream.socket.fileno())
            )
            await peer.send_all(b"ab")
            assert await peer.receive_some() == b"abab"

    backend.run(main)


@every_backend
@pytest.mark.parametrize(
    "bad",
    [b"12345678", memoryview(b"12345678"), "text", memoryview(bytearray(8))[::2]],
    ids=["bytes", "read-only", "text", "strided"],
)
def test_a_buffer_that_cannot_be_filled_loses_nothing(backend: Backend, bad: Any) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        await peer.send_all(b"precious")
        with pytest.raises((TypeError, BufferError)):
            await stream.socket.recv_into(bad)
        assert await stream.receive_some() == b"precious"
        await peer.aclose()
        await stream.aclose()

    backend.run(main)


@every_backend
def test_a_buffer_that_is_resized_meanwhile_loses_nothing(backend: Backend) -> None:
    """On epoll what fits is taken; the kernel's memory may not be resized."""

    async def main() -> None:
        peer, stream = await armed_pair()
        buffer = bytearray(8)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.socket.recv_into, buffer)
            await wait_all_tasks_blocked()
            if backend.ring:
                with pytest.raises(BufferError):
                    del buffer[2:]
            else:
                del buffer[2:]
            await peer.send_all(b"precious")
        await peer.aclose()
        rest = b""
        async for data in stream:
            rest += data
        assert buffer + rest == b"precious"
        await stream.aclose()

    backend.run(main)


class Counting(trio.socket.SocketType):
    """A user's own class, around one of Trio's."""

    def __init__(self, inner: trio.socket.SocketType) -> None:
        self.inner = inner
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def type(self) -> socket.SocketKind:  # type: ignore[override]
        return self.inner.type

    @property
    def family(self) -> socket.AddressFamily:  # type: ignore[override]
        return self.inner.family

    @property
    def did_shutdown_SHUT_WR(self) -> bool:  # noqa: N802
        return self.inner.did_shutdown_SHUT_WR

    def setsockopt(self, *args: Any) -> None:
        self.inner.setsockopt(*args)

    def close(self) -> None:
        self.inner.close()

    async def recv(self, *args: Any) -> bytes:  # type: ignore[override]
        self.calls.append("recv")
        return await self.inner.recv(*args)

    async def send(self, *args: Any) -> int:  # type: ignore[override]
        self.calls.append("send")
        return await self.inner.send(*args)


@every_backend
def test_a_class_of_the_users_is_asked_every_time(backend: Backend) -> None:
    async def main() -> list[str]:
        peer, stream = await tcp_pair()
        counting = Counting(stream.socket)
        wrapped = trio.SocketStream(counting)
        for letter in (b"1", b"2", b"3"):
            await peer.send_all(letter)
            assert await wrapped.receive_some() == letter
            await wrapped.send_all(letter)
        await wrapped.aclose()
        await peer.aclose()
        return counting.calls

    assert backend.run(main) == ["recv", "send"] * 3


@every_backend
def test_a_factory_of_the_users_makes_the_sockets(backend: Backend) -> None:
    class Factory(trio.abc.SocketFactory):
        made: list[Counting] = []  # noqa: RUF012

        def socket(self, *args: Any) -> Counting:
            given = [arg for arg in args if arg is not None]
            self.made.append(Counting(trio.socket.from_stdlib_socket(socket.socket(*given))))
            return self.made[-1]

    async def main() -> None:
        trio.socket.set_custom_socket_factory(Factory())
        sock = trio.socket.socket()
        assert [sock] == Factory.made
        sock.close()
        peer, stream = await armed_pair_of(trio.socket.from_stdlib_socket)
        await peer.aclose()
        await stream.aclose()

    backend.run(main)


async def armed_pair_of(make: Any) -> tuple[trio.SocketStream, trio.SocketStream]:
    left, right = socket.socketpair()
    peer, stream = trio.SocketStream(make(left)), trio.SocketStream(make(right))
    for letter in (b"1", b"2", b"3"):
        await peer.send_all(letter)
        assert await stream.receive_some() == letter
    return peer, stream


async def read_ahead_in_a_run() -> tuple[trio.SocketStream, trio.SocketStream]:
    return await pair_with_data(b"read ahead")


async def left_in_the_kernel() -> tuple[trio.SocketStream, trio.SocketStream]:
    return await pair_with_unread_data(b"read ahead")


@pytest.mark.parametrize("leave", [read_ahead_in_a_run, left_in_the_kernel])
def test_the_next_run_gets_what_the_first_had_read_ahead(leave: Any) -> None:
    async def receive() -> bytes:
        peer_socket(peer).close()
        received = b""
        async for data in stream:
            received += data
        return received

    peer, stream = URING.run(leave)
    with peer_socket(stream):
        assert URING.run(receive) == b"read ahead"
