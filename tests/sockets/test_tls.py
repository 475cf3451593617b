"""`trio.SSLStream` on io_uring: what one receive returns, what is kept for the next call, what a call costs
in checkpoints, and whose streams are left to Trio. What is as on epoll is for test_tls_machine.py."""

from __future__ import annotations

import contextlib
import inspect
import random
import signal
import ssl
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from equivalence import EPOLL, PATIENCE, RINGS, URING, Backend, needs_completions
from pairs import tcp_pair
from socket_calls import HUGE, disturbed, expected, fill_for_good, pair
from steps import Steps
from tls_peer import VERSIONS, Peer, context
from trio.testing import assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

import trio_uring
from trio_uring import RingOptions
from trio_uring.sockets import records, tls

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable
    from types import FrameType

pytestmark = pytest.mark.usefixtures("no_hanging")

RECORD = 16_384
OFF = Backend("without the feature", RingOptions(features={"tls": False}))
BUDGET = Backend("budget", RingOptions(checkpoint_budget=16))
BACKENDS = [EPOLL, OFF, URING, RINGS[1], BUDGET]
every_backend = pytest.mark.parametrize(
    "backend", BACKENDS, ids=lambda backend: backend.name.replace(" ", "-")
)
ours = pytest.mark.parametrize(
    "backend", [URING, RINGS[1], BUDGET], ids=lambda one: one.name.replace(" ", "-")
)
every_version = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
Stream = trio.SSLStream[Any]
TLS12, TLS13 = VERSIONS


def client_of(transport: Any, version: ssl.TLSVersion = TLS13, **options: Any) -> Stream:
    made = context(version, server_side=False)
    return trio.SSLStream(transport, made, server_hostname="localhost", **options)


def server_of(transport: Any, version: ssl.TLSVersion = TLS13, **options: Any) -> Stream:
    return trio.SSLStream(transport, context(version, server_side=True), server_side=True, **options)


async def shake_hands(*streams: Stream) -> None:
    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(stream.do_handshake)


async def both_ends(version: ssl.TLSVersion = TLS13) -> tuple[Stream, Stream]:
    client, server = await tcp_pair()
    ends = client_of(client, version), server_of(server, version)
    await shake_hands(*ends)
    return ends


async def with_peer(version: ssl.TLSVersion = TLS13, **options: Any) -> tuple[Stream, Peer]:
    """A client, and a server of tls_peer.py that has received something from it."""
    near, far = pair("tcp")
    sock = far.socket._sock.dup()  # type: ignore[attr-defined]
    far.socket.close()
    peer = Peer(sock, version, server_side=True)
    stream = client_of(near, version, **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, expected(0, 5))
        while peer.received < 5:
            peer.pump()
            await trio.lowlevel.checkpoint()
    return stream, peer


async def arrive() -> None:
    """What the other end has sent is here, and known if it may be read ahead."""
    for _ in range(3):
        await wait_all_tasks_blocked()


# Records


@every_version
@ours
@needs_completions
@pytest.mark.parametrize("size", [5, RECORD - 1, RECORD, RECORD + 1, 3 * RECORD, 4 * RECORD, 200_000])
def test_one_receive_returns_all_records_that_have_come(
    backend: Backend, size: int, version: ssl.TLSVersion
) -> None:
    async def main() -> None:
        stream, peer = await with_peer(version)
        for _ in range(3):
            sent = peer.sent
            peer.send(*[1000] * 10)
            await arrive()
            assert await stream.receive_some(size) == expected(sent, min(size, 10_000))
            left = max(0, 10_000 - size)
            while left:
                left -= len(await stream.receive_some(left))
        await trio.aclose_forcefully(stream)
        peer.close()

    backend.run(main)


@ours
@needs_completions
def test_a_message_of_many_records_is_one_receive_when_it_is_all_there(backend: Backend) -> None:
    """Its ciphertext is more than one receive of the stream below returns."""
    assert backend.ring is not None
    backend = Backend(backend.name, attrs.evolve(backend.ring, read_ahead=1 << 20))  # no end of a multishot

    async def main() -> None:
        stream, peer = await with_peer()
        for _ in range(4):
            sent = peer.sent
            peer.send(4 * RECORD)
            await arrive()
            got = await stream.receive_some(4 * RECORD)
            while len(got) < 4 * RECORD:  # until a multishot is pending
                got += await stream.receive_some(4 * RECORD)
            assert got == expected(sent, 4 * RECORD)
        sent = peer.sent
        peer.send(4 * RECORD)
        await arrive()
        assert await stream.receive_some(4 * RECORD) == expected(sent, 4 * RECORD)
        await trio.aclose_forcefully(stream)
        peer.close()

    backend.run(main)


def transports() -> dict[str, Callable[[], Awaitable[tuple[Any, Any]]]]:
    async def in_memory() -> tuple[Any, Any]:
        return memory_stream_pair()

    async def in_tls() -> tuple[Any, Any]:
        return await both_ends()

    async def stapled() -> tuple[Any, Any]:
        one, other = await tcp_pair()
        return trio.StapledStream(one, one), other

    return {"in memory": in_memory, "in TLS": in_tls, "stapled": stapled}


@pytest.mark.parametrize("transport", transports().values(), ids=transports())
def test_over_what_is_no_socket_stream_a_receive_returns_one_record_as_trios_does(transport: Any) -> None:
    async def main() -> None:
        one, other = await transport()
        client, server = client_of(one), server_of(other)
        await shake_hands(client, server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.send_all, bytes(3 * RECORD))
            nursery.start_soon(client.send_all, b"x")
            assert len(await client.receive_some(3 * RECORD)) <= RECORD
            nursery.cancel_scope.cancel()

    URING.run(main)


@pytest.mark.parametrize("backend", [EPOLL, OFF], ids=["epoll", "off"])
def test_without_the_feature_a_receive_returns_one_record_as_trios_does(backend: Backend) -> None:
    async def main() -> None:
        stream, peer = await with_peer()
        peer.send(10, 10, 10)
        await arrive()
        for _ in range(3):
            assert len(await stream.receive_some(100)) == 10
        assert not hasattr(stream, "_uring_tls")
        await trio.aclose_forcefully(stream)
        peer.close()

    backend.run(main)


def test_the_feature_is_told_and_goes_with_completions() -> None:
    def flags(*off: str) -> tuple[str, ...]:
        async def main() -> Any:
            return trio.lowlevel.current_statistics().io_statistics.flags  # type: ignore[attr-defined]

        found: tuple[str, ...] = trio_uring.run(main, ring=RingOptions(features=dict.fromkeys(off, False)))
        return found

    if "completions" in flags():
        assert "tls" in flags()
    assert "tls" not in flags("tls")
    assert "tls" not in flags("completions")


# What comes behind the first record


async def receive(stream: Stream) -> object:
    return await stream.receive_some(100)


async def send(stream: Stream) -> object:
    return await stream.send_all(b"x")


async def unwrap(stream: Stream) -> object:
    return await stream.unwrap()


async def every_call_raises(stream: Stream, error: type[Exception]) -> None:
    for call in (receive, send, unwrap):
        with pytest.raises(error):
            await call(stream)


@pytest.mark.parametrize("call", [receive, send, unwrap])
@every_version
@ours
@needs_completions
def test_an_error_behind_data_is_kept_for_the_next_call_whichever_that_is(
    backend: Backend, version: ssl.TLSVersion, call: Callable[[Stream], Awaitable[object]]
) -> None:
    async def main() -> None:
        stream, peer = await with_peer(version)
        peer.send(10, 10)
        peer.send_rubbish()
        await arrive()
        assert await stream.receive_some(100) == expected(0, 20)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await call(stream)
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        assert caught.value.__cause__.__traceback__ is None
        for again in (receive, send, unwrap):
            with pytest.raises(trio.BrokenResourceError) as caught:
                await again(stream)
            assert caught.value.__cause__ is None
        await stream.aclose()
        peer.close()

    backend.run(main)


@ours
@needs_completions
def test_a_stream_with_a_kept_error_closes_as_one_that_is_broken(backend: Backend) -> None:
    async def main() -> None:
        stream, peer = await with_peer()
        peer.send(10)
        peer.send_rubbish()
        await arrive()
        assert await stream.receive_some(100) == expected(0, 10)
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some(100)
        peer.pump()
        assert peer.ended
        peer.close()

    backend.run(main)


@every_version
@every_backend
def test_the_end_behind_data_is_told_as_often_as_it_is_asked_for(
    backend: Backend, version: ssl.TLSVersion
) -> None:
    async def main() -> None:
        stream, peer = await with_peer(version)
        peer.send(10, 10)
        peer.end()
        await arrive()
        got = await stream.receive_some(100)
        if len(got) < 20:
            got += await stream.receive_some(100)
        assert got == expected(0, 20)
        await stream.send_all(expected(5, 10))
        for _ in range(3):
            assert await stream.receive_some(100) == b""
        peer.pump()
        assert peer.received == 15
        await stream.aclose()
        peer.close()

    backend.run(main)


@pytest.mark.parametrize("compatible", [False, True])
@every_backend
def test_a_truncated_stream_ends_as_https_compatible_says(backend: Backend, compatible: bool) -> None:
    async def main() -> None:
        stream, peer = await with_peer(https_compatible=compatible)
        peer.send(10)
        peer.close()
        await arrive()
        assert await stream.receive_some(100) == expected(0, 10)
        if compatible:
            with assert_checkpoints():
                assert await stream.receive_some(100) == b""
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some(100)
        await stream.aclose()

    backend.run(main)


# Cancellation


@ours
@needs_completions
def test_what_was_decrypted_outlives_a_cancelled_renegotiation(backend: Backend) -> None:
    """The answer has to wait for a send that fills the socket; who receives is cancelled meanwhile."""

    async def main() -> None:
        stream, peer = await with_peer(TLS12)
        async with trio.open_nursery() as nursery:
            peer.reads = False
            nursery.start_soon(stream.send_all, bytes(2 * HUGE))
            await arrive()
            peer.hold(HUGE)  # both in one segment: of two the first would be received without the second
            peer.send(10)
            peer.renegotiate()
            peer.let_go()
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_later, scope)
                await stream.receive_some(100)
            assert scope.cancelled_caught
            assert await stream.receive_some(3) == expected(0, 3)
            assert await stream.receive_some(100) == expected(3, 7)
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(stream)
        peer.close()

    backend.run(main)


async def cancel_later(scope: trio.CancelScope) -> None:
    await arrive()
    scope.cancel()


@every_backend
def test_a_send_breaks_the_stream_if_it_is_cancelled_on_its_way_and_not_before(backend: Backend) -> None:
    async def main() -> None:
        stream, peer = await with_peer()
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.send_all(b"nothing")
        await stream.send_all(expected(5, 10))
        peer.pump()
        assert peer.received == 15
        peer.reads = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(2 * HUGE))
            await arrive()
            nursery.cancel_scope.cancel()
        await every_call_raises(stream, trio.BrokenResourceError)
        await stream.aclose()
        peer.close()

    backend.run(main)


@every_version
@every_backend
def test_100_megabytes_through_cancelled_receives(backend: Backend, version: ssl.TLSVersion) -> None:
    total = 100_000_000
    chance = random.Random(7)

    async def send_it_all(stream: Stream) -> None:
        sent = 0
        while sent < total:
            size = min(chance.choice([1, 1000, RECORD, 100_000, 1_000_000]), total - sent)
            await stream.send_all(expected(sent, size))
            sent += size
        await stream.aclose()

    async def main() -> None:
        stream, other = await both_ends(version)
        received = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_it_all, other)
            while received < total:
                size = chance.choice([None, 1, 1000, RECORD, 65_536, 1_000_000])
                call = partial(stream.receive_some, size)
                data = await (disturbed(call, chance.randrange(5)) if chance.random() < 0.2 else call())
                assert data != b""
                if data:
                    assert data == expected(received, len(data))
                    received += len(data)
            assert await stream.receive_some() == b""
        await stream.aclose()

    backend.run(main)


# Checkpoints, and several tasks


@ours
@needs_completions
def test_a_small_message_is_one_step_to_receive_and_one_to_send(backend: Backend) -> None:
    async def main() -> None:
        stream, peer = await with_peer()
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        for number in range(5):
            peer.send(10)
            await arrive()
            before = len(steps.calls)
            assert await stream.receive_some(100) == expected(10 * number, 10)
            await stream.send_all(expected(5 + number, 1))
            assert len(steps.calls) - before <= 2
        trio.lowlevel.remove_instrument(steps)
        await trio.aclose_forcefully(stream)
        peer.close()

    backend.run(main)


@every_version
@pytest.mark.parametrize("backend", BACKENDS[:-1], ids=lambda backend: backend.name.replace(" ", "-"))
def test_each_call_is_a_checkpoint(backend: Backend, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        stream, peer = await with_peer(version)
        peer.send(10, 10)
        await arrive()
        for size in (1, 2, 7, 3, 7):  # what was received at once, in parts
            with assert_checkpoints():
                await stream.receive_some(size)
        calls = (
            partial(stream.send_all, b"x"),
            partial(stream.send_all, b""),
            stream.wait_send_all_might_not_block,
            stream.do_handshake,
            stream.aclose,
        )
        for call in calls:
            with assert_checkpoints():
                await call()  # type: ignore[operator]
        peer.close()

    backend.run(main)


@every_backend
def test_a_second_task_is_told_that_another_receives_or_sends(backend: Backend) -> None:
    async def main() -> None:
        stream, peer = await with_peer()
        peer.reads = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_some, 10)
            nursery.start_soon(stream.send_all, bytes(2 * HUGE))
            await arrive()
            statistics = [lock.statistics() for lock in (stream._inner_recv_lock, stream._inner_send_lock)]
            assert all(one.locked and one.owner in nursery.child_tasks for one in statistics)
            for call, what in (
                (partial(stream.receive_some, 10), "receiving"),
                (partial(stream.send_all, b"x"), "sending"),
                (stream.wait_send_all_might_not_block, "sending"),
                (stream.unwrap, "receiving"),
            ):
                with pytest.raises(trio.BusyResourceError, match=f"another task is currently {what}"):
                    await call()  # type: ignore[operator]
            nursery.cancel_scope.cancel()
        locks = (stream._inner_recv_lock, stream._inner_send_lock)
        assert not any(lock.locked() for lock in locks)
        await trio.aclose_forcefully(stream)
        peer.close()

    backend.run(main)


@ours
@needs_completions
def test_locks_that_were_taken_past_trio_go_to_who_waits_and_break_for_nobody(backend: Backend) -> None:
    """Trio remembers a lock's owner, to tell the others if it ends."""

    async def main() -> None:
        stream, peer = await with_peer(TLS12)
        for number in range(3):
            peer.reads = False
            async with trio.open_nursery() as nursery:  # each time other tasks
                nursery.start_soon(stream.receive_some, 10)
                nursery.start_soon(stream.send_all, expected(5 + number * HUGE, HUGE))
                await arrive()
                peer.renegotiate()  # whose answer has to wait for the send
                peer.send(10)
                await arrive()
                peer.reads = True
                while nursery.child_tasks:
                    peer.pump()
                    await trio.lowlevel.checkpoint()
            while peer.pump():
                await trio.lowlevel.checkpoint()
            assert peer.received == 5 + (number + 1) * HUGE
            assert not stream._inner_send_lock.locked()
        await trio.aclose_forcefully(stream)
        peer.close()

    backend.run(main)


# What comes with the first record


@pytest.mark.parametrize("prefix", [b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n", b"STARTTLS\r\n"])
@every_version
@every_backend
def test_a_handshake_begins_in_the_segment_of_what_came_before(
    backend: Backend, version: ssl.TLSVersion, prefix: bytes
) -> None:
    async def main() -> None:
        near, far = pair("tcp")
        with near.socket._sock.dup() as sock:  # type: ignore[attr-defined]
            near.socket.close()
            sock.setblocking(False)
            for _ in range(3):  # until it may be read ahead
                sock.send(b"HELO\r\n")
                assert await far.receive_some() == b"HELO\r\n"
            peer = Peer(Together(sock, prefix), version, server_side=False)  # type: ignore[arg-type]
            await arrive()
            got = b""
            while not got.endswith(b"\r\n"):
                got += await far.receive_some(1)
            assert got == prefix
            stream = server_of(far, version)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.do_handshake)
                while not peer.handshaken:
                    peer.pump()
                    await trio.lowlevel.checkpoint()
                peer.pump()
            peer.send(100)
            assert await stream.receive_some(100) == expected(0, 100)
            await trio.aclose_forcefully(stream)

    backend.run(main)


class Together:
    """A socket whose first send has something before it."""

    def __init__(self, sock: socket.socket, prefix: bytes) -> None:
        self.sock = sock
        self.prefix = prefix

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def send(self, data: Any) -> int:
        prefix, self.prefix = self.prefix, b""
        return self.sock.send(prefix + bytes(data)) - len(prefix)


@every_version
@every_backend
def test_what_follows_the_end_in_the_clear_is_trailing_or_still_in_the_stream(
    backend: Backend, version: ssl.TLSVersion
) -> None:
    async def main() -> None:
        stream, peer = await with_peer(version)
        peer.send(10)
        peer.end()
        peer.send_in_the_clear(b"in the clear" * 10)
        await arrive()
        assert await stream.receive_some(100) == expected(0, 10)
        assert await stream.receive_some(100) == b""
        plain, trailing = await stream.unwrap()
        assert plain.socket.fileno() >= 0  # type: ignore[attr-defined]
        got = bytes(trailing)
        while len(got) < 120:
            got += await plain.receive_some(200)  # type: ignore[attr-defined]
        assert got == b"in the clear" * 10
        await every_call_raises(stream, trio.ClosedResourceError)
        await plain.aclose()
        peer.close()

    backend.run(main)


# Runs


@needs_completions
def test_a_stream_goes_on_in_another_run_with_what_it_has_kept() -> None:
    kept: list[Any] = []

    async def first() -> None:
        stream, peer = await with_peer()
        peer.send(10, 10, 10)
        peer.send_rubbish()
        await arrive()
        assert await stream.receive_some(15) == expected(0, 15)
        assert await stream.receive_some(100) == expected(15, 15)
        kept.extend([stream, peer])

    async def second() -> None:
        stream, peer = kept
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.receive_some(100)
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        await stream.aclose()
        peer.close()

    for backend in (URING, OFF, EPOLL):
        kept.clear()
        URING.run(first)
        backend.run(second)


# Trio's own methods, in between and over streams that are not ours


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("receive_some", (100,)),
        ("send_all", (b"x",)),
        ("wait_send_all_might_not_block", ()),
    ],
)
@every_backend
def test_a_method_is_a_coroutine_function_and_does_nothing_before_it_is_awaited(
    backend: Backend, name: str, args: tuple[Any, ...]
) -> None:
    async def main() -> None:
        stream, peer = await with_peer()
        method = getattr(stream, name)
        assert inspect.iscoroutinefunction(method)
        peer.send(10)
        await arrive()
        before = dict(vars(stream))
        call = method(*args)
        assert call.__qualname__ == f"SSLStream.{name}"
        with pytest.warns(RuntimeWarning, match=rf"coroutine 'SSLStream\.{name}' was never awaited"):
            del call
        assert vars(stream) == before
        detectors = stream._outer_recv_conflict_detector, stream._outer_send_conflict_detector
        assert not any(detector._held for detector in detectors)
        assert await stream.receive_some(100) == expected(0, 10)
        peer.pump()
        assert peer.received == 5
        call = method(*args)
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await call
        peer.close()

    backend.run(main)


@pytest.mark.parametrize("on_the_stream", [False, True])
@every_backend
def test_who_wraps_the_methods_of_the_stream_below_hears_of_each_call(
    backend: Backend, on_the_stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def wrapped(theirs: Any, name: str) -> Any:
        async def wrapper(*args: Any) -> Any:
            called.append(name)
            return await theirs(*args)

        return wrapper

    async def main() -> None:
        stream, peer = await with_peer()
        for _ in range(2):  # the usual calls are known
            peer.send(10)
            await arrive()
            await stream.receive_some(100)
        owner = stream.transport_stream if on_the_stream else trio.SocketStream
        with monkeypatch.context() as patch:
            for name in ("receive_some", "send_all"):
                patch.setattr(owner, name, wrapped(getattr(owner, name), name))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.receive_some, 100)
                await arrive()
                peer.send(10)
            await stream.send_all(expected(5, 10))
        peer.pump()
        assert peer.received == 15
        await trio.aclose_forcefully(stream)
        peer.close()

    backend.run(main)
    assert called == ["receive_some", "send_all"]


@every_backend
def test_a_call_is_told_that_the_stream_below_was_closed_and_holds_nothing_afterwards(
    backend: Backend,
) -> None:
    async def main() -> None:
        stream, peer = await with_peer()
        peer.send(10)
        await arrive()
        await stream.receive_some(100)
        peer.reads = False
        told = []

        async def call(method: Any, *args: Any) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await method(*args)
            told.append(method.__name__)

        below = stream.transport_stream
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, stream.receive_some)
            nursery.start_soon(call, stream.send_all, bytes(2 * HUGE))
            await arrive()
            await below.aclose()
        assert sorted(told) == ["receive_some", "send_all"]
        assert not stream._inner_recv_lock.locked()
        assert not stream._inner_send_lock.locked()
        assert not below._send_conflict_detector._held
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")
        await stream.aclose()
        peer.close()

    backend.run(main)


@pytest.mark.parametrize("between", [OFF, EPOLL], ids=["off", "epoll"])
@needs_completions
def test_what_trios_own_method_has_left_decrypted_is_returned_before_more_comes(between: Backend) -> None:
    ends: list[Any] = []

    async def drain() -> None:
        ends.extend(await with_peer())
        stream, peer = ends
        for start in (0, 10):
            peer.send(10)
            await arrive()
            assert await stream.receive_some(100) == expected(start, 10)

    async def leave_some() -> None:
        stream, peer = ends
        peer.send(10)
        await arrive()
        assert await stream.receive_some(3) == expected(20, 3)

    async def take() -> None:
        stream, peer = ends
        with trio.fail_after(PATIENCE):
            assert await stream.receive_some(100) == expected(23, 7)
        await trio.aclose_forcefully(stream)
        peer.close()

    URING.run(drain)
    between.run(leave_some)
    URING.run(take)


@every_backend
def test_a_retry_that_somebody_replaces_meanwhile_is_called_by_each_method(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    async def main() -> None:
        stream, peer = await with_peer()
        for _ in range(2):
            peer.send(10)
            await arrive()
            await stream.receive_some(100)
            await stream.send_all(expected(peer.received, 1))
            peer.pump()
        theirs: Any = vars(trio.SSLStream)["_retry"]

        async def retry(self: Any, function: Any, *args: Any, **options: Any) -> Any:
            called.append(function.__name__)
            return await theirs(self, function, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(trio.SSLStream, "_retry", retry)
            await stream.send_all(expected(peer.received, 1))
            peer.send(10)
            await arrive()
            await stream.receive_some(100)
        await trio.aclose_forcefully(stream)
        peer.close()

    backend.run(main)
    assert called == ["write", "read"]


@every_backend
def test_a_size_that_openssl_refuses_is_refused(backend: Backend) -> None:
    async def main() -> None:
        stream, peer = await with_peer()
        for _ in range(2):
            peer.send(10)
            await arrive()
            with pytest.raises(OverflowError):
                await stream.receive_some(1 << 63)
            assert len(await stream.receive_some(100)) == 10
        await trio.aclose_forcefully(stream)
        peer.close()

    backend.run(main)


class Interrupted(trio.abc.Stream):
    """Tells whether Ctrl-C may interrupt what it does."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.is_protected: set[bool] = set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        self.is_protected.add(trio.lowlevel.currently_ki_protected())
        return await self.stream.receive_some(max_bytes)  # type: ignore[no-any-return]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.is_protected.add(trio.lowlevel.currently_ki_protected())
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        self.is_protected.add(trio.lowlevel.currently_ki_protected())
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.stream.aclose()


@pytest.mark.parametrize("is_task", [False, True])
@pytest.mark.parametrize("is_protected", [False, True])
@every_backend
def test_ctrl_c_may_interrupt_a_users_stream_if_it_may_interrupt_who_calls(
    backend: Backend, is_protected: bool, is_task: bool
) -> None:
    async def main() -> None:
        near, far = await tcp_pair()
        transport = Interrupted(near)
        stream, other = client_of(transport), server_of(far)
        protect = trio.lowlevel.enable_ki_protection if is_protected else trio.lowlevel.disable_ki_protection

        async def call(method: Any, *args: Any) -> None:
            transport.is_protected.clear()
            if is_task and is_protected:
                done = trio.Event()

                async def act() -> None:
                    await method(*args)
                    done.set()

                trio.lowlevel.spawn_system_task(act)
                await done.wait()
            elif is_task:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(method, *args)
            else:

                @protect
                async def act_here() -> None:
                    await method(*args)

                await act_here()
            assert transport.is_protected == {is_protected}

        await shake_hands(stream, other)
        await other.send_all(b"data")
        await call(stream.receive_some)
        await call(stream.send_all, b"x")
        await call(stream.wait_send_all_might_not_block)
        for end in (stream, other):
            await trio.aclose_forcefully(end)

    backend.run(main)


class InterruptedOutput:
    """What OpenSSL has made. Ctrl-C is pressed when it was read for the first time."""

    def __init__(self, below: ssl.MemoryBIO) -> None:
        self.below = below
        self.is_left = True

    @property
    def pending(self) -> int:
        return self.below.pending

    def read(self) -> bytes:
        made = self.below.read()
        if made and self.is_left:
            self.is_left = False
            signal.raise_signal(signal.SIGINT)
        return made


async def send_first(stream: Stream) -> None:
    await stream.send_all(b"first")


async def receive_with_output(stream: Stream) -> None:
    stream._ssl_object.write(b"first")
    await stream.receive_some()


@needs_completions  # without them the stream is Trio's, which loses one
@pytest.mark.parametrize("call", [send_first, receive_with_output])
@pytest.mark.parametrize("has_tickets", [False, True])
@ours
def test_ctrl_c_loses_no_record_of_a_stream_that_goes_on(
    backend: Backend, has_tickets: bool, call: Callable[[Stream], Awaitable[None]]
) -> None:
    async def main() -> None:
        ends = await both_ends()
        stream, other = reversed(ends) if has_tickets else ends
        output = InterruptedOutput(stream._outgoing)
        vars(stream)["_outgoing"] = output
        with contextlib.suppress(KeyboardInterrupt):
            await call(stream)
            await trio.lowlevel.checkpoint()
        assert not output.is_left
        try:
            await stream.send_all(b"second")
        except trio.BrokenResourceError:
            pass
        else:
            received = b""
            while len(received) < len(b"firstsecond"):
                received += await other.receive_some()
            assert received == b"firstsecond"
        for end in ends:
            await trio.aclose_forcefully(end)

    backend.run(main)


class Watched(Interrupted):
    """Tells the functions of tls.py that are on the way to it, the innermost first."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.ours: list[str] = []

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            if frame.f_code.co_filename == tls.__file__:
                self.ours.append(frame.f_code.co_name)
            frame = frame.f_back
        await self.stream.send_all(data)


@pytest.mark.parametrize("backend", [OFF, URING], ids=["off", "io_uring"])
def test_a_stream_that_is_left_to_trio_has_one_frame_of_ours_above_trios(backend: Backend) -> None:
    async def main() -> None:
        near, far = memory_stream_pair()
        transport = Watched(near)
        stream, other = client_of(transport), server_of(far)
        await shake_hands(stream, other)
        transport.ours.clear()
        await stream.send_all(b"x")
        assert transport.ours == ["send_all"]

    backend.run(main)


@every_backend
def test_a_call_yields_whose_transport_fails_at_once(backend: Backend) -> None:
    async def main() -> None:
        stream, peer = await with_peer()
        transport = stream.transport_stream
        task: Any = trio.lowlevel.current_task()
        peer.send(10)
        await arrive()
        await stream.receive_some(100)  # and the tickets

        async def fails(error: type[Exception], call: Callable[[], Awaitable[object]]) -> None:
            before = task._schedule_points
            with pytest.raises(error):
                await call()
            assert task._schedule_points > before

        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.receive_some)
            await wait_all_tasks_blocked()
            await fails(trio.BusyResourceError, stream.receive_some)
            nursery.cancel_scope.cancel()
        with transport._send_conflict_detector:
            await fails(trio.BusyResourceError, stream.wait_send_all_might_not_block)
            await fails(trio.BusyResourceError, lambda: stream.send_all(b"x"))
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")
        await stream.aclose()
        peer.close()

    backend.run(main)


@pytest.mark.parametrize("size", [RECORD, 1000])
@needs_completions
def test_without_memory_nothing_that_was_decrypted_is_lost_and_nothing_stays_locked(size: int) -> None:
    """Each allocation of a receive fails in turn. Python's ssl itself loses a record if it has no memory to
    shorten it, which is one that is smaller than what was asked for; that raises MemoryError."""
    no_memory = pytest.importorskip("_testcapi")

    def step(call: Any, number: int) -> tuple[str, object]:
        no_memory.set_nomemory(number, number + 1)
        try:
            return "yields", call.send(None)
        except StopIteration as end:
            return "returns", end.value
        except MemoryError:
            return "fails", b""
        finally:
            no_memory.remove_mem_hooks()

    async def attempt(stream: Any, number: int) -> tuple[str, bytes]:
        call = stream.receive_some(3 * RECORD)
        moment = 0
        while True:
            how, value = step(call, number if moment == 0 else 1_000_000)
            moment += 1
            if how != "yields":
                call.close()
                assert type(value) is bytes
                return how, value
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        number, fewest = 0, 0
        while fewest < 5:  # in a row that met none
            stream, peer = await with_peer()
            attributes = vars(stream)
            peer.send(RECORD)
            await arrive()
            received = len(await stream.receive_some(RECORD))
            peer.send(size, size, size, size)
            while peer.sent - received > attributes["_incoming"].pending:
                peer.flush()
                attributes["_incoming"].write(await stream.transport_stream.receive_some())
            how, data = await attempt(stream, number)
            fewest = fewest + 1 if how == "returns" else 0
            assert not attributes["_outer_recv_conflict_detector"]._held
            assert attributes["_inner_recv_lock"]._owner is None
            while how == "returns" or size == RECORD:
                assert data == expected(received, len(data)), number
                received += len(data)
                if received == peer.sent:
                    break
                with trio.fail_after(PATIENCE):
                    data = await stream.receive_some(RECORD)
            number += 1
            await trio.aclose_forcefully(stream)
            peer.close()
        assert number > 10

    URING.run(main)


class HandlerError(Exception):
    """What a signal handler raises."""


@needs_completions
def test_what_a_signal_handler_raises_where_a_function_begins_leaves_nothing_locked() -> None:
    """Python runs handlers there."""

    def raise_at(number: int) -> None:
        begun: set[FrameType] = set()

        def trace(frame: FrameType, event: str, argument: object) -> None:
            # Not where one goes on: what is raised by a tracer there, CPython 3.10 does not have it handle.
            if frame.f_code.co_filename in (tls.__file__, records.__file__) and frame not in begun:
                begun.add(frame)
                if len(begun) == number:
                    raise HandlerError  # which ends the tracing

        sys.settrace(trace)

    async def main() -> None:
        for name, *arguments in (("receive_some",), ("send_all", b"x"), ("wait_send_all_might_not_block",)):
            raised, number = True, 0
            while raised:
                stream, peer = await with_peer()
                peer.send(10)
                await arrive()
                await stream.receive_some(100)
                peer.send(10, 10)
                await arrive()
                number += 1
                tracing = sys.gettrace()
                raise_at(number)
                try:
                    await getattr(stream, name)(*arguments)
                    raised = False
                except HandlerError:
                    pass
                finally:
                    sys.settrace(tracing)
                own = vars(stream)
                assert [own[f"_inner_{one}_lock"]._owner for one in ("send", "recv")] == [None, None], number
                detectors = [own[f"_outer_{one}_conflict_detector"] for one in ("send", "recv")]
                assert not any(detector._held for detector in detectors), number
                await trio.aclose_forcefully(stream)
                peer.close()
            assert number > 1

    URING.run(main)


class Three:
    def __index__(self) -> int:
        return 3


@every_backend
def test_an_answer_that_is_cancelled_on_its_way_breaks_the_stream(backend: Backend) -> None:
    """That to a renegotiation, while the socket is full of what somebody else has sent."""

    async def main() -> None:
        stream, peer = await with_peer(TLS12)
        peer.reads = False
        below = stream.transport_stream.socket
        await fill_for_good(below._sock)
        peer.renegotiate()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_later, scope)
                await stream.receive_some(100)
        assert scope.cancelled_caught
        await every_call_raises(stream, trio.BrokenResourceError)
        await stream.aclose()
        peer.close()

    backend.run(main)


@every_version
@every_backend
def test_what_a_call_of_trios_own_has_left_is_received_at_once(
    backend: Backend, version: ssl.TLSVersion
) -> None:
    """Sizes that are no int are for Trio's own."""

    async def main() -> None:
        stream, peer = await with_peer(version)
        for number in range(3):
            peer.send(10)
            await arrive()
            assert await stream.receive_some(Three()) == expected(10 * number, 3)  # type: ignore[arg-type]
            assert await stream.receive_some(100) == expected(10 * number + 3, 7)
        await trio.aclose_forcefully(stream)
        peer.close()

    backend.run(main)


@needs_completions
@pytest.mark.parametrize("backend", [OFF, EPOLL], ids=["off", "epoll"])
def test_what_a_run_of_trios_own_has_left_is_received_at_once(backend: Backend) -> None:
    kept: list[Any] = []

    async def first() -> None:
        stream, peer = await with_peer()
        peer.send(10)
        await arrive()
        assert await stream.receive_some(100) == expected(0, 10)
        kept.extend([stream, peer])

    async def second() -> None:
        stream, peer = kept
        peer.send(10)
        assert await stream.receive_some(3) == expected(10, 3)

    async def third() -> None:
        stream, peer = kept
        assert await stream.receive_some(100) == expected(13, 7)
        await stream.aclose()
        peer.close()

    URING.run(first)
    backend.run(second)
    URING.run(third)
