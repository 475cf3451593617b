"""Long transfers: nothing is lost or out of order whatever is cancelled, memory stays bounded, and
a slow reader slows its sender down.

TRIO_URING_STRESS_SEED: as in stress/test_interleavings.py.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from equivalence import Backend, io_statistics
from pairs import armed_pair, bytes_read_ahead, peer_socket, reset
from socket_calls import disturbed, expected, pair
from trio.testing import wait_all_tasks_blocked

from trio_uring import RingOptions

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = int(os.environ.get("TRIO_URING_STRESS_SEED", "0"))
SIZE = 100 << 20
SMALL = RingOptions(buffers=2, buffer_size=4096, read_ahead=8192)
URING = Backend("defaults", RingOptions())
RINGS = [
    URING,
    Backend("budget", RingOptions(checkpoint_budget=16)),
    Backend("small buffers", SMALL),
    # Submits in the middle of a tick: only so has the kernel received what is cancelled after it.
    Backend("tiny ring", RingOptions(entries=1, cq_entries=2)),
]
every_ring = pytest.mark.parametrize("backend", RINGS, ids=lambda backend: backend.name.replace(" ", "-"))
BLOCK = expected(0, 1 << 20)


def address_space() -> int:
    """Bytes of memory that this process has in use."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


async def send_blocks(stream: trio.SocketStream, size: int, digest: Any) -> None:
    """Ends the stream after ``size`` bytes."""
    choices = random.Random(SEED + 1)
    while size:
        start = choices.randrange(len(BLOCK))
        data = memoryview(BLOCK)[start : start + min(size, choices.choice([1, 1000, 65_536, 1 << 20]))]
        digest.update(data)
        size -= len(data)
        await stream.send_all(data)
        for _ in range(choices.randrange(3)):  # so that receives wait, too
            await trio.lowlevel.checkpoint()
    await stream.send_eof()


class Receiver:
    """Receives until the end; every receive is cancelled at some moment, most before data comes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.socket: Any = stream.socket
        self.choices = random.Random(SEED)
        self.digest = hashlib.sha256()
        self.received = 0
        self.cancelled = 0

    async def receive(self, calls: list[Any], between: list[Any]) -> None:
        while True:
            size = self.choices.choice([1000, 65_536, 65_536, 300_000])
            call = self.choices.choice(calls)
            data = await disturbed(partial(call, size), self.choices.randrange(4))
            if data is None:
                self.cancelled += 1
            elif not data:
                return
            else:
                self.digest.update(data)
                self.received += len(data)
            if between and not self.choices.randrange(10):
                await self.choices.choice(between)()

    async def recv_into(self, size: int) -> bytes:
        buffer = bytearray(size)
        count = await self.socket.recv_into(buffer)
        return bytes(buffer[:count])

    async def peeked(self, size: int) -> bytes:
        """What is received begins with what was there to be seen."""
        seen = await self.socket.recv(min(size, 100), socket.MSG_PEEK)
        with trio.CancelScope(shield=True):
            data: bytes = await self.socket.recv(size)
        assert data.startswith(seen) or seen.startswith(data)
        return data

    async def ask_for_descriptor(self) -> None:
        assert self.socket.fileno() >= 0

    async def wait_readable(self) -> None:
        await disturbed(partial(trio.lowlevel.wait_readable, self.socket), self.choices.randrange(5))

    async def ask_whether_readable(self) -> None:
        self.socket.is_readable()

    async def receive_by_duplicate(self) -> None:
        """Refused where data was read ahead, which nobody could receive from the duplicate."""
        try:
            duplicate = self.socket.dup()
        except RuntimeError:
            return
        with duplicate:
            try:
                data = os.read(duplicate.fileno(), 1000)
            except BlockingIOError:
                return
        self.digest.update(data)
        self.received += len(data)


@pytest.mark.parametrize("name", ["receive_some", "recv"])
def test_what_waits_in_the_socket_comes_without_being_read_ahead(name: str) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with peer, stream:
            receive: Any = stream.receive_some if name == "receive_some" else stream.socket.recv
            sent = BLOCK[: peer_socket(peer).send(BLOCK)]
            assert len(sent) > 10 * SMALL.read_ahead
            await wait_all_tasks_blocked()
            received = b""
            while len(received) < len(sent):
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await receive(1000)
                assert scope.cancelled_caught
                with trio.testing.assert_checkpoints():
                    received += await receive(1000)
            assert received == sent
            assert bytes_read_ahead() < len(sent) / 2
            async with trio.open_nursery() as nursery:  # nothing waits any more: the next one does
                nursery.start_soon(expect, receive, b"next")
                await wait_all_tasks_blocked()
                await peer.send_all(b"next")
            await peer.send_eof()
            assert await receive(1000) == b""

    Backend("small buffers", SMALL).run(main)


async def receive_all(stream: trio.SocketStream) -> None:
    while await stream.receive_some(1000):
        pass


async def expect(receive: Callable[[int], Any], data: bytes) -> None:
    assert await receive(1000) == data


def test_a_reset_comes_after_what_waits_in_the_socket() -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with peer, stream:
            peer_socket(peer).send(BLOCK)
            await wait_all_tasks_blocked()
            for _ in range(20):  # past what was read ahead
                assert await stream.receive_some(1000)
            reset(peer)
            with pytest.raises(trio.BrokenResourceError) as broken:  # what waits is lost, as on epoll
                await receive_all(stream)
            assert isinstance(broken.value.__cause__, ConnectionResetError)

    Backend("small buffers", SMALL).run(main)


@every_ring
@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize("kind", ["stream", "socket", "mixed"])
def test_cancelled_receives_lose_nothing(backend: Backend, family: str, kind: str) -> None:
    size = SIZE if kind == "stream" or backend is URING else SIZE // 4
    if kind == "mixed" or backend.ring is SMALL:
        size = SIZE // 10

    async def main() -> Receiver:
        sender, stream = pair(family)
        sent = hashlib.sha256()
        receiver = Receiver(stream)
        calls: dict[str, list[Any]] = {
            "stream": [stream.receive_some],
            "socket": [receiver.socket.recv, receiver.recv_into],
            "mixed": [stream.receive_some, receiver.socket.recv, receiver.recv_into, receiver.peeked],
        }
        between: list[Any] = [
            receiver.ask_for_descriptor,
            receiver.wait_readable,
            receiver.ask_whether_readable,
        ]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_blocks, sender, size, sent)
            nursery.start_soon(receiver.receive, calls[kind], between if kind == "mixed" else [])
        assert receiver.received == size
        assert receiver.digest.digest() == sent.digest()
        await sender.aclose()
        await stream.aclose()
        return receiver

    assert backend.run(main).cancelled


@every_ring
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_duplicate_is_refused_or_receives_what_comes_next(backend: Backend, family: str) -> None:
    async def main() -> None:
        sender, stream = pair(family)
        sent = hashlib.sha256()
        receiver = Receiver(stream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_blocks, sender, SIZE // 10, sent)
            nursery.start_soon(receiver.receive, [stream.receive_some], [receiver.receive_by_duplicate])
        assert receiver.received == SIZE // 10
        assert receiver.digest.digest() == sent.digest()
        await sender.aclose()
        await stream.aclose()

    backend.run(main)


@every_ring
def test_a_slow_reader_stops_the_sender_and_bounds_memory(backend: Backend) -> None:
    """Read ahead is ``read_ahead``, and what one tick brings: all buffers at most."""
    ring = backend.ring
    assert ring is not None
    bound = ring.read_ahead + ring.buffers * ring.buffer_size

    async def main() -> None:
        sender, stream = pair("tcp")
        with trio.move_on_after(0.01):
            await stream.receive_some()
        before = address_space()
        sent = 0

        async def send_for_ever() -> None:
            nonlocal sent
            while True:
                await sender.send_all(BLOCK[:10_000])
                sent += 10_000

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_for_ever)
            received = 0
            while received < 300_000:  # in the end by multishots, which then read ahead
                received += len(await stream.receive_some(1000))
            await stopped(lambda: (sent, io_statistics().bytes_read_ahead))
            stopped_at = sent
            assert sent - received < bound + (2 << 20)  # and the buffers of two sockets
            assert address_space() - before < bound + (8 << 20)
            while sent == stopped_at:  # what makes room lets the sender go on
                await stream.receive_some(10_000)
            nursery.cancel_scope.cancel()
        await sender.aclose()
        await stream.aclose()

    backend.run(main)


def test_small_pieces_that_are_read_ahead_take_no_more_memory_than_large_ones() -> None:
    ring = RingOptions(read_ahead=16_384)

    async def main() -> None:
        sender, stream = await armed_pair()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(8000):
                peer_socket(sender).send(b"ab")
                await trio.lowlevel.checkpoint()
            taken = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        await sender.aclose()
        received = 0
        async for data in stream:
            received += len(data)
        await stream.aclose()
        assert received == 16_000
        assert taken < 3 * ring.read_ahead

    Backend("little read ahead", ring).run(main)


async def stopped(progress: Callable[[], object]) -> None:
    """Until nothing happens for a while. (What TCP's timers bring may come still.)"""
    before: object = None
    while before != (now := progress()):
        before = now
        await wait_all_tasks_blocked(0.05)


@every_ring
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_cancelled_send_all_has_sent_a_prefix_and_lets_go_of_the_memory(
    backend: Backend, family: str
) -> None:
    async def main() -> None:
        choices = random.Random(SEED)
        for _ in range(20):
            sender, stream = pair(family)
            data = bytearray(expected(0, 5_000_000))
            scope = trio.CancelScope()
            held = False

            async def send(
                data: bytearray = data, sender: trio.SocketStream = sender, scope: trio.CancelScope = scope
            ) -> None:
                with scope:
                    await sender.send_all(data)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                received = b""
                for _ in range(choices.randrange(20)):
                    received += await stream.receive_some(choices.choice([1000, 100_000]))
                try:
                    data.append(0)
                except BufferError:
                    held = True
                scope.cancel()
            data.append(0)
            assert held or not received
            await sender.aclose()
            async for part in stream:
                received += part
            await stream.aclose()
            assert received == expected(0, len(received))
            assert scope.cancelled_caught == (len(received) < 5_000_000)

    backend.run(main)
