"""Sends of sockets by tasks that were woken together share one system call, and show what they
show on epoll."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import EPOLL, URING, every_backend
from pairs import peer_socket, reset, tcp_pair
from socket_calls import described
from trio.testing import wait_all_tasks_blocked

import trio_uring
from trio_uring import RingOptions, sockets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from equivalence import Backend

    Part = Callable[[trio.SocketStream, trio.SocketStream], Awaitable[None]]

MANY = 8
FULL = 4 << 20
"""More than both sockets have room for."""


async def woken_together(part: Part, count: int = MANY) -> None:
    """``count`` tasks, which one tick wakes, do their part, each with a peer and a stream."""
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        peers = []

        async def begin(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
            assert await stream.socket.recv(1) == b"!"
            await part(peer, stream)

        for _ in range(count):
            pair = await tcp_pair()
            for stream in pair:
                await stack.enter_async_context(stream)
            nursery.start_soon(begin, *pair)
            peers.append(peer_socket(pair[0]))
        await wait_all_tasks_blocked()
        for peer in peers:
            peer.send(b"!")


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sends are with the tick, however few tasks it has woken."""
    monkeypatch.setattr(sockets, "FEW_WOKEN", -1)


async def received(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := await stream.receive_some()):
        data += more
    return data


@pytest.mark.parametrize(("count", "tried"), [(1, True), (MANY, False)])
def test_only_where_many_tasks_run(count: int, tried: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []
    send = socket.socket.send

    def recorded(self: socket.socket, data: bytes, *args: int) -> int:
        calls.append(data)
        return send(self, data, *args)

    async def part(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
        assert await stream.socket.send(b"12345") == 5
        assert await received(peer, 5) == b"12345"

    async def main() -> None:
        if "completions" not in trio_uring.capabilities().used:
            pytest.skip("sockets do not use completions here")
        monkeypatch.setattr(socket.socket, "send", recorded)
        await woken_together(part, count)

    URING.run(main)
    assert calls == [b"!"] * count + [b"12345"] * tried


@pytest.mark.usefixtures("together")
@every_backend
def test_what_there_is_no_room_for_is_left_to_the_next_send(backend: Backend) -> None:
    content = bytes(range(256)) * (FULL // 256)

    async def part(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
        async def send() -> None:
            sent = 0
            while sent < len(content):
                part = await stream.socket.send(content[sent:])
                assert 0 < part <= len(content) - sent
                sent += part

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert await received(peer, FULL) == content

    backend.run(partial(woken_together, part))


@pytest.mark.usefixtures("together")
@every_backend
def test_a_second_task_waits_for_room_only_while_nobody_does(backend: Backend) -> None:
    async def part(_: trio.SocketStream, stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(FULL))
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await stream.socket.send(b"x")
            nursery.cancel_scope.cancel()

    backend.run(partial(woken_together, part))


@pytest.mark.usefixtures("together")
@every_backend
def test_sends_of_tasks_on_one_socket_arrive_in_their_order(backend: Backend) -> None:
    async def part(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
        order: list[bytes] = []
        sends: dict[bytes, Callable[[bytes], Awaitable[Any]]] = {
            b"a": stream.socket.send,
            b"b": stream.socket.send,
            b"c": lambda data: stream.socket.send(memoryview(data)),
            b"d": lambda data: stream.socket.sendmsg([data]),
            b"e": stream.send_all,
        }

        async def send(data: bytes) -> None:
            order.append(data)
            await sends[data](data)

        async with trio.open_nursery() as nursery:
            for data in sends:
                nursery.start_soon(send, data)
        assert await received(peer, len(sends)) == b"".join(order)

    for _ in range(10):  # the order is Trio's choice
        backend.run(partial(woken_together, part))


@pytest.mark.usefixtures("together")
@every_backend
def test_a_send_that_is_cancelled_has_happened_or_has_not(backend: Backend) -> None:
    async def part(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
        async def cancel(scope: trio.CancelScope) -> None:
            for _ in range(2):
                await trio.lowlevel.cancel_shielded_checkpoint()
            scope.cancel()

        sent = 0
        for moment in range(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel, nursery.cancel_scope)
                for _ in range(moment % 5):
                    await trio.lowlevel.cancel_shielded_checkpoint()
                sent += await stream.socket.send(b"12345")
        await stream.send_eof()
        assert await received(peer, 200) == b"12345" * (sent // 5)

    backend.run(partial(woken_together, part))


@pytest.mark.usefixtures("together")
@every_backend
def test_a_send_in_a_cancelled_scope_sends_nothing(backend: Backend) -> None:
    async def part(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.socket.send(b"12345")
        assert scope.cancelled_caught
        await stream.send_eof()
        assert await received(peer, 1) == b""

    backend.run(partial(woken_together, part))


@pytest.mark.usefixtures("together")
def test_errors_are_those_of_epoll() -> None:
    def errors(backend: Backend) -> list[object]:
        seen: list[object] = []

        async def send(stream: trio.SocketStream) -> None:
            try:
                seen.append(await stream.socket.send(b"x"))
            except OSError as error:
                seen.append(described(error))

        async def after_reset(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
            reset(peer)
            peer.socket.close()
            await send(stream)
            await send(stream)

        async def after_shutdown(_: trio.SocketStream, stream: trio.SocketStream) -> None:
            stream.socket.shutdown(socket.SHUT_WR)
            await send(stream)

        for part in (after_reset, after_shutdown):
            backend.run(partial(woken_together, part))
        return seen

    assert errors(URING) == errors(EPOLL)


@pytest.mark.usefixtures("together")
@every_backend
def test_a_socket_that_is_closed_meanwhile_has_sent_or_says_so(backend: Backend) -> None:
    async def part(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
        sent = 0

        async def send() -> None:
            nonlocal sent
            with suppress(trio.ClosedResourceError, OSError):
                sent = await stream.socket.send(b"12345")

        async def close() -> None:
            stream.socket.close()
            others = socket.socketpair()  # of which one has the same number
            for other in others:
                stack.enter_context(other)
                other.setblocking(False)
            strangers.extend(others)

        strangers: list[socket.socket] = []
        with ExitStack() as stack:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                nursery.start_soon(close)
            assert await received(peer, 100) == b"12345"[:sent]
            for stranger in strangers:
                with pytest.raises(BlockingIOError):
                    stranger.recv(1)

    for _ in range(10):
        backend.run(partial(woken_together, part))


def test_a_budget_does_not_keep_them_from_sharing_a_system_call() -> None:
    async def part(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
        for _ in range(20):
            assert await stream.socket.send(b"12345") == 5
        assert await received(peer, 100) == b"12345" * 20

    trio_uring.run(woken_together, part, ring=RingOptions(checkpoint_budget=4))
