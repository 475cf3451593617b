"""No byte of one connection reaches another, nor a byte of memory that nobody has received into.

Many connections at once, over TCP, Unix sockets and TLS: each sends a pattern of its own, so that a byte
that is lost, doubled, out of place or of another one is seen as such. Their receives and sends are
cancelled, they are closed in every way there is, also below Trio's sockets, by other threads, in signal
handlers and by `dup2`, and their descriptors' numbers are others' at once. The buffers are few and small.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import descriptors_so_far, needs_completions, open_descriptors
from tls_peer import VERSIONS, context
from turns import RUN, SEED, Turns, watchdog

import trio_uring
from trio_uring import RingOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

CONVERSATIONS = 24
UNTOUCHED = 0xA5
CONTEXTS = {side: context(VERSIONS[-1], server_side=side) for side in (False, True)}

RINGS = {
    "default": RingOptions(),
    "small buffers": RingOptions(buffers=2, buffer_size=1024, read_ahead=1),
    "accepting ahead": RingOptions(entries=1, cq_entries=2, buffers=4, buffer_size=1024, accept_ahead=3),
    "budget": RingOptions(checkpoint_budget=16, buffers=4, buffer_size=2048, read_ahead=3000),
    "cooperative": RingOptions(buffers=2, buffer_size=4096, features={"defer_taskrun": False}),
}

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
Broken = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class Pattern:
    """What one end of one connection sends to the other."""

    def __init__(self, number: int) -> None:
        self._bytes = random.Random(number).randbytes(4093)  # a prime: no size of a buffer divides it
        self.sent = 0
        self.received = 0

    def part(self, start: int, size: int) -> bytes:
        start %= len(self._bytes)
        return (self._bytes * (2 + size // len(self._bytes)))[start : start + size]

    def next(self, size: int) -> bytes:
        return self.part(self.sent, size)

    def look(self, data: bytes) -> None:
        assert data == self.part(self.received, len(data))

    def take(self, data: bytes) -> None:
        self.look(data)
        self.received += len(data)


class Crowd:
    def __init__(self, seed: int) -> None:
        self.choices = random.Random(seed)
        self.until = 0.0
        self.connected = trio.Lock()
        self.received = 0

    async def run(self) -> None:
        self.until = trio.current_time() + RUN
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener, trio.open_nursery() as nursery:
            for _ in range(CONVERSATIONS):
                nursery.start_soon(self.converse, listener)
            nursery.start_soon(self.send_datagrams)
        for _ in range(3):  # the last cancels and closes
            await trio.lowlevel.checkpoint()

    async def converse(self, listener: trio.SocketListener) -> None:
        while trio.current_time() < self.until:
            kind = self.choices.choice(("tcp", "tcp", "unix", "tls"))
            if kind == "tls":
                await Encrypted(self, *await self.pair(listener)).run()
            elif kind == "tcp":
                await Plain(self, *await self.pair(listener)).run()
            else:
                near, far = socket.socketpair()
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
                await Plain(self, stream, far).run()

    async def pair(self, listener: trio.SocketListener) -> tuple[trio.SocketStream, socket.socket]:
        async with self.connected:
            far = socket.create_connection(listener.socket.getsockname())
            while True:
                with trio.move_on_after(self.choices.choice((0, 0.001, 1))):
                    stream = await listener.accept()
                    assert stream.socket.getpeername() == far.getsockname()
                    return stream, far

    async def disturbed(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """What it returns; None if it was cancelled at a moment of chance."""
        kind = self.choices.randrange(6)
        if kind < 2:
            with trio.move_on_after(self.choices.random() / 1000 * kind):
                return await call()
        elif kind == 2:
            result = None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.cancel_soon, nursery.cancel_scope)
                result = await call()
                nursery.cancel_scope.cancel()
            return result
        else:
            with trio.move_on_after(0.01):
                return await call()
        return None

    async def cancel_soon(self, scope: trio.CancelScope) -> None:
        for _ in range(self.choices.randrange(3)):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async def send_datagrams(self) -> None:
        """A datagram is what was sent, and what is behind it in a longer buffer stays as it was."""
        number = self.choices.randrange(1 << 32)
        with (
            trio.socket.socket(type=socket.SOCK_DGRAM) as here,
            socket.socket(type=socket.SOCK_DGRAM) as there,
        ):
            await here.bind(("127.0.0.1", 0))
            there.bind(("127.0.0.1", 0))
            while trio.current_time() < self.until:
                pattern = Pattern(number := number + 1)
                there.sendto(pattern.part(0, self.choices.randrange(1500)), here.getsockname())
                buffer = bytearray([UNTOUCHED]) * 2000
                got = None
                while got is None:
                    if self.choices.random() < 0.5:
                        got = await self.disturbed(partial(here.recvfrom_into, buffer))
                        data = bytes(buffer[: got[0]]) if got else b""
                    else:
                        got = await self.disturbed(partial(here.recvfrom, 2000))
                        data = got[0] if got else b""
                pattern.take(data)
                untouched = bytes([UNTOUCHED]) * len(buffer)
                assert bytes(buffer) in (untouched, data + untouched[len(data) :])
                await here.sendto(pattern.part(0, 1000), there.getsockname())
                assert there.recv(2000) == pattern.part(0, 1000)


class Plain:
    """A stream of the run, and a socket of the standard library, which neither waits."""

    def __init__(self, crowd: Crowd, near: trio.SocketStream, far: socket.socket) -> None:
        far.setblocking(False)
        self.crowd, self.near, self.far = crowd, near, far
        self.choices = crowd.choices
        self.inward, self.outward = (Pattern(self.choices.randrange(1 << 32)) for _ in range(2))
        self.stranger: tuple[socket.socket, socket.socket] | None = None
        """Who has the number of the run's socket by now, and its peer."""

    async def run(self) -> None:
        with self.far:
            try:
                for _ in range(self.choices.randrange(12)):
                    await self.choices.choice((self.send, self.receive, self.receive, self.wait))()
                await self.end()
                self.drain()
            finally:
                self.near.socket.close()
                self.look_at_stranger()

    async def wait(self) -> None:
        await trio.sleep(self.choices.choice((0, 0, 0.0005)))

    def size(self) -> int:
        return self.choices.choice((1, 10, 1000, 1024, 3000, 70_000))

    # From the peer

    async def receive(self) -> None:
        with suppress(BlockingIOError):
            for _ in range(self.choices.randrange(1, 4)):
                self.inward.sent += self.far.send(self.inward.next(self.size()))
        if self.choices.random() < 0.1:
            self.inward.look(await self.crowd.disturbed(partial(self.peek, self.size())) or b"")
        while self.inward.received < self.inward.sent and self.choices.random() < 0.9:
            call = self.choices.choice((self.near.receive_some, self.near.socket.recv, self.receive_into))
            data = await self.crowd.disturbed(partial(call, self.size()))
            assert data != b""
            self.inward.take(data or b"")
            self.crowd.received += len(data or b"")
            assert self.inward.received <= self.inward.sent

    def peek(self, size: int) -> Awaitable[bytes]:
        return self.near.socket.recv(size, socket.MSG_PEEK)

    async def receive_into(self, size: int) -> bytes:
        buffer = bytearray([UNTOUCHED]) * size
        call = self.choices.choice((self.near.socket.recv_into, self.near.socket.recvfrom_into))
        got = await call(buffer)
        count = got if isinstance(got, int) else got[0]
        assert set(buffer[count:]) <= {UNTOUCHED}
        return bytes(buffer[:count])

    # To the peer

    async def send(self) -> None:
        data = self.outward.next(self.size())
        call: Callable[[], Awaitable[object]]
        if self.choices.random() < 0.7:
            call = partial(self.near.send_all, self.choices.choice((data, memoryview(data), bytearray(data))))
        else:
            call = partial(self.near.socket.send, data)
        self.outward.sent += len(data)  # at most
        await self.crowd.disturbed(call)
        self.drain()
        self.outward.sent = self.outward.received

    def drain(self) -> None:
        with suppress(BlockingIOError, ConnectionError):
            while self.far.fileno() >= 0 and (data := self.far.recv(100_000)):
                self.outward.take(data)
        assert self.outward.received <= self.outward.sent

    # Ends

    async def end(self) -> None:
        """In one of all ways, while a task receives, and perhaps another one sends."""
        async with trio.open_nursery() as nursery:
            for call in self.choices.sample((self.receive_at_the_end, self.send_at_the_end), 2)[
                : self.choices.randrange(3)
            ]:
                nursery.start_soon(call)
            for _ in range(self.choices.randrange(3)):
                await trio.lowlevel.checkpoint()
            self.choices.choice(
                (
                    self.close,
                    self.close_below,
                    self.detach_below,
                    self.close_in_a_thread,
                    self.close_in_a_signal_handler,
                    self.put_another_in_place,
                    self.reset,
                )
            )()
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    async def receive_at_the_end(self) -> None:
        with suppress(*Broken):
            while self.stranger is None and (data := await self.near.receive_some(self.size())):
                self.inward.take(data)

    async def send_at_the_end(self) -> None:
        data = self.outward.next(self.choices.choice((10, 200_000)))
        self.outward.sent += len(data)
        with suppress(*Broken):
            if self.stranger is None:
                await self.near.send_all(data)

    @property
    def sock(self) -> socket.socket:
        sock: socket.socket = self.near.socket._sock  # type: ignore[attr-defined]
        return sock

    def close(self) -> None:
        self.near.socket.close()

    def close_below(self) -> None:
        self.sock.close()

    def detach_below(self) -> None:
        os.close(self.sock.detach())

    def close_in_a_thread(self) -> None:
        thread = threading.Thread(target=self.sock.close)
        thread.start()
        thread.join()

    def close_in_a_signal_handler(self) -> None:
        sock = self.sock
        before = signal.signal(signal.SIGUSR1, lambda *_: sock.close())
        signal.raise_signal(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, before)

    def put_another_in_place(self) -> None:
        """The run has to be told, as before a close: what is queued would be sent to the other one."""
        self.stranger = socket.socketpair()
        for one in self.stranger:
            one.setblocking(False)
        self.stranger[1].send(b"for the stranger")
        trio.lowlevel.notify_closing(self.sock)
        os.dup2(self.stranger[0].fileno(), self.sock.fileno(), inheritable=False)

    def look_at_stranger(self) -> None:
        """Nothing has reached him but what he was sent, and he has sent nothing."""
        if self.stranger is None:
            return
        mine, peer = self.stranger
        with mine, peer:
            assert mine.recv(1000) == b"for the stranger"
            with pytest.raises(BlockingIOError):
                peer.recv(1000)

    def reset(self) -> None:
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far.close()


class Encrypted:
    """Two streams of the run. A byte that is not the peer's breaks the connection."""

    def __init__(self, crowd: Crowd, near: trio.SocketStream, far: socket.socket) -> None:
        self.crowd = crowd
        self.choices = crowd.choices
        self.patterns = tuple(Pattern(self.choices.randrange(1 << 32)) for _ in range(2))
        client = trio.SocketStream(trio.socket.from_stdlib_socket(far))
        self.ends = (
            trio.SSLStream(near, CONTEXTS[True], server_side=True),
            trio.SSLStream(client, CONTEXTS[False], server_hostname="localhost"),
        )

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                for end in self.ends:
                    nursery.start_soon(end.do_handshake)
            with trio.move_on_after(self.choices.choice((0.01, 0.1))):
                async with trio.open_nursery() as nursery:
                    for here, there, pattern in self.both_ways():
                        nursery.start_soon(self.send, here, pattern)
                        nursery.start_soon(self.receive, there, pattern)
        finally:
            for end in self.ends:
                end.transport_stream.socket.close()

    def both_ways(self) -> Iterator[tuple[Any, Any, Pattern]]:
        here, there = self.ends
        yield here, there, self.patterns[0]
        yield there, here, self.patterns[1]

    async def send(self, end: Any, pattern: Pattern) -> None:
        for _ in range(self.choices.randrange(1, 10)):
            data = pattern.next(self.choices.choice((1, 1000, 40_000)))
            pattern.sent += len(data)
            await end.send_all(data)

    async def receive(self, end: Any, pattern: Pattern) -> None:
        while True:
            data = await self.crowd.disturbed(
                partial(end.receive_some, self.choices.choice((1, 500, 100_000)))
            )
            pattern.take(data or b"")
            assert pattern.received <= pattern.sent
            self.crowd.received += len(data or b"")


@needs_completions  # else sockets are Trio's own, and send to whatever has their number
@pytest.mark.parametrize("ring", RINGS.values(), ids=RINGS)
def test_no_byte_of_a_connection_reaches_another(ring: RingOptions) -> None:
    seeds = random.Random(SEED)
    before = descriptors_so_far()
    turns = Turns(1 / len(RINGS))
    for _ in turns:
        crowd = Crowd(seeds.randrange(1 << 32))
        with watchdog():
            trio_uring.run(crowd.run, ring=ring)
        turns.happened += crowd.received
        assert descriptors_so_far() == before
    assert open_descriptors() == before
