"""Sends of sockets by tasks that were woken together share one system call, and show what they
show on epoll."""

from __future__ import annotations

import errno
import gc
import socket
import sys
import weakref
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from answers import give_answers
from equivalence import EPOLL, URING, every_backend, needs_completions
from pairs import peer_socket, reset, tcp_pair
from socket_calls import described
from trio._util import ConflictDetector
from trio.lowlevel import current_task
from trio.testing import wait_all_tasks_blocked

import trio_uring
from trio_uring import RingOptions
from trio_uring.sockets import sender, sending, streams

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from equivalence import Backend

    Part = Callable[[trio.SocketStream, trio.SocketStream], Awaitable[None]]

pytestmark = pytest.mark.usefixtures("no_hanging")

MANY = 8
FULL = 4 << 20
"""More than both sockets have room for."""


class Falsy(bytes):
    def __bool__(self) -> bool:
        return False


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
    monkeypatch.setattr(sending, "FEW_EVENTS", -1)


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
        monkeypatch.setattr(sending, "_stdlib_send", recorded)
        await woken_together(part, count)

    URING.run(main)
    assert calls == [b"12345"] * tried


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
@pytest.mark.parametrize("name", ["send", "send_all", "send_all of a view"])
@every_backend
def test_what_was_sent_before_the_close_arrives(backend: Backend, name: str) -> None:
    async def part(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
        order: list[str] = []
        error: Exception | None = None

        async def send() -> None:
            nonlocal error
            order.append("send")
            try:
                if name == "send":
                    await stream.socket.send(b"12345")
                else:
                    await stream.send_all(b"12345" if name == "send_all" else memoryview(b"12345"))
            except (trio.ClosedResourceError, OSError) as met:
                error = met

        async def close() -> None:
            order.append("close")
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
            assert (error is None) == (order[0] == "send")
            assert await received(peer, 100) == (b"" if error else b"12345")
            for stranger in strangers:
                with pytest.raises(BlockingIOError):
                    stranger.recv(1)

    for _ in range(10):
        backend.run(partial(woken_together, part))


@every_backend
@pytest.mark.parametrize(
    "data",
    [
        bytearray(b"12345"),
        memoryview(b"1-2-3-4-5")[::2],
        memoryview(b"123456").cast("B", (2, 3)),
        memoryview(b"12345678").cast("H"),
        memoryview(b"12345678").cast("d"),
        Falsy(b"12345"),
        memoryview(b""),
        Falsy(b""),
        "12345",
        None,
    ],
    ids=lambda data: f"{type(data).__name__} {getattr(data, 'shape', '')}",
)
def test_any_data_are_sent_or_refused_as_by_trio(backend: Backend, data: Any) -> None:
    async def outcome(kept: list[Any]) -> None:
        peer, stream = await tcp_pair()
        async with peer, stream:
            await stream.send_all(b"<")  # the first one makes the connection
            before = current_task()._schedule_points  # type: ignore[attr-defined]
            try:
                await stream.send_all(data)
            except Exception as error:
                kept.append((type(error), str(error)))
            kept.append(current_task()._schedule_points > before)  # type: ignore[attr-defined]
            await stream.send_all(b">")
            await stream.send_eof()
            kept.append(await received(peer, 100))

    kept: list[Any] = []
    expected: list[Any] = []
    backend.run(partial(outcome, kept))
    EPOLL.run(partial(outcome, expected))
    assert kept == expected


@needs_completions
def test_a_full_queue_is_emptied_with_the_interpreter_unlocked(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[bool] = []

    def start(stream: trio.SocketStream, data: bytes) -> object:
        started = start_send(stream, data)
        left.append(started is None)
        return started

    async def part(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
        for _ in range(4):
            await stream.send_all(b"12345")
            assert await received(peer, 5) == b"12345"

    start_send = streams.start_send
    monkeypatch.setattr(streams, "start_send", start)
    trio_uring.run(woken_together, part, 40, ring=RingOptions(entries=8, cq_entries=256))
    # After the first two of each: of 40 at a time, all but those that find no room any more.
    assert 4 <= left[80:].count(True) <= 20


@pytest.mark.usefixtures("still_clock")
@pytest.mark.parametrize("count", [1, MANY])
def test_the_largest_budget_is_one(count: int) -> None:
    async def part(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
        for _ in range(3):
            await stream.send_all(b"12345")
            assert await received(peer, 5) == b"12345"

    trio_uring.run(woken_together, part, count, ring=RingOptions(checkpoint_budget=1 << 100))


@every_backend
def test_a_send_lets_go_of_what_it_has_held(backend: Backend) -> None:
    """Though the stream has got another conflict detector meanwhile."""

    async def main() -> None:
        peer, stream = await tcp_pair()
        async with peer, stream:
            await stream.send_all(b"!")
            theirs, mine = stream._send_conflict_detector, ConflictDetector("busy")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, bytes(FULL))
                await wait_all_tasks_blocked()
                stream._send_conflict_detector = mine
                with mine:
                    await received(peer, FULL + 1)
                    await wait_all_tasks_blocked()
                    with pytest.raises(trio.BusyResourceError), mine:
                        pass
            with theirs:
                pass

    backend.run(main)


def test_a_budget_does_not_keep_them_from_sharing_a_system_call() -> None:
    async def part(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
        for _ in range(20):
            assert await stream.socket.send(b"12345") == 5
        assert await received(peer, 100) == b"12345" * 20

    trio_uring.run(woken_together, part, ring=RingOptions(checkpoint_budget=4))


@pytest.mark.usefixtures("together")
@every_backend
def test_each_task_is_told_what_became_of_its_own_send(backend: Backend) -> None:
    async def part(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
        other_peer, other = await tcp_pair()
        for _ in range(2):  # a multishot from the second one on
            await other_peer.send_all(b"x")
            await other.receive_some()

        async def send(data: bytes, steps: int) -> None:
            for _ in range(steps):
                await trio.lowlevel.cancel_shielded_checkpoint()
            assert await stream.socket.send(data) == len(data)

        async def stop_multishot() -> None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            other.socket.fileno()  # reaps in the middle of a tick

        async with other_peer, other, trio.open_nursery() as nursery:
            nursery.start_soon(other.receive_some)
            await wait_all_tasks_blocked()
            nursery.start_soon(send, b"12345", 0)
            nursery.start_soon(send, b"123", 1)
            nursery.start_soon(stop_multishot)
            assert len(await received(peer, 8)) == 8
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    for _ in range(10):  # the order is Trio's choice
        backend.run(partial(woken_together, part))


@pytest.mark.usefixtures("together")
@every_backend
def test_a_send_that_was_called_before_the_close_and_runs_after_it_reaches_no_stranger(
    backend: Backend,
) -> None:
    async def part(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
        assert await stream.socket.send(b"x") == 1
        sending = stream.socket.send(b"12345")
        stream.socket.close()
        with ExitStack() as stack:
            strangers = [stack.enter_context(each) for each in socket.socketpair()]
            with pytest.raises(OSError, match="Bad file descriptor"):
                await sending
            for stranger in strangers:
                stranger.setblocking(False)
                with pytest.raises(BlockingIOError):
                    stranger.recv(1)
        assert await received(peer, 6) == b"x"

    backend.run(partial(woken_together, part, 1))


@pytest.mark.usefixtures("together")
@every_backend
def test_two_streams_of_one_socket_both_send(backend: Backend) -> None:
    async def part(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"12345")
            nursery.start_soon(trio.SocketStream(stream.socket).send_all, b"123")
            assert sorted(await received(peer, 8)) == sorted(b"12345123")

    backend.run(partial(woken_together, part))


@pytest.mark.usefixtures("together")
@every_backend
def test_what_was_sent_before_a_shutdown_arrives(backend: Backend) -> None:
    async def part(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
        order: list[str] = []

        async def send() -> None:
            order.append("send")
            with suppress(BrokenPipeError):
                await stream.socket.send(b"12345")

        async def shut_down() -> None:
            order.append("shutdown")
            stream.socket.shutdown(socket.SHUT_WR)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(shut_down)
        assert await received(peer, 6) == (b"12345" if order[0] == "send" else b"")

    for _ in range(10):  # the order is Trio's choice
        backend.run(partial(woken_together, part))


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("whole", [True, False])
@every_backend
def test_a_task_that_has_sent_and_its_data_are_not_kept(backend: Backend, whole: bool) -> None:
    async def part(_: trio.SocketStream, stream: trio.SocketStream) -> None:
        send: Callable[[bytes], Awaitable[Any]] = stream.send_all if whole else stream.socket.send

        async def cancel(scope: trio.CancelScope) -> None:
            scope.cancel()

        tasks: list[weakref.ref[trio.lowlevel.Task]] = []

        async def send_once() -> None:
            tasks.append(weakref.ref(trio.lowlevel.current_task()))
            await send(b"12345")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_once)
        data = bytes(1000)
        references = sys.getrefcount(data)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, data)
            nursery.start_soon(cancel, nursery.cancel_scope)
        del nursery
        gc.collect()
        assert tasks[0]() is None
        assert sys.getrefcount(data) == references

    backend.run(partial(woken_together, part, 1))


@needs_completions
def test_a_stream_that_is_closed_between_a_wait_for_room_and_the_next_try_tells_its_sender(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another task has closed it in the tick in which the sender was woken, and ran first."""
    give_answers(monkeypatch, sender, [-errno.EAGAIN], name="_send")

    async def main() -> None:
        peer, stream = await tcp_pair()

        async def closes(_: object) -> None:
            stream.socket.close()

        monkeypatch.setattr(streams, "wait_writable", closes)
        async with peer, stream:
            await stream.send_all(b"first")  # which is no submission
            with pytest.raises(trio.ClosedResourceError):
                await stream.send_all(bytearray(b"data"))
            await wait_all_tasks_blocked()

    URING.run(main)
