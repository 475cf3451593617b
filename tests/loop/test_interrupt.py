"""The interrupt behind `run_sync_soon`: nothing lost, and hardly a system call.

From threads, signal handlers and finalisers, while the loop sleeps, works and
ends. Both backends have to keep every call; the counts are a ring's.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
import trio
from equivalence import EPOLL, PATIENCE, URING, Backend, descriptors_so_far, every_backend, open_descriptors
from tracing import system_calls, with_strace

import trio_uring

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import outcome


@every_backend
def test_no_call_from_threads_is_lost_while_the_loop_sleeps_and_works(backend: Backend) -> None:
    threads, calls = (4, 20_000) if backend in (EPOLL, URING) else (4, 2_000)

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        received = [0] * threads
        finished = trio.Event()

        def receive(thread: int, call: int) -> None:
            assert received[thread] == call
            received[thread] += 1
            if sum(received) == threads * calls:
                finished.set()

        def send(thread: int) -> None:
            for call in range(calls):
                token.run_sync_soon(receive, thread, call)
                if call % 100 == 0:
                    time.sleep(0)

        async def work() -> None:
            while not finished.is_set():
                for _ in range(10):
                    await trio.lowlevel.checkpoint()
                await trio.sleep(0.0005)

        senders = [threading.Thread(target=send, args=(thread,)) for thread in range(threads)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            for sender in senders:
                sender.start()
            await finished.wait()
        for sender in senders:
            sender.join()
        assert received == [calls] * threads

    backend.run(main)


@every_backend
def test_each_call_wakes_a_sleeping_loop(backend: Backend) -> None:
    """One at a time: nothing else wakes the loop, so that one lost call would hang it."""

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        answered = threading.Semaphore(0)

        def call_and_wait() -> None:
            for _ in range(1_000):
                token.run_sync_soon(answered.release)
                assert answered.acquire(timeout=PATIENCE)

        await trio.to_thread.run_sync(call_and_wait, abandon_on_cancel=True)

    backend.run(main)


@every_backend
def test_no_call_from_signal_handlers_is_lost(backend: Backend) -> None:
    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        sent = 0
        received = 0
        finished = trio.Event()

        def receive() -> None:
            nonlocal received
            received += 1
            if received == 300:
                finished.set()

        def handle(*_: object) -> None:
            nonlocal sent
            if sent < 300:
                sent += 1
                token.run_sync_soon(receive)

        before = signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await finished.wait()
                nursery.cancel_scope.cancel()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert sent == received == 300

    backend.run(main)


class Caller:
    """Calls as it is collected, in whatever thread that happens."""

    def __init__(self, token: trio.lowlevel.TrioToken, function: Callable[[], object]) -> None:
        self.myself = self
        self.token = token
        self.function = function

    def __del__(self) -> None:
        self.token.run_sync_soon(self.function)


@every_backend
def test_no_call_from_finalisers_is_lost(backend: Backend) -> None:
    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        received = 0

        def receive() -> None:
            nonlocal received
            received += 1

        def collect() -> None:
            for _ in range(200):
                Caller(token, receive)
            gc.collect()

        collect()
        await trio.to_thread.run_sync(collect, abandon_on_cancel=True)
        while received < 400:
            await trio.sleep(0.001)

    backend.run(main)


@every_backend
def test_calls_after_the_end_are_refused(backend: Backend) -> None:
    async def main() -> trio.lowlevel.TrioToken:
        return trio.lowlevel.current_trio_token()

    token = backend.run(main)
    with pytest.raises(trio.RunFinishedError):
        token.run_sync_soon(print)
    outcomes: list[object] = []

    def call() -> None:
        try:
            token.run_sync_soon(print)
        except trio.RunFinishedError as error:
            outcomes.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert len(outcomes) == 1


@every_backend
def test_calls_that_race_with_the_end_of_runs(backend: Backend) -> None:
    """Each is run or refused; none harms the next run, whose descriptors have the same numbers."""
    tokens: list[trio.lowlevel.TrioToken] = []
    stop = threading.Event()
    refused = accepted = ran = 0

    def count() -> None:
        nonlocal ran
        ran += 1

    def hammer() -> None:
        nonlocal refused, accepted
        last = False
        while not last:
            last = stop.is_set()  # then all runs are over
            for token in tokens[-2:]:
                try:
                    token.run_sync_soon(count)
                    accepted += 1
                except trio.RunFinishedError:
                    refused += 1

    async def main() -> None:
        tokens.append(trio.lowlevel.current_trio_token())
        with socket.socket() as sock:
            with trio.move_on_after(0.0002):
                await trio.lowlevel.wait_readable(sock)
            await trio.lowlevel.checkpoint()

    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        for _ in range(100):
            backend.run(main)
    finally:
        stop.set()
        thread.join()
    assert refused
    assert ran == accepted


@every_backend
def test_kept_token_keeps_no_descriptor(backend: Backend) -> None:
    async def main() -> trio.lowlevel.TrioToken:
        return trio.lowlevel.current_trio_token()

    backend.run(main)
    gc.collect()
    before = descriptors_so_far()
    kept = [backend.run(main) for _ in range(10)]
    assert open_descriptors() == before
    assert len(kept) == 10


# How often the eventfd is written

ONE = r'\d+, "\\1\\0\\0\\0\\0\\0\\0\\0", 8'

BUSY = """
import threading, trio, trio.testing, trio_uring
async def main():
    token = trio.lowlevel.current_trio_token()
    finished = threading.Event()
    def call():
        for _ in range(10):
            token.run_sync_soon(int)
        finished.set()
    thread = threading.Thread(target=call)
    thread.start()
    while not finished.is_set():
        await trio.lowlevel.checkpoint()
    thread.join()
trio_uring.run(main)
"""

# A burst begins when the loop sleeps in io_uring_enter, which has the number 426 everywhere;
# its first call holds the loop until the burst is over.
BURSTS = """
import threading, time, trio, trio.testing, trio_uring
async def main():
    token = trio.lowlevel.current_trio_token()
    loop = f"/proc/self/task/{threading.get_native_id()}/syscall"
    for _ in range(5):
        received = trio.Event()
        over = threading.Event()
        def burst():
            while not open(loop).read().startswith("426 "):
                time.sleep(0.001)
            token.run_sync_soon(over.wait)
            for _ in range(500):
                token.run_sync_soon(int)
            token.run_sync_soon(received.set)
            over.set()
        await trio.testing.wait_all_tasks_blocked()
        thread = threading.Thread(target=burst)
        thread.start()
        await received.wait()
        thread.join()
trio_uring.run(main)
"""


@with_strace
def test_busy_loop_is_interrupted_without_a_system_call(tmp_path: Path) -> None:
    written, _ = system_calls(tmp_path, "write", BUSY, like=ONE)
    assert written == 0


@with_strace
def test_burst_costs_one_write(tmp_path: Path) -> None:
    written, _ = system_calls(tmp_path, "write", BURSTS, like=ONE)
    assert written == 5


# A guest run, whose worker thread waits for the signal socket too


class CountWaits(trio.abc.Instrument):
    def __init__(self) -> None:
        self.waits = 0

    def before_io_wait(self, timeout: float) -> None:
        self.waits += 1


@pytest.mark.parametrize("start", [trio.lowlevel.start_guest_run, trio_uring.start_guest_run])
def test_guest_run_sleeps_again_after_a_signal(start: Callable[..., None]) -> None:
    host: queue.Queue[Callable[[], object]] = queue.Queue()
    outcomes: list[outcome.Outcome[int]] = []
    instrument = CountWaits()

    async def main() -> int:
        with trio.fail_after(PATIENCE), trio.open_signal_receiver(signal.SIGUSR1) as received:
            threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            async for _ in received:
                break
        waits = instrument.waits
        await trio.sleep(0.1)
        return instrument.waits - waits

    start(main, run_sync_soon_threadsafe=host.put, done_callback=outcomes.append, instruments=[instrument])
    while not outcomes:
        host.get(timeout=PATIENCE)()
    assert outcomes[0].unwrap() < 10
