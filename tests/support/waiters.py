"""Tasks that wait for a descriptor, how their waits ended, and what they wait for."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
from trio.lowlevel import wait_readable, wait_writable
from trio.testing import wait_all_tasks_blocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Wait: TypeAlias = "Callable[[int | socket.socket], object]"

both_directions = pytest.mark.parametrize("wait", [wait_readable, wait_writable], ids=["read", "write"])


class Waiter:
    """A task in a wait, and how the wait ended."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.scope = trio.CancelScope()
        self.task: trio.lowlevel.Task | None = None

    async def run(self, wait: Wait, fd: int | socket.socket) -> None:
        self.task = trio.lowlevel.current_task()
        with self.scope:
            try:
                await wait(fd)  # type: ignore[misc]
                self.outcomes.append("ready")
            except trio.ClosedResourceError:
                self.outcomes.append("closed")
            except OSError as error:
                self.outcomes.append(f"error {error.errno}")
        if self.scope.cancelled_caught:
            self.outcomes.append("cancelled")


async def reader_and_writer(nursery: trio.Nursery, fd: int | socket.socket) -> tuple[Waiter, Waiter]:
    """Two tasks that wait already, one for each direction."""
    reader, writer = Waiter(), Waiter()
    nursery.start_soon(reader.run, wait_readable, fd)
    nursery.start_soon(writer.run, wait_writable, fd)
    await wait_all_tasks_blocked()
    return reader, writer


@contextmanager
def socketpair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.setblocking(False)
        peer.setblocking(False)
        yield ours, peer


@contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    with ours, peer:
        ours.setblocking(False)
        peer.setblocking(False)
        yield ours, peer


every_pair = pytest.mark.parametrize("make_pair", [socketpair, tcp_pair], ids=["unix", "tcp"])


def fill(sock: socket.socket) -> int:
    """Sends until the socket takes no more: what was sent."""
    sent = 0
    try:
        while True:
            sent += sock.send(bytes(65536))
    except BlockingIOError:
        return sent


def drain(sock: socket.socket) -> int:
    received = 0
    try:
        while data := sock.recv(1 << 20):
            received += len(data)
    except BlockingIOError:
        pass
    return received


def sees_end(sock: socket.socket) -> bool:
    """True if the end of the stream is there now, without waiting."""
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
