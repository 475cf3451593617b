"""Ticks: how many system calls they make, what `get_events` answers, and signals.

The counts come from strace, in a child process, and from the run's statistics,
which have to agree with it.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from equivalence import PATIENCE, Backend, entered, every_backend, every_ring, io_statistics, python
from tracing import system_calls, with_strace
from trio.lowlevel import wait_readable
from trio.testing import wait_all_tasks_blocked

import trio_uring
from trio_uring.loop.manager import UringManager
from trio_uring.ring import opening
from trio_uring.sockets.registry import RunSockets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio_uring import RingOptions


CHECKPOINTS = """
import sys, trio, trio_uring
async def main():
    for _ in range(int(sys.argv[1])):
        await trio.lowlevel.checkpoint()
    print(trio.lowlevel.current_statistics().io_statistics.skipped)
trio_uring.run(main)
"""


@with_strace
def test_idle_checkpoints_make_no_system_call(tmp_path: Path) -> None:
    few, _ = system_calls(tmp_path, "io_uring_enter", CHECKPOINTS, "10")
    many, skipped = system_calls(tmp_path, "io_uring_enter", CHECKPOINTS, "10000")
    assert many == few
    assert int(skipped) >= 10_000


# What a worker of the kernel's leaves behind that has set the flag when the work was done already. The
# kernel does not clear it, since it finds nothing to run. Its place in the shared memory is that of any ring.
NO_WORK_LEFT = """
import ctypes, mmap, os, queue, sys, trio, trio_uring

TASKRUN = 1 << 2

def flags():
    parameters = (ctypes.c_uint32 * 30)()
    fd = ctypes.CDLL(None).syscall(425, 8, parameters)
    assert fd >= 0
    os.close(fd)
    fds = os.listdir("/proc/self/fd")
    ring = next(fd for fd in fds if os.path.lexists(f"/proc/self/fd/{fd}") and
                os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[io_uring]")
    return memoryview(mmap.mmap(int(ring), 4096)).cast("I")[parameters[14] // 4:]

async def main():
    await trio.sleep(0.001)
    words = flags()
    words[0] |= TASKRUN
    before = trio.lowlevel.current_statistics().io_statistics.entered
    for _ in range(10):
        await trio.lowlevel.checkpoint()
    await trio.sleep(0.1)
    assert words[0] & TASKRUN == 0
    print(trio.lowlevel.current_statistics().io_statistics.entered - before)

if sys.argv[1] == "run":
    trio_uring.run(main)
else:
    calls, outcomes = queue.SimpleQueue(), []
    trio_uring.start_guest_run(main, run_sync_soon_threadsafe=calls.put, done_callback=outcomes.append)
    while not outcomes:
        calls.get()()
    outcomes[0].unwrap()
"""


@pytest.mark.parametrize("how", ["run", "guest"])
def test_a_flag_that_promises_work_where_none_is_left_costs_one_system_call(how: str) -> None:
    """Beside the one that waits. A guest run would never sleep again."""
    assert int(python(NO_WORK_LEFT, how)) == (2 if how == "run" else 1)


SLEEPS = """
import sys, trio, trio_uring
off = {"no_iowait": False} if sys.argv[1] == "off" else {}
trio_uring.run(trio.sleep, 0.001, ring=trio_uring.RingOptions(features=off))
"""


@with_strace
@pytest.mark.skipif("no_iowait" not in trio_uring.capabilities().used, reason="this kernel has no such flag")
def test_waits_have_the_flags_of_the_features_that_are_used(tmp_path: Path) -> None:
    flag = r"[^)]*\|(0x80|IORING_ENTER_NO_IOWAIT)\b"
    used, _ = system_calls(tmp_path, "io_uring_enter", SLEEPS, "on", like=flag)
    off, _ = system_calls(tmp_path, "io_uring_enter", SLEEPS, "off", like=flag)
    assert (used > 0, off) == (True, 0)


RUNS = """
import sys, trio, trio_uring
async def main():
    await trio.lowlevel.checkpoint()
for _ in range(int(sys.argv[1])):
    trio_uring.run(main)
"""


@with_strace
def test_run_that_waits_for_nothing_never_enters_its_ring(tmp_path: Path) -> None:
    few, _ = system_calls(tmp_path, "io_uring_enter", RUNS, "1")
    many, _ = system_calls(tmp_path, "io_uring_enter", RUNS, "5")
    assert many == few


PING_PONG = """
import socket, sys, trio, trio_uring
from trio.lowlevel import wait_readable
async def main():
    ours, peer = socket.socketpair()
    for _ in range(int(sys.argv[1])):
        peer.send(b"x")
        await wait_readable(ours)
        ours.recv(1)
    print(trio.lowlevel.current_statistics().io_statistics.entered)
trio_uring.run(main)
"""


@with_strace
def test_tick_with_work_makes_one_system_call(tmp_path: Path) -> None:
    few, few_entered = system_calls(tmp_path, "io_uring_enter", PING_PONG, "10")
    many, many_entered = system_calls(tmp_path, "io_uring_enter", PING_PONG, "60")
    assert many - few == 50
    assert int(many_entered) - int(few_entered) == 50


@every_ring
def test_waits_of_one_tick_are_submitted_together(backend: Backend) -> None:
    async def main() -> None:
        pairs = [socket.socketpair() for _ in range(50)]
        async with trio.open_nursery() as nursery:
            before = entered()
            for ours, peer in pairs:
                peer.send(b"x")
                nursery.start_soon(wait_readable, ours)
        made = entered() - before
        for pair in pairs:
            for end in pair:
                end.close()
        assert backend.ring is not None
        rounds = sum(-(-len(pairs) // size) for size in (backend.ring.entries, backend.ring.cq_entries))
        assert made <= rounds

    backend.run(main)


@every_ring
def test_completions_that_overflow_reach_a_loop_that_never_sleeps(backend: Backend) -> None:
    async def main() -> None:
        ours, peer = socket.socketpair()
        numbers = [os.dup(ours.fileno()) for _ in range(50)]
        async with trio.open_nursery() as nursery:
            for fd in numbers:
                nursery.start_soon(wait_readable, fd)
            await wait_all_tasks_blocked()
            peer.send(b"x")
            for _ in range(200):
                await trio.lowlevel.checkpoint()
            assert len(nursery.child_tasks) == 0
        for fd in numbers:
            os.close(fd)
        ours.close()
        peer.close()

    backend.run(main)


STALE_BIT = """
import ctypes, mmap, os, socket, trio, trio_uring
from equivalence import open_rings
from trio.lowlevel import wait_readable
from trio.testing import wait_all_tasks_blocked

SETUP, SQ_OFF_FLAGS, TASKRUN = 425, 40 + 16, 4

def offset_of_flags():
    parameters = (ctypes.c_char * 120)()
    os.close(ctypes.CDLL(None).syscall(SETUP, 1, parameters))
    return int.from_bytes(parameters[SQ_OFF_FLAGS : SQ_OFF_FLAGS + 4], "little")

async def main():
    at = offset_of_flags()
    [ring] = open_rings()
    pairs = [socket.socketpair() for _ in range(3)]
    with mmap.mmap(ring, at + 4) as words:
        words[at] |= TASKRUN
        async with trio.open_nursery() as nursery:
            for ours, _ in pairs:
                nursery.start_soon(wait_readable, ours)
            await wait_all_tasks_blocked()
            for _, peer in pairs:
                peer.send(b"x")
    print("went on")

trio_uring.run(main, ring=trio_uring.RingOptions(entries=1))  # so that it is emptied for each wait
"""


def test_bit_that_is_set_after_the_work_was_done_keeps_nobody() -> None:
    """A worker of the kernel's queues its work, and then sets the bit that says so. The owner may
    have run the work in between: then nothing takes the bit back until something else happens."""
    assert python(STALE_BIT) == "went on\n"


# What get_events answers


@contextmanager
def manager(options: RingOptions) -> Iterator[UringManager]:
    made = UringManager(opening.open_ring(options), RunSockets)
    try:
        yield made
    finally:
        made.close()
        made.close_interrupt()


@contextmanager
def alarms(handled: list[int]) -> Iterator[None]:
    """Again and again: one may come before the wait that it is to end."""
    before = signal.signal(signal.SIGALRM, lambda number, _: handled.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@every_ring
def test_false_means_that_the_timeout_expired(backend: Backend) -> None:
    assert backend.ring is not None
    with manager(backend.ring) as made:
        assert not made.get_events(0)
        for timeout in (1e-9, 1e-6, 0.001, 0.05):
            started = time.monotonic()
            assert not made.get_events(timeout)
            assert time.monotonic() - started >= timeout


@every_ring
def test_interrupt_ends_a_wait_and_is_told_once(backend: Backend) -> None:
    assert backend.ring is not None
    with manager(backend.ring) as made:
        assert not made.get_events(0)
        made.force_wakeup()
        assert made.get_events(0)
        assert not made.get_events(0)
        made.force_wakeup()
        assert made.get_events(PATIENCE)
        assert not made.get_events(0.01)
        interrupter = threading.Timer(0.05, made.force_wakeup)
        interrupter.start()
        started = time.monotonic()
        assert made.get_events(PATIENCE)
        assert time.monotonic() - started < PATIENCE
        interrupter.join()


def test_what_asks_for_a_tick_outlives_a_reap_between_ticks() -> None:
    """The host of a guest run has a task woken, which forces a tick, and then a call reaps for it."""
    with manager(trio_uring.RingOptions()) as made:
        assert not made.get_events(0)
        made.force_wakeup()
        made.reap()
        assert made.get_events(PATIENCE)
        assert not made.get_events(0)


@every_ring
@pytest.mark.parametrize("first", [True, False], ids=["first-wait", "later-wait"])
def test_signal_ends_a_wait_so_that_its_handler_runs(backend: Backend, first: bool) -> None:
    """The first wait also submits, which hides EINTR behind the number of submissions."""
    assert backend.ring is not None
    handled: list[int] = []
    with manager(backend.ring) as made:
        assert not made.get_events(0)
        if not first:
            assert not made.get_events(0.001)
        with alarms(handled):
            assert made.get_events(PATIENCE)
    assert handled


@every_backend
def test_handler_of_a_signal_to_any_thread_runs_while_the_loop_sleeps(backend: Backend) -> None:
    """The kernel may deliver it to a thread that does not sleep in the ring."""

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        handled = trio.Event()
        before = signal.signal(signal.SIGUSR1, lambda *_: token.run_sync_soon(handled.set))
        try:
            for send in (
                lambda: os.kill(os.getpid(), signal.SIGUSR1),
                lambda: signal.raise_signal(signal.SIGUSR1),
            ):
                handled = trio.Event()
                sender = threading.Timer(0.02, send)
                sender.start()
                await handled.wait()
                sender.join()
        finally:
            signal.signal(signal.SIGUSR1, before)

    backend.run(main)


@every_backend
def test_signals_to_a_thread_with_a_run_do_it_no_harm(backend: Backend) -> None:
    handled: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: handled.append(number))
    asleep: queue.SimpleQueue[tuple[trio.lowlevel.TrioToken, trio.Event]] = queue.SimpleQueue()
    ended: list[str] = []

    async def main() -> None:
        over = trio.Event()
        asleep.put((trio.lowlevel.current_trio_token(), over))
        await over.wait()
        ended.append("well")

    thread = threading.Thread(target=backend.run, args=[main])
    thread.start()
    try:
        token, over = asleep.get(timeout=PATIENCE)
        assert thread.ident is not None
        for _ in range(50):
            signal.pthread_kill(thread.ident, signal.SIGUSR1)
            thread.join(0.002)
        token.run_sync_soon(over.set)
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert handled
    assert ended == ["well"]


@every_backend
def test_signals_while_tasks_sleep_are_received_once_each(backend: Backend) -> None:
    async def main() -> int:
        calls = 0
        with trio.open_signal_receiver(signal.SIGUSR1) as received:
            for _ in range(20):
                sender = threading.Timer(0.001, os.kill, (os.getpid(), signal.SIGUSR1))
                sender.start()
                async for _ in received:
                    break
                sender.join()
            if backend.ring:
                calls = entered()
                await trio.sleep(0.05)
                calls = entered() - calls
        return calls

    assert backend.run(main) < 10


# Clocks


@every_backend
def test_sleep_is_over_no_earlier_than_asked(backend: Backend) -> None:
    async def main() -> None:
        for seconds in (0, 1e-9, 300e-6, 0.001, 0.01):
            started = time.perf_counter()
            await trio.sleep(seconds)
            assert time.perf_counter() - started >= seconds

    backend.run(main)


@every_backend
def test_autojump_clock_jumps_while_a_socket_is_pending(backend: Backend) -> None:
    async def main() -> None:
        ours, peer = socket.socketpair()
        with ours, peer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_readable, ours)
                started = trio.current_time()
                await trio.sleep(86_400)
                assert trio.current_time() - started >= 86_400
                peer.send(b"x")

    backend.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@every_backend
def test_blocked_tasks_are_recognised_while_sockets_are_pending(backend: Backend) -> None:
    async def main() -> None:
        ours, peer = socket.socketpair()
        with ours, peer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_readable, ours)
                await wait_all_tasks_blocked()
                await wait_all_tasks_blocked(0.01)
                assert len(nursery.child_tasks) == 1
                peer.send(b"x")
            if backend.ring:
                assert io_statistics().operations_in_flight == 0

    backend.run(main)
