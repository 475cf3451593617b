"""Two tasks on one socket, the second when the first was woken, or cancelled, and has not run yet."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from equivalence import every_backend
from pairs import arm, armed_pair, peer_socket, tcp_pair
from trio.lowlevel import wait_readable
from trio.testing import wait_all_tasks_blocked

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
