"""The part of the workload that is made of datagrams, waits, processes and threads."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import trio

from trio_uring import Datagrams

if TYPE_CHECKING:
    from work import Work

    from trio_uring import Datagram

BYTES = 150_000
CALLS = 200


async def udp(work: Work) -> None:
    """One datagram at a time is on its way, so that none is dropped."""
    with (
        trio.socket.socket(type=socket.SOCK_DGRAM) as server,
        trio.socket.socket(type=socket.SOCK_DGRAM) as client,
    ):
        await server.bind(("127.0.0.1", 0))
        await client.bind(("127.0.0.1", 0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_datagrams, server)
            for number in range(50):
                datagram = work.expected(number, work.size(1400))
                await client.sendto(datagram, server.getsockname())
                answer = None
                while answer is None:
                    with work.patience():
                        answer, _ = await client.recvfrom(2000)
                assert answer == datagram
                work.checked += len(answer)
            nursery.cancel_scope.cancel()


async def answer_datagrams(server: trio.socket.SocketType) -> None:
    while True:
        datagram, address = await server.recvfrom(2000)
        await server.sendto(datagram, address)


async def unix_datagrams(work: Work) -> None:
    """The sender waits whenever the receiver's queue is full."""
    left, right = trio.socket.socketpair(type=socket.SOCK_DGRAM)
    with left, right:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_datagrams, work, left)
            for number in range(CALLS):
                datagram = None
                while datagram is None:
                    with work.patience():
                        datagram = await right.recv(2000)
                assert datagram == work.expected(number, 1 + number)
                work.checked += len(datagram)


async def send_datagrams(work: Work, sock: trio.socket.SocketType) -> None:
    for number in range(CALLS):
        await sock.send(work.expected(number, 1 + number))


async def datagram_batches(work: Work) -> None:
    """The same by batches, of which the sender has one that is larger than the queue."""
    left, right = trio.socket.socketpair(type=socket.SOCK_DGRAM)
    async with (
        Datagrams(left) as sender,
        Datagrams(right, count=5) as receiver,
        trio.open_nursery() as nursery,
    ):
        batch = [(work.expected(number, 1 + number), None) for number in range(CALLS)]
        nursery.start_soon(sender.send, batch)
        received = 0
        while received < CALLS:
            found: list[Datagram] = []
            with work.patience():
                found = await receiver.receive()
            for each in found:
                assert each.data == batch[received][0]
                work.checked += len(each.data)
                received += 1


async def waits(work: Work) -> None:
    """What is said to be ready is ready: nobody else takes it."""
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_when_writable, work, left)
            received = 0
            while received < BYTES:
                with work.patience() as scope:
                    await trio.lowlevel.wait_readable(right)
                if scope.cancelled_caught:
                    continue
                data = right.recv(work.size(5000))
                work.check(data, received)
                received += len(data)


async def send_when_writable(work: Work, sock: socket.socket) -> None:
    sent = 0
    while sent < BYTES:
        await trio.lowlevel.wait_writable(sock)
        sent += sock.send(work.expected(sent, BYTES - sent))


async def processes(work: Work) -> None:
    data = work.expected(0, BYTES)
    done = await trio.run_process(["cat"], stdin=data, capture_stdout=True)
    assert done.stdout == data
    work.checked += BYTES
    failed = await trio.run_process(["sh", "-c", "exit 3"], check=False)
    assert failed.returncode == 3
    with trio.move_on_after(0.02) as scope:
        await trio.run_process(["sleep", "60"])
    assert scope.cancelled_caught


async def threads(work: Work) -> None:
    token = trio.lowlevel.current_trio_token()
    numbers: list[int] = []

    def call() -> int:
        for number in range(CALLS):
            token.run_sync_soon(numbers.append, number)
        return trio.from_thread.run(sleep_and_return, 42)

    for _ in range(3):
        numbers.clear()
        assert await trio.to_thread.run_sync(call) == 42
        while len(numbers) < CALLS:
            await trio.sleep(0)
        assert numbers == list(range(CALLS))
    work.checked += CALLS


async def sleep_and_return(value: int) -> int:
    await trio.sleep(0.001)
    return value


async def cancellations(work: Work) -> None:
    """Tasks that wait for what never comes, and are cancelled together."""
    left, right = trio.socket.socketpair()
    with left, right, trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                with work.errors():
                    nursery.start_soon(left.recv, 10)
                    nursery.start_soon(trio.lowlevel.wait_readable, right)
                    nursery.start_soon(accept_nobody, work, listener)
                    nursery.start_soon(trio.sleep_forever)
                    await trio.sleep(work.choices.choice((0, 0.001)))
                    nursery.cancel_scope.cancel()


async def accept_nobody(work: Work, listener: trio.socket.SocketType) -> None:
    with work.errors():
        await listener.accept()


PARTS = (udp, unix_datagrams, datagram_batches, waits, processes, threads, cancellations)
