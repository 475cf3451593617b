"""Two tasks on one socket, the second when the first was woken, or cancelled, and has not run yet."""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from equivalence import PATIENCE, every_backend, every_ring
from pairs import arm, armed_pair, peer_socket, reset, result_of, tcp_pair
from trio.lowlevel import wait_readable, wait_writable
from trio.testing import wait_all_tasks_blocked
from waiters import fill

from trio_uring.sockets.below import TAKEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from equivalence import Backend

ATTEMPTS = 30  # which of two tasks of a tick runs first is up to Trio's dice


@every_backend
@pytest.mark.parametrize("waits", [False, True], ids=["receives", "waits-to-read"])
def test_what_the_first_leaves_is_the_seconds(backend: Backend, waits: bool) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        other, starter = await armed_pair()
        async with peer, stream, other, starter:
            for _ in range(ATTEMPTS):
                pieces: list[bytes] = []

                async def first(pieces: list[bytes] = pieces) -> None:
                    pieces.append(await stream.receive_some(3))

                async def second(pieces: list[bytes] = pieces) -> None:
                    await starter.receive_some()
                    if waits:
                        await wait_readable(stream.socket._sock)  # type: ignore[attr-defined]
                    pieces.append(await stream.receive_some(3))

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(first)
                    nursery.start_soon(second)
                    await wait_all_tasks_blocked()
                    peer_socket(other).send(b"x")
                    peer_socket(peer).send(b"abcdef")
                assert sorted(pieces) == [b"abc", b"def"]

    backend.run(main)


@every_backend
def test_a_socket_that_others_read_gives_no_more_than_was_asked_for(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with peer, stream:
            await arm(stream, peer_socket(peer))
            async with trio.open_nursery() as nursery:

                async def receive() -> None:
                    assert await stream.receive_some(1) == b"a"

                nursery.start_soon(receive)
                await wait_all_tasks_blocked()
                descriptor = stream.socket.fileno()
                await wait_all_tasks_blocked()
                peer_socket(peer).send(b"abcdef")
            assert os.read(descriptor, 10) == b"bcdef"

    backend.run(main)


@asynccontextmanager
async def cancelled(call: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """A task that waits in ``call``, was cancelled in this tick, and has not run since."""
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await call()

        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        scope.cancel()
        yield
    assert scope.cancelled_caught


@every_backend
@pytest.mark.parametrize("waits", [False, True], ids=["receives", "waits-to-read"])
@pytest.mark.parametrize("often", [False, True])
def test_a_socket_that_a_cancelled_task_received_from_is_free_at_once(
    backend: Backend, often: bool, waits: bool
) -> None:
    async def main() -> None:
        peer, stream = await (armed_pair() if often else tcp_pair())

        async def send() -> None:
            await wait_all_tasks_blocked()
            peer_socket(peer).send(b"abc")

        async with peer, stream, trio.open_nursery() as nursery, cancelled(stream.receive_some):
            nursery.start_soon(send)
            if waits:
                await wait_readable(stream.socket._sock)  # type: ignore[attr-defined]
            assert await stream.socket.recv(10) == b"abc"

    backend.run(main)


@every_backend
@pytest.mark.parametrize("call", ["listener", "socket", "wait_readable"])
def test_a_listener_that_a_cancelled_task_accepted_from_is_free_at_once(backend: Backend, call: str) -> None:
    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        clients: list[trio.SocketStream] = []

        async def connect() -> None:
            await wait_all_tasks_blocked()
            clients.append(await trio.open_tcp_stream(*listener.socket.getsockname()))

        async with listener, trio.open_nursery() as nursery, cancelled(listener.accept):
            nursery.start_soon(connect)
            if call == "wait_readable":
                await wait_readable(listener.socket._sock)  # type: ignore[attr-defined]
            if call == "socket":
                accepted, _ = await listener.socket.accept()
                accepted.close()
            else:
                await (await listener.accept()).aclose()
        await clients[0].aclose()

    backend.run(main)


@every_backend
def test_a_socket_that_a_cancelled_task_sent_by_may_be_waited_for_at_once(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await tcp_pair()

        async def receive() -> None:
            await wait_all_tasks_blocked()
            while await peer.receive_some():
                pass

        async with trio.open_nursery() as nursery:
            async with cancelled(lambda: stream.send_all(bytes(16 << 20))):
                nursery.start_soon(receive)
                await stream.socket.wait_writable()  # type: ignore[attr-defined]
            await stream.aclose()

    backend.run(main)


@every_backend
def test_connections_that_two_tasks_accept_are_two(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        other, starter = await armed_pair()
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = listener.socket.getsockname()
        async with peer, stream, other, starter, listener:
            for _ in range(2 * ATTEMPTS):
                clients = [socket.socket(), socket.socket()]
                accepted: list[trio.SocketStream] = []

                async def first(accepted: list[trio.SocketStream] = accepted) -> None:
                    accepted.append(await listener.accept())

                async def second(accepted: list[trio.SocketStream] = accepted) -> None:
                    await starter.receive_some()
                    accepted.append(await listener.accept())

                async def look(clients: list[socket.socket] = clients) -> None:
                    assert await stream.receive_some(1) == b"a"
                    clients[1].connect(address)
                    # All that the kernel has by now is processed, as before any call with flags.
                    assert await stream.socket.recv(1, socket.MSG_PEEK) == b"b"

                with trio.fail_after(PATIENCE):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(first)
                        nursery.start_soon(second)
                        nursery.start_soon(look)
                        await wait_all_tasks_blocked()
                        clients[0].connect(address)
                        peer_socket(peer).send(b"ab")
                        peer_socket(other).send(b"x")
                assert await stream.receive_some() == b"b"
                ends = sorted(one.socket.getpeername() for one in accepted)
                assert ends == sorted(client.getsockname() for client in clients)
                for end in (*clients, *(one.socket for one in accepted)):
                    end.close()

    backend.run(main)


@every_backend
@pytest.mark.parametrize("often", [False, True])
@pytest.mark.parametrize("waits", [False, True], ids=["receives", "waits-to-read"])
def test_nobody_is_told_that_another_waits_who_finds_data_at_once(
    backend: Backend, waits: bool, often: bool
) -> None:
    async def main() -> None:
        peer, stream = await (armed_pair() if often else tcp_pair())
        async with peer, stream:
            for _ in range(ATTEMPTS):
                received: list[bytes] = []

                async def first(received: list[bytes] = received) -> None:
                    received.append(await stream.receive_some(3))

                async def second(received: list[bytes] = received) -> None:
                    if waits:
                        await wait_readable(stream.socket._sock)  # type: ignore[attr-defined]
                    received.append(await stream.receive_some(3))

                peer_socket(peer).send(b"abcdef")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(first)
                    nursery.start_soon(second)
                assert sorted(received) == [b"abc", b"def"]

    backend.run(main)


@every_backend
@pytest.mark.parametrize("often", [0, 3])
def test_who_sends_at_once_and_who_waits_to_write_are_not_in_each_others_way(
    backend: Backend, often: int
) -> None:
    async def main() -> None:
        for _ in range(ATTEMPTS):
            peer, stream = await tcp_pair()
            async with peer, stream:
                for _ in range(often):
                    await stream.send_all(b"a")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.send_all, b"a")
                    nursery.start_soon(stream.socket.wait_writable)  # type: ignore[attr-defined]

    backend.run(main)


@every_backend
def test_a_reset_is_no_end_of_the_stream_though_it_was_closed_since(backend: Backend) -> None:
    async def main() -> None:
        other, starter = await armed_pair()
        async with other, starter:
            for _ in range(ATTEMPTS):
                peer, stream = await armed_pair()
                results: list[object] = []

                async def receive(
                    stream: trio.SocketStream = stream, results: list[object] = results
                ) -> None:
                    results.append(await result_of(stream.receive_some))

                async def close(stream: trio.SocketStream = stream) -> None:
                    await starter.receive_some()
                    stream.socket.close()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(receive)
                    nursery.start_soon(close)
                    await wait_all_tasks_blocked()
                    reset(peer)
                    peer_socket(other).send(b"x")
                assert results[0] in (trio.BrokenResourceError, trio.ClosedResourceError)

    backend.run(main)


@every_backend
@pytest.mark.parametrize("often", [0, 3])
def test_a_send_that_was_cancelled_before_it_was_closed_is_cancelled(backend: Backend, often: int) -> None:
    async def main() -> None:
        peer, stream = await tcp_pair()
        async with peer:
            for _ in range(often):
                await stream.send_all(b"a")
            async with cancelled(lambda: stream.send_all(bytes(16 << 20))):
                stream.socket.close()

    backend.run(main)


@every_backend
def test_who_was_cancelled_is_not_told_that_another_task_waits(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with peer, stream, trio.open_nursery() as nursery:
            fill(peer_socket(stream))
            nursery.start_soon(stream.receive_some)
            nursery.start_soon(stream.socket.wait_writable)  # type: ignore[attr-defined]
            await wait_all_tasks_blocked()
            for call in (stream.receive_some, lambda: stream.send_all(b"a")):
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await call()
                assert scope.cancelled_caught
                with pytest.raises(trio.BusyResourceError):
                    await call()
            nursery.cancel_scope.cancel()

    backend.run(main)


@every_ring
def test_what_comes_as_a_second_task_asks_the_socket_itself_stays_in_order(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        received: list[bytes] = []
        asked: list[socket.socket] = []
        recvmsg = socket.socket.recvmsg

        def too_early(sock: socket.socket, *arguments: int) -> object:
            asked.append(sock)
            if len(asked) > 1:
                return recvmsg(sock, *arguments)
            peer_socket(peer).send(b"abcdef")
            raise BlockingIOError

        async def second() -> None:
            try:
                data, *_ = await stream.socket.recvmsg(3)
            except trio.BusyResourceError:
                await wait_all_tasks_blocked()
                data = await stream.receive_some(3)
            assert data == b"def"

        async def first() -> None:
            received.append(await stream.receive_some(3))

        async with peer, stream:
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(first)
                    await wait_all_tasks_blocked()
                    monkeypatch.setitem(TAKEN, "recvmsg", too_early)
                    nursery.start_soon(second)
        assert received == [b"abc"]

    backend.run(main)


@every_backend
def test_a_task_that_would_have_to_wait_for_room_is_told_that_another_does(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await tcp_pair()
        async with peer, stream:
            fill(peer_socket(stream))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_writable, stream.socket)
                await wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await stream.send_all(b"x")
                nursery.cancel_scope.cancel()

    backend.run(main)
