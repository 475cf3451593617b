"""Guest runs: a host loop owns the ring, a worker thread waits, and the host may do
anything between the two."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import outcome
import pytest
import trio
import trio.testing
from child_process import output_of, run_python

import trio_uring


class Host:
    """A host loop: calls what others put into its queue, until the guest is done."""

    def __init__(self) -> None:
        self.todo: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self.result: outcome.Outcome[Any] | None = None
        self.before_each: Callable[[], object] = lambda: None

    def run(self, async_fn: Callable[..., Awaitable[Any]], *args: object, **arguments: Any) -> Any:
        start = arguments.pop("start", trio_uring.start_guest_run)
        start(
            async_fn,
            *args,
            run_sync_soon_threadsafe=self.todo.put,
            done_callback=self.done,
            **arguments,
        )
        while self.result is None:
            call = self.todo.get(timeout=30)
            self.before_each()
            call()
        return self.result.unwrap()

    def done(self, result: outcome.Outcome[Any]) -> None:
        self.result = result


async def backend() -> str:
    return trio.lowlevel.current_statistics().io_statistics.backend


def test_a_guest_run_is_on_io_uring_and_returns_or_raises_as_a_run() -> None:
    assert Host().run(backend) == "io_uring"
    assert Host().run(backend, start=trio.lowlevel.start_guest_run) == "epoll"

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("user's")

    with pytest.raises(KeyError, match="user's"):
        Host().run(fail)


def test_an_installed_ring_is_for_guest_runs_too() -> None:
    with trio_uring.installed():
        assert Host().run(backend, start=trio.lowlevel.start_guest_run) == "io_uring"


def test_a_guest_run_inside_a_run_is_trios_error() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="from inside"):
            Host().run(backend)

    trio_uring.run(main)
    assert Host().run(backend, start=trio.lowlevel.start_guest_run) == "epoll"


async def echo() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def serve(stream: trio.SocketStream) -> None:
        async for chunk in stream:
            await stream.send_all(chunk)

    async def client(number: int) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            for _ in range(20):
                await stream.send_all(bytes([number]) * 100)
                received = b""
                while len(received) < 100:
                    received += await stream.receive_some()
                assert received == bytes([number]) * 100

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, listeners)
            async with trio.open_nursery() as clients:
                for number in range(5):
                    clients.start_soon(client, number)
            nursery.cancel_scope.cancel()


def test_sockets_work_in_a_guest_run() -> None:
    Host().run(echo)


@pytest.mark.parametrize("off", [["defer_taskrun"], ["single_issuer", "defer_taskrun"], ["r_disabled"]])
def test_sockets_work_in_a_guest_run_on_other_rings(off: list[str]) -> None:
    Host().run(echo, ring=trio_uring.RingOptions(features=dict.fromkeys(off, False)))


def test_asyncio_can_be_the_host() -> None:
    async def host() -> str:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[outcome.Outcome[str]] = loop.create_future()

        async def guest() -> str:
            await echo()
            left, right = trio.socket.socketpair()
            with left, right:
                loop.call_soon(right._sock.send, b"x")  # type: ignore[attr-defined]
                assert await left.recv(1) == b"x"
            await trio.sleep(0.001)
            return await backend()

        trio_uring.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            run_sync_soon_not_threadsafe=loop.call_soon,
            done_callback=done.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        return (await done).unwrap()

    assert asyncio.run(host()) == "io_uring"


def test_threads_wake_an_idle_guest_run() -> None:
    async def main() -> int:
        token = trio.lowlevel.current_trio_token()
        called: list[int] = []
        all_called = trio.Event()

        def call(number: int) -> None:
            called.append(number)
            if len(called) == 400:
                all_called.set()

        def many() -> None:
            for number in range(100):
                token.run_sync_soon(call, number)

        threads = [threading.Thread(target=many) for _ in range(4)]
        for thread in threads:
            thread.start()
        with trio.fail_after(30):
            await all_called.wait()
        for thread in threads:
            thread.join()
        for _ in range(50):
            await trio.to_thread.run_sync(lambda: None)
        return len(called)

    assert Host().run(main) == 400


def test_a_host_callback_cancels_a_wait_between_ticks() -> None:
    host = Host()

    async def main() -> None:
        left, right = socket.socketpair()
        with left, right, trio.CancelScope() as scope:
            host.todo.put(scope.cancel)
            await trio.lowlevel.wait_readable(left)
        assert scope.cancelled_caught

    for _ in range(20):
        host.result = None
        host.run(main)


@pytest.mark.parametrize("act", ["cancel", "notify_closing", "close"])
def test_the_host_ends_a_wait_whose_event_has_arrived_but_is_not_processed(act: str) -> None:
    """The event is there before every call of the host's, so also between Trio's
    get_events and process_events."""

    async def main() -> str:
        left, right = socket.socketpair()
        left.setblocking(False)
        how = "cancelled"
        with left, right, trio.CancelScope() as scope:

            def interfere() -> None:
                if not armed:
                    return
                armed.clear()
                right.send(b"x")
                host.todo.put(end)

            def end() -> None:
                if act == "cancel":
                    scope.cancel()
                else:
                    trio.lowlevel.notify_closing(left)
                if act == "close":
                    left.close()

            armed = [True]
            host.before_each = interfere
            try:
                await trio.lowlevel.wait_readable(left)
                how = "readable"
            except trio.ClosedResourceError:
                how = "closed"
        host.before_each = lambda: None
        # The run goes on as if nothing had been.
        assert trio.lowlevel.current_statistics().io_statistics.operations_in_flight == 0
        with trio.move_on_after(0.001):
            await trio.sleep_forever()
        return how

    ends = set()
    for _ in range(50):
        host = Host()
        ends.add(host.run(main))
    assert ends <= {"readable", "cancelled", "closed"}


def test_a_signal_reaches_an_idle_guest_run_and_leaves_it_idle() -> None:
    """Before: what a signal leaves in Trio's socket pair has to be drained, or every
    wait ends at once."""
    host = Host()
    ticks = 0

    class Ticks(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            nonlocal ticks
            ticks += 1

    async def main() -> int:
        with trio.open_signal_receiver(signal.SIGUSR1) as received:
            process = await trio.to_thread.run_sync(
                lambda: __import__("subprocess").run(["kill", "-USR1", str(os.getpid())], check=True)
            )
            assert process.returncode == 0
            async for number in received:
                assert number == signal.SIGUSR1
                break
        before = ticks
        await trio.sleep(0.05)
        return ticks - before

    with trio.lowlevel_fail if False else contextlib.nullcontext():
        assert host.run(main, instruments=[Ticks()]) < 20


ABANDONED = """
import gc, os, queue, socket, sys, threading, warnings
import trio, trio.testing, trio_uring

def descriptors():
    return sorted(os.listdir("/proc/self/fd"))

def start(stop_after):
    todo = queue.SimpleQueue()
    left, right = socket.socketpair()
    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.wait_readable, left)
            await trio.lowlevel.wait_readable(right)
    run(main, run_sync_soon_threadsafe=todo.put, done_callback=lambda _: None)
    for _ in range(stop_after):
        todo.get(timeout=5)() if sys.argv[2] != "x" else None

run = {"epoll": trio.lowlevel.start_guest_run, "io_uring": trio_uring.start_guest_run}[sys.argv[1]]
collect = {
    "here": gc.collect,
    "elsewhere": lambda: [t := threading.Thread(target=gc.collect), t.start(), t.join()],
}[sys.argv[2]]
gc.collect()
before = descriptors()
for stop_after in (0, 1, 2, 3, 2, 2):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start(stop_after)
        collect()
        collect()
    print(stop_after, sorted({w.category.__name__ for w in caught if "abandoned" in str(w.message)}))
del caught
collect()
import time
deadline = time.monotonic() + 10
while descriptors() != before and time.monotonic() < deadline:
    time.sleep(0.01)
    gc.collect()
print(len(descriptors()) - len(before))
async def backend():
    return trio.lowlevel.current_statistics().io_statistics.backend
if sys.argv[2] == "elsewhere":
    threading.Thread(target=lambda: print(trio_uring.run(backend))).start()
"""


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_an_abandoned_guest_run_warns_as_on_epoll_and_leaves_no_descriptor(where: str) -> None:
    def run(on: str) -> tuple[int, list[str]]:
        done = run_python(f"import sys; sys.argv = ['', {on!r}, {where!r}]\n" + ABANDONED)
        return done.returncode, done.stdout.splitlines()

    on_epoll = run("epoll")
    on_io_uring = run("io_uring")
    assert on_io_uring[0] == on_epoll[0] == 0
    assert on_io_uring[1][:6] == on_epoll[1][:6]
    assert int(on_io_uring[1][6]) <= 0
    assert on_io_uring[1][7:] == on_epoll[1][7:]


def test_ctrl_c_ends_an_idle_guest_run() -> None:
    said = output_of(
        """
        import os, queue, subprocess, trio, trio_uring
        todo = queue.SimpleQueue()
        async def main():
            try:
                subprocess.Popen(["kill", "-INT", str(os.getpid())])
                await trio.sleep_forever()
            finally:
                print(trio.lowlevel.current_statistics().io_statistics.backend)
        def done(outcome):
            print(type(outcome.error).__name__)
            todo.put(None)
        trio_uring.start_guest_run(main, run_sync_soon_threadsafe=todo.put, done_callback=done)
        while True:
            call = todo.get()
            if call is None:
                break
            call()
        """
    )
    assert said == "io_uring\nKeyboardInterrupt\n"
