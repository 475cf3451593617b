"""Guest runs: a host loop owns the ring, a worker thread waits, and the host may do
anything between the two."""

from __future__ import annotations

import asyncio
import os
import queue
import resource
import signal
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from child_process import output_of, run_python
from equivalence import PATIENCE, Backend, every_ring

import trio_uring
from trio_uring.loop import manager
from trio_uring.ring.native import lib

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import outcome


class Host:
    """A host loop: calls what others put into its queue, until the guest is done."""

    def __init__(self) -> None:
        self.todo: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self.result: outcome.Outcome[Any] | None = None

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
            call = self.todo.get(timeout=PATIENCE)
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

    with trio.fail_after(PATIENCE):
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
        with trio.fail_after(PATIENCE):
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


@pytest.mark.parametrize("waits", ["read", "send_all"])
def test_a_host_callback_cancels_what_the_kernel_has_while_nothing_else_happens(waits: str) -> None:
    """The host cancels while the worker thread waits, for hours if nobody tells it."""
    host = Host()

    def once_the_worker_waits(call: Callable[[], object]) -> None:
        """The word is set by the worker thread; the owner looks."""
        if is_waiting():
            call()
        else:
            host.todo.put(lambda: once_the_worker_waits(call))

    async def main() -> None:
        nonlocal is_waiting
        manager: Any = trio.lowlevel.current_task()._runner.io_manager  # type: ignore[attr-defined]
        is_waiting = lambda: manager._guest_waiting  # noqa: E731
        near, far = trio.socket.socketpair()
        with near, far, trio.CancelScope() as scope:
            host.todo.put(lambda: once_the_worker_waits(scope.cancel))
            if waits == "read":
                await trio_uring.lowlevel.read(near.fileno(), bytearray(1))
            else:
                await trio.SocketStream(near).send_all(bytes(1 << 24))
        assert scope.cancelled_caught

    is_waiting: Callable[[], bool] = bool
    for _ in range(5):
        host.result = None
        host.run(main)


@every_ring
def test_a_host_callback_cancels_an_operation_while_the_worker_thread_waits(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel has to learn of that: nothing else comes that would end the wait."""
    host = Host()
    waits = threading.Event()

    def guest_wait(*args: Any) -> int:
        waits.set()
        try:
            return lib.tu_guest_wait(*args)
        finally:
            waits.clear()

    def call_when_it_waits(callback: Callable[[], None]) -> None:
        assert waits.wait(PATIENCE)
        time.sleep(0.01)  # until it sleeps
        host.todo.put(callback)

    async def main() -> None:
        left, right = trio.socket.socketpair()
        reader, writer = os.pipe()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: left.recv(1),
            lambda: trio.SocketStream(left).receive_some(1),
            lambda: trio_uring.lowlevel.read(reader, bytearray(1)),
        ]
        with left, right:
            for call in calls:
                with trio.CancelScope() as scope:
                    threading.Thread(target=call_when_it_waits, args=[scope.cancel]).start()
                    await call()
                assert scope.cancelled_caught
        os.close(reader)
        os.close(writer)

    monkeypatch.setattr(manager, "_guest_wait", guest_wait)
    host.run(main, ring=backend.ring)


@pytest.mark.parametrize(
    ("act", "outcome_of_wait"),
    [("cancel", "cancelled"), ("notify_closing", "closed"), ("nothing", "readable")],
)
def test_the_host_ends_a_wait_whose_event_has_arrived_but_is_not_processed(
    act: str, outcome_of_wait: str
) -> None:
    """The host's calls are in order: ours comes after get_events, which submits the wait and
    finds it completed, and before the tick that processes that."""
    host = Host()

    async def main() -> str:
        left, right = socket.socketpair()
        right.send(b"x")
        with left, right, trio.CancelScope() as scope:
            acts = {
                "cancel": scope.cancel,
                "notify_closing": lambda: trio.lowlevel.notify_closing(left),
                "nothing": lambda: None,
            }
            host.todo.put(acts[act])
            try:
                await trio.lowlevel.wait_readable(left)
            except trio.ClosedResourceError:
                return "closed"
            return "readable"
        return "cancelled"

    async def many() -> set[str]:
        ends = {await main() for _ in range(50)}
        with trio.move_on_after(0.001):
            await trio.sleep_forever()
        assert trio.lowlevel.current_statistics().io_statistics.operations_in_flight == 0
        return ends

    assert host.run(many) == {outcome_of_wait}


def test_a_signal_reaches_an_idle_guest_run_and_leaves_it_idle() -> None:
    """What a signal leaves in Trio's socket pair has to be drained, or every wait ends at once."""
    ticks = 0

    class Ticks(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            nonlocal ticks
            ticks += 1

    async def main() -> int:
        with trio.open_signal_receiver(signal.SIGUSR1) as received:
            subprocess.Popen(["kill", "-USR1", str(os.getpid())]).wait()
            async for number in received:
                assert number == signal.SIGUSR1
                break
        before = ticks
        await trio.sleep(0.1)
        return ticks - before

    assert Host().run(main, instruments=[Ticks()]) < 20


# The host stops after some calls and drops the last one, which holds the run. It does so
# when the worker thread has come back: until then that holds the run, on epoll too.
ABANDONED = """
import gc, os, queue, socket, sys, threading, warnings
import trio, trio_uring

package = {"epoll": trio.lowlevel, "io_uring": trio_uring}[sys.argv[1]]

def host(calls):
    todo = queue.SimpleQueue()
    left, right = socket.socketpair()
    async def main():
        with left, right:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.wait_readable, left)
                while True:
                    await trio.sleep(0.001)
    package.start_guest_run(main, run_sync_soon_threadsafe=todo.put, done_callback=lambda _: None)
    for _ in range(calls):
        todo.get()()
    todo.get()
    del main
    if sys.argv[2] == "here":
        collect()

def collect():
    for _ in range(3):
        gc.collect()

def descriptors():
    return sorted(os.listdir("/proc/self/fd"))

before = None
for calls in (0, 1, 2, 3, 4, 5, 5, 5):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread = threading.Thread(target=host, args=[calls])
        thread.start()
        thread.join()
        collect()
    print(calls, sorted({w.category.__name__ for w in caught if "abandoned" in str(w.message)}))
    del caught
    collect()
    before = before or descriptors()
print("leaked", len(descriptors()) - len(before))

async def backend():
    return trio.lowlevel.current_statistics().io_statistics.backend
print(trio_uring.run(backend), trio.run(backend))
"""


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_an_abandoned_guest_run_warns_as_on_epoll_and_leaves_no_descriptor(where: str) -> None:
    def run(on: str) -> tuple[int, list[str]]:
        done = run_python(f"import sys; sys.argv = ['', {on!r}, {where!r}]\n" + ABANDONED)
        return done.returncode, done.stdout.splitlines()

    on_epoll = run("epoll")
    assert on_epoll[0] == 0
    assert "5 ['RuntimeWarning']" in on_epoll[1]
    for _ in range(3):
        assert run("io_uring") == on_epoll


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


def test_a_guest_run_that_could_be_set_up_needs_no_further_descriptor() -> None:
    """The process has none left when the run starts to tick."""

    async def main() -> str:
        await trio.sleep(0)
        return await backend()

    host = Host()
    trio_uring.start_guest_run(main, run_sync_soon_threadsafe=host.todo.put, done_callback=host.done)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        while host.result is None:
            host.todo.get(timeout=PATIENCE)()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert host.result.unwrap() == "io_uring"


class AsksBeforeItWaits(trio.abc.Instrument):
    def __init__(self) -> None:
        self.files: list[Any] = []

    def before_io_wait(self, timeout: float) -> None:
        while self.files:
            self.files.pop().fileno()


@pytest.mark.parametrize("mode", ["wb", "ab"])
@pytest.mark.parametrize("asks", ["the host", "an instrument"])
def test_the_runs_thread_may_ask_for_a_descriptor_while_a_file_is_written(
    tmp_path: Path, asks: str, mode: str
) -> None:
    """Outside of tasks. Nobody but this thread can take the kernel's answers."""
    path, host, instrument = tmp_path / "file", Host(), AsksBeforeItWaits()
    sizes: list[int] = []

    async def main() -> None:
        file = await trio_uring.open_file(path, mode)
        for _ in range(4):
            await file.write(bytes(1 << 20))
        if asks == "the host":
            host.todo.put(lambda: sizes.append(os.fstat(file.fileno()).st_size))
        else:
            instrument.files.append(file)
        await trio.testing.wait_all_tasks_blocked(0.001)
        assert await file.write(b"end") == 3
        await file.flush()
        assert await file.tell() == (4 << 20) + 3
        await file.aclose()

    if asks == "the host":
        host.run(main)
        assert sizes == [4 << 20]
    else:
        trio_uring.run(main, instruments=[instrument])
    assert path.read_bytes() == bytes(4 << 20) + b"end"
