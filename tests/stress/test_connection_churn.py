"""Connections come, echo and go in every way there is; nothing hangs, is lost or leaks.

Clients send a stream of known bytes and check what comes back, through cancelled
receives and sends; then they close, shut down, reset, vanish, or have another task or
the server do it. Their descriptors' numbers come back at once.
"""

from __future__ import annotations

import gc
import random
import socket
import struct
from typing import TYPE_CHECKING

import pytest
import trio
from equivalence import descriptors_so_far, io_statistics, open_descriptors
from turns import RUN, SEED, Turns, watchdog

import trio_uring
from trio_uring import RingOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable

CLIENTS = 12

RINGS = {
    "default": RingOptions(),
    "few buffers": RingOptions(buffers=2, buffer_size=1024, read_ahead=1024),
    "tiny": RingOptions(entries=1, cq_entries=2, buffers=4),
    "budget": RingOptions(checkpoint_budget=16),
    "cooperative": RingOptions(features={"defer_taskrun": False}),
}

Broken = (trio.BrokenResourceError, trio.ClosedResourceError)


class Churn:
    def __init__(self, seed: int) -> None:
        self.choices = random.Random(seed)
        self.pattern = self.choices.randbytes(4093)  # a prime: no chunk size divides it
        self.echoed = 0

    async def run(self) -> None:
        until = trio.current_time() + RUN
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.serve, listener, nursery)
            async with trio.open_nursery() as clients:
                for _ in range(CLIENTS):
                    clients.start_soon(self.connect, listener.socket.getsockname(), until)
            await listener.aclose()
        gc.collect()
        for _ in range(3):  # the last cancels and closes
            await trio.lowlevel.checkpoint()
        assert io_statistics().operations_in_flight == 0
        assert io_statistics().tasks_waiting_read <= 1
        assert io_statistics().tasks_waiting_write == 0

    # The server

    async def serve(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        while True:
            with trio.move_on_after(self.choices.choice((0, 0.001, 1))):
                try:
                    stream = await listener.accept()
                except trio.ClosedResourceError:
                    return
                nursery.start_soon(self.echo, stream)

    async def echo(self, stream: trio.SocketStream) -> None:
        chunks = self.choices.choice((3, 30, 3000))
        async with stream:
            try:
                for _ in range(chunks):
                    data = await stream.receive_some(self.choices.choice((None, 1, 100, 70_000)))
                    if not data:
                        return
                    await stream.send_all(data)
            except Broken:
                return

    # The clients

    async def connect(self, address: tuple[str, int], until: float) -> None:
        while trio.current_time() < until:
            try:
                stream = await trio.open_tcp_stream(*address)
            except OSError:
                continue
            try:
                await self.use(stream)
            except Broken:
                pass
            finally:
                stream.socket.close()

    async def use(self, stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            end = self.choices.choice((self.close, self.reset, self.leave, self.shut_down))
            nursery.start_soon(self.send, stream, self.choices.choice((1, 100, 10_000, 1_000_000)))
            nursery.start_soon(self.receive, stream)
            await trio.sleep(self.choices.choice((0, 0.001, 0.01, 0.05)))
            if end != self.shut_down:
                end(stream)
                nursery.cancel_scope.cancel()
                return
            with trio.move_on_after(self.choices.choice((0, 0.01))):
                await trio.sleep_forever()
            end(stream)
            nursery.cancel_scope.deadline = trio.current_time() + 0.05

    async def send(self, stream: trio.SocketStream, size: int) -> None:
        sent = 0
        try:
            for _ in range(20):
                await stream.send_all(self.expected(sent, size))
                sent += size
                if self.choices.random() < 0.1:
                    await trio.sleep(0)
        except Broken:
            pass

    async def receive(self, stream: trio.SocketStream) -> None:
        received = 0
        try:
            while True:
                data = b""
                with trio.move_on_after(self.choices.choice((0, 0.0002, 1))):
                    data = await self.receive_somehow(stream)
                    if not data:
                        return
                assert data == self.expected(received, len(data))
                received += len(data)
                self.echoed += len(data)
        except (*Broken, ConnectionResetError, BrokenPipeError):
            pass
        except (OSError, ValueError):
            assert stream.socket.fileno() < 0

    def receive_somehow(self, stream: trio.SocketStream) -> Awaitable[bytes]:
        size = self.choices.choice((1, 100, 70_000))
        way = self.choices.random()
        if way < 0.8:
            return stream.receive_some(size)
        if way < 0.9:
            return stream.socket.recv(size)
        if way < 0.95:
            return self.receive_into(stream, size)
        return self.receive_when_readable(stream, size)

    async def receive_into(self, stream: trio.SocketStream, size: int) -> bytes:
        buffer = bytearray(size)
        count = await stream.socket.recv_into(buffer)
        return bytes(buffer[:count])

    async def receive_when_readable(self, stream: trio.SocketStream, size: int) -> bytes:
        await trio.lowlevel.wait_readable(stream.socket)
        return await stream.socket.recv(size)

    def expected(self, start: int, size: int) -> bytes:
        start %= len(self.pattern)
        return (self.pattern * (2 + size // len(self.pattern)))[start : start + size]

    # Ends

    def close(self, stream: trio.SocketStream) -> None:
        stream.socket.close()

    def reset(self, stream: trio.SocketStream) -> None:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()

    def leave(self, stream: trio.SocketStream) -> None:
        """Its tasks are cancelled first, and it is closed by `connect`."""

    def shut_down(self, stream: trio.SocketStream) -> None:
        try:
            stream.socket.shutdown(socket.SHUT_WR)
        except OSError:
            assert stream.socket.fileno() >= 0  # the server has reset it


@pytest.mark.parametrize("ring", RINGS.values(), ids=RINGS)
def test_connections_come_and_go_and_nothing_stays(ring: RingOptions) -> None:
    seeds = random.Random(SEED)
    before = descriptors_so_far()
    turns = Turns(1 / len(RINGS))
    for _ in turns:
        churn = Churn(seeds.randrange(1 << 32))
        with watchdog():
            trio_uring.run(churn.run, ring=ring)
        turns.happened += churn.echoed
        assert open_descriptors() == before
