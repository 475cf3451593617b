"""Everything at once, in random order: nothing may hang, get lost, leak or be mixed up.

Threads and signal handlers call `run_sync_soon`; streams carry data that is checked
byte by byte while their waits are cancelled; descriptors are waited for, closed in
every way that is legal, and their numbers are given out again.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio
from equivalence import descriptors_so_far, open_descriptors
from trio.lowlevel import notify_closing, wait_readable, wait_writable
from turns import RINGS, RUN, SEED, Turns, watchdog

import trio_uring
from trio_uring import RingOptions

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def alarms(token: trio.lowlevel.TrioToken, calls: Calls) -> Iterator[None]:
    """A signal every two milliseconds, whose handler calls."""

    def handle(*_: object) -> None:
        calls.send(token)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Calls:
    """Calls from one source: those accepted are received, each once."""

    def __init__(self) -> None:
        self.accepted = 0
        self.received: list[int] = []

    def send(self, token: trio.lowlevel.TrioToken) -> None:
        self.accepted += 1
        try:
            token.run_sync_soon(self.received.append, self.accepted)
        except trio.RunFinishedError:
            self.accepted -= 1
            raise

    def send_until_the_end(self, token: trio.lowlevel.TrioToken, choices: random.Random) -> None:
        try:
            while True:
                for _ in range(choices.randrange(50)):
                    self.send(token)
                time.sleep(choices.choice((0, 0, 0.0001, 0.002)))
        except trio.RunFinishedError:
            pass


def pair() -> tuple[socket.socket, socket.socket]:
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    peer.setblocking(False)
    return ours, peer


class Stream:
    """Data from one end to the other, checked at the end of the way."""

    def __init__(self, choices: random.Random) -> None:
        self.choices = choices
        self.sender, self.receiver = pair()
        self.pattern = choices.randbytes(4093)  # a prime: no chunk size divides it
        self.sent = 0

    def expected(self, start: int, size: int) -> bytes:
        turns = 2 + size // len(self.pattern)
        start %= len(self.pattern)
        return (self.pattern * turns)[start : start + size]

    async def send(self, until: float) -> None:
        with self.sender:
            while trio.current_time() < until:
                try:
                    self.sent += self.sender.send(
                        self.expected(self.sent, self.choices.randrange(1, 100_000))
                    )
                except BlockingIOError:
                    with trio.move_on_after(self.choices.choice((0, 0.0001, 1))):
                        await wait_writable(self.sender)
                if self.choices.random() < 0.1:
                    await trio.sleep(self.choices.choice((0, 0.001)))
            notify_closing(self.sender)

    async def receive(self) -> None:
        received = 0
        with self.receiver:
            while True:
                try:
                    data = self.receiver.recv(self.choices.randrange(1, 100_000))
                except BlockingIOError:
                    with trio.move_on_after(self.choices.choice((0, 0.0001, 1))):
                        await wait_readable(self.receiver)
                    continue
                if not data:
                    break
                assert data == self.expected(received, len(data))
                received += len(data)
                if self.choices.random() < 0.1:
                    await trio.lowlevel.checkpoint()
            notify_closing(self.receiver)
        assert received == self.sent


async def wait_for_any_end(wait: object, sock: socket.socket, scope: trio.CancelScope) -> None:
    with scope, suppress(trio.ClosedResourceError):
        await wait(sock)  # type: ignore[operator]


def fill(sock: socket.socket) -> None:
    with suppress(BlockingIOError):
        while sock.send(bytes(65536)):
            pass


async def disturb(
    choices: random.Random, ours: socket.socket, peer: socket.socket, scopes: list[trio.CancelScope]
) -> None:
    for act in choices.choices(("send", "cancel", "close", "half-close", "sleep"), k=choices.randrange(4)):
        if act == "send":
            with suppress(BrokenPipeError):
                peer.send(b"x")
        elif act == "cancel":
            choices.choice(scopes).cancel()
        elif act == "close":
            notify_closing(ours)
        elif act == "half-close":
            peer.shutdown(socket.SHUT_WR)
        else:
            await trio.sleep(choices.choice((0, 0.0005)))


async def open_and_close(choices: random.Random, until: float) -> None:
    """Descriptors whose waits are ended in every way; their numbers come back at once."""
    while trio.current_time() < until:
        ours, peer = pair()
        if choices.random() < 0.5:
            fill(ours)
        scopes = [trio.CancelScope(), trio.CancelScope()]
        async with trio.open_nursery() as nursery:
            for wait, scope in zip((wait_readable, wait_writable), scopes, strict=True):
                if choices.random() < 0.8:
                    nursery.start_soon(wait_for_any_end, wait, ours, scope)
            for _ in range(choices.randrange(3)):
                await trio.lowlevel.checkpoint()
            await disturb(choices, ours, peer, scopes)
            for _ in range(2):  # until every wait has begun
                await trio.lowlevel.checkpoint()
            if choices.random() < 0.5:
                notify_closing(ours)
            else:
                nursery.cancel_scope.cancel()
            ours.close()
            assert sees_end(peer)
        peer.close()


def sees_end(sock: socket.socket) -> bool:
    try:
        while sock.recv(1 << 20):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass  # there was data that nobody had read
    return True


async def close_behind_our_back(choices: random.Random, until: float) -> None:
    """A number changes hands while a task waits for it: it wakes, or is cancelled."""
    while trio.current_time() < until:
        first, first_peer = pair()
        second, second_peer = pair()
        with first, first_peer, second, second_peer:
            scope = trio.CancelScope()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_for_any_end, wait_readable, first, scope)
                for _ in range(choices.randrange(3)):
                    await trio.lowlevel.checkpoint()
                os.dup2(second.fileno(), first.fileno())
                await trio.sleep(choices.choice((0, 0.0005)))
                second_peer.send(b"x")
                scope.cancel()
            await wait_readable(first)
            notify_closing(first)
            notify_closing(second)


async def stress(choices: random.Random) -> tuple[list[Calls], list[threading.Thread]]:
    token = trio.lowlevel.current_trio_token()
    until = trio.current_time() + RUN
    sources = [Calls() for _ in range(4)]
    threads = [
        threading.Thread(target=calls.send_until_the_end, args=(token, random.Random(choices.random())))
        for calls in sources[1:]
    ]
    for thread in threads:
        thread.start()
    with alarms(token, sources[0]):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                stream = Stream(choices)
                nursery.start_soon(stream.send, until)
                nursery.start_soon(stream.receive)
                nursery.start_soon(open_and_close, choices, until)
                nursery.start_soon(close_behind_our_back, choices, until)
    statistics: object = trio.lowlevel.current_statistics().io_statistics
    assert isinstance(statistics, trio_uring.UringStatistics)
    assert statistics.operations_in_flight == 0
    assert statistics.tasks_waiting_read <= 1
    return sources, threads


@pytest.mark.parametrize("ring", RINGS.values(), ids=RINGS)
def test_nothing_hangs_gets_lost_or_leaks(ring: RingOptions) -> None:
    choices = random.Random(SEED)
    before = descriptors_so_far()
    turns = Turns(1 / len(RINGS))
    for _ in turns:
        with watchdog():
            sources, threads = trio_uring.run(stress, choices, ring=ring)
            for thread in threads:
                thread.join()
        turns.happened += 1
        by_signals, *by_threads = sources
        # A handler may interrupt another one, a thread is never ahead of itself.
        assert sorted(by_signals.received) == list(range(1, by_signals.accepted + 1)) != []
        for calls in by_threads:
            assert calls.received == list(range(1, calls.accepted + 1)) != []
        assert open_descriptors() == before
