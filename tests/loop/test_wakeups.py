"""A wake-up is not a truth: who was woken from a wait finds the descriptor ready, as on epoll.

The kernel wakes who waits whenever something may have changed; by the time that a task runs,
others may have taken what there was.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from equivalence import Backend, every_backend
from tracing import system_calls, with_strace
from trio.lowlevel import notify_closing, wait_readable, wait_writable
from trio.testing import wait_all_tasks_blocked
from waiters import Waiter, socketpair, tcp_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


@contextmanager
def pipe() -> Iterator[tuple[int, Callable[[], object], Callable[[], object]]]:
    reader, writer = os.pipe()
    try:
        yield reader, lambda: os.write(writer, b"x"), lambda: os.read(reader, 1)
    finally:
        os.close(reader)
        os.close(writer)


@contextmanager
def eventfd() -> Iterator[tuple[int, Callable[[], object], Callable[[], object]]]:
    fd = os.eventfd(0)
    try:
        yield fd, lambda: os.eventfd_write(fd, 1), lambda: os.eventfd_read(fd)
    finally:
        os.close(fd)


@contextmanager
def stream(
    make_pair: Callable[[], AbstractContextManager[tuple[socket.socket, socket.socket]]],
) -> Iterator[tuple[int, Callable[[], object], Callable[[], object]]]:
    with make_pair() as (ours, peer):
        yield ours.fileno(), lambda: peer.send(b"x"), lambda: taken(ours)


def taken(ours: socket.socket) -> bytes:
    """The byte that was sent, which on a busy machine arrives a moment later, even from the same machine."""
    select.select([ours], [], [], 60)
    return ours.recv(1)


@contextmanager
def datagrams() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, peer = socket.socketpair(type=socket.SOCK_DGRAM)
    with ours, peer:
        yield ours, peer


KINDS = {
    "pipe": pipe,
    "eventfd": eventfd,
    "unix": lambda: stream(socketpair),
    "tcp": lambda: stream(tcp_pair),
    "datagrams": lambda: stream(datagrams),
}


@every_backend
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_there_for_a_moment_wakes_nobody(backend: Backend, kind: str) -> None:
    async def main() -> None:
        with KINDS[kind]() as (fd, give, take):
            waiter = Waiter()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waiter.run, wait_readable, fd)
                await wait_all_tasks_blocked()
                await trio.sleep(0)
                for _ in range(3):
                    give()
                    take()
                    await wait_all_tasks_blocked(0.001)
                    assert waiter.outcomes == []
                give()
            assert waiter.outcomes == ["ready"]
            take()

    backend.run(main)


@every_backend
@pytest.mark.parametrize("end", ["cancelled", "closed"])
def test_who_was_not_woken_can_be_cancelled_and_closed(backend: Backend, end: str) -> None:
    """And the ring has let go of the file then: its peer sees the end."""

    async def main() -> None:
        with tcp_pair() as (ours, peer):
            waiter = Waiter()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waiter.run, wait_readable, ours)
                await wait_all_tasks_blocked()
                await trio.sleep(0)
                peer.send(b"x")
                taken(ours)
                await wait_all_tasks_blocked(0.001)
                if end == "cancelled":
                    waiter.scope.cancel()
                else:
                    notify_closing(ours)
            assert waiter.outcomes == [end]
            ours.close()
            peer.setblocking(True)
            peer.settimeout(60)
            assert peer.recv(1) == b""

    backend.run(main)


@every_backend
def test_a_datagram_socket_is_writable_when_its_peer_has_room(backend: Backend) -> None:
    """A reader makes room, which wakes all senders, and another sender has it at once."""

    def send(sender: socket.socket) -> bool:
        try:
            sender.send(b"x")
        except BlockingIOError:
            return False
        return True

    async def main() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(b"")  # a name of the kernel's
            with (
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours,
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
            ):
                for sender in (ours, other):
                    sender.connect(receiver.getsockname())
                    sender.setblocking(False)
                assert send(ours)
                while send(other):
                    pass
                waiter = Waiter()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(waiter.run, wait_writable, ours)
                    await wait_all_tasks_blocked()
                    await trio.sleep(0)
                    for _ in range(3):  # the first one takes ours, which makes room in our own queue
                        receiver.recv(1)
                        assert send(other)
                        await wait_all_tasks_blocked(0.001)
                        assert waiter.outcomes == []
                    receiver.recv(1)
                assert waiter.outcomes == ["ready"]
                assert send(ours)

    backend.run(main)


@every_backend
def test_connect_waits_for_the_handshake(backend: Backend) -> None:
    """Setting the size of a buffer wakes who waits for room in it."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
            others = [socket.socket() for _ in range(3)]
            for other in others:  # they fill the backlog
                other.setblocking(False)
                other.connect_ex(server.getsockname())
            with trio.socket.socket() as sock:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sock.connect, server.getsockname())
                    await trio.sleep(0.01)
                    for size in (100_000, 200_000):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
                        await wait_all_tasks_blocked(0.001)
                        assert nursery.child_tasks
                    nursery.cancel_scope.cancel()
            for other in others:
                other.close()

    backend.run(main)


@every_backend
def test_a_full_pipe_is_writable_when_it_has_room(backend: Backend) -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        page = bytes(select.PIPE_BUF)
        try:
            while True:
                os.write(writer, page)
        except BlockingIOError:
            pass
        waiter = Waiter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter.run, wait_writable, writer)
            await wait_all_tasks_blocked()
            await trio.sleep(0)
            for _ in range(3):
                os.read(reader, len(page))
                os.write(writer, page)
                await wait_all_tasks_blocked(0.001)
                assert waiter.outcomes == []
            os.read(reader, len(page))
        assert waiter.outcomes == ["ready"]
        for fd in (reader, writer):
            os.close(fd)

    backend.run(main)


@every_backend
def test_a_number_that_was_closed_meanwhile_ends_the_wait_or_not_as_it_is(backend: Backend) -> None:
    """The task goes on, and finds out itself, or sleeps on until it is cancelled: it never spins."""

    async def main() -> None:
        with socketpair() as (ours, peer):
            waiter = Waiter()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waiter.run, wait_readable, ours)
                await wait_all_tasks_blocked()
                await trio.sleep(0)
                peer.send(b"x")
                ours.close()
                await wait_all_tasks_blocked(0.01)
                waiter.scope.cancel()
            assert waiter.outcomes in (["ready"], ["cancelled"])

    backend.run(main)


TICKS = """
import os, sys, trio, trio_uring
async def main():
    for _ in range(int(sys.argv[2])):  # nobody waits for readiness
        await trio.lowlevel.checkpoint()
        await trio.sleep(0.0001)
    pairs = [os.pipe() for _ in range(15)]  # as many as one tick brings
    for _ in range(int(sys.argv[1])):
        async with trio.open_nursery() as nursery:
            for reader, _ in pairs:
                nursery.start_soon(trio.lowlevel.wait_readable, reader)
            await trio.testing.wait_all_tasks_blocked()
            for _, writer in pairs:
                os.write(writer, b"x")
        for reader, _ in pairs:
            os.read(reader, 1)
import trio.testing
trio_uring.run(main)
"""


@with_strace
def test_a_tick_asks_once_for_all_its_descriptors(tmp_path: Path) -> None:
    few, _ = system_calls(tmp_path, "poll", TICKS, "0", "10")
    without, _ = system_calls(tmp_path, "poll", TICKS, "0", "30")
    assert without == few
    many, _ = system_calls(tmp_path, "poll", TICKS, "3", "10")
    assert many == few + 3
