"""`wait_readable`, `wait_writable` and `notify_closing`: as on epoll, point by point.

What has an answer on epoll is asked of both. What epoll cannot answer (how many
system calls a ring made, what its slots hold) is asked of rings alone.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import tty
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from equivalence import (
    EPOLL,
    URING,
    Backend,
    descriptors_so_far,
    entered,
    every_backend,
    every_ring,
    io_statistics,
    open_descriptors,
)
from trio.lowlevel import notify_closing, wait_readable, wait_writable
from trio.testing import wait_all_tasks_blocked
from waiters import (
    Wait,
    Waiter,
    both_directions,
    drain,
    every_pair,
    fill,
    reader_and_writer,
    sees_end,
    socketpair,
    tcp_pair,
)

from trio_uring import RingOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# One waiter per direction


@every_backend
@both_directions
def test_second_waiter_in_one_direction_is_busy(backend: Backend, wait: Wait) -> None:
    async def main() -> None:
        with socketpair() as (ours, peer):
            fill(ours)
            async with trio.open_nursery() as nursery:
                waiter = Waiter()
                nursery.start_soon(waiter.run, wait, ours)
                await wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await wait(ours)  # type: ignore[misc]
                with pytest.raises(trio.BusyResourceError):
                    await wait(ours.fileno())  # type: ignore[misc]
                assert waiter.outcomes == []
                peer.send(b"x")
                drain(peer)
            assert waiter.outcomes == ["ready"]

    backend.run(main)


@every_backend
@every_pair
def test_reader_and_writer_of_one_descriptor_are_independent(
    backend: Backend, make_pair: Callable[..., object]
) -> None:
    async def main() -> None:
        with make_pair() as (ours, peer):  # type: ignore[attr-defined]
            fill(ours)
            async with trio.open_nursery() as nursery:
                reader, writer = await reader_and_writer(nursery, ours)
                peer.send(b"x")
                await wait_all_tasks_blocked(0.01)
                assert (reader.outcomes, writer.outcomes) == (["ready"], [])
                assert ours.recv(1) == b"x"
                reader_again = Waiter()
                nursery.start_soon(reader_again.run, wait_readable, ours)
                await wait_all_tasks_blocked()
                drain(peer)
                await wait_all_tasks_blocked(0.01)
                assert (reader_again.outcomes, writer.outcomes) == ([], ["ready"])
                reader_again.scope.cancel()
            assert reader_again.outcomes == ["cancelled"]

    backend.run(main)


def hang_up(ours: socket.socket, peer: socket.socket) -> None:
    peer.close()


def reset(ours: socket.socket, peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def shut_down_our_side(ours: socket.socket, peer: socket.socket) -> None:
    ours.shutdown(socket.SHUT_RDWR)


@every_backend
@every_pair
@pytest.mark.parametrize("end", [hang_up, reset, shut_down_our_side])
def test_hang_up_and_error_wake_both_sides(
    backend: Backend, make_pair: Callable[..., object], end: Callable[[socket.socket, socket.socket], None]
) -> None:
    async def main() -> None:
        with make_pair() as (ours, peer):  # type: ignore[attr-defined]
            fill(ours)
            async with trio.open_nursery() as nursery:
                reader, writer = await reader_and_writer(nursery, ours)
                assert (reader.outcomes, writer.outcomes) == ([], [])
                end(ours, peer)
            assert (reader.outcomes, writer.outcomes) == (["ready"], ["ready"])

    backend.run(main)


@every_backend
def test_ends_of_a_pipe_notice_each_other(backend: Backend) -> None:
    async def main() -> None:
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        with suppress(BlockingIOError):
            while os.write(write_end, bytes(65536)):
                pass
        writer = Waiter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run, wait_writable, write_end)
            await wait_all_tasks_blocked()
            os.close(read_end)
        os.close(write_end)

        read_end, write_end = os.pipe()
        reader = Waiter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.run, wait_readable, read_end)
            await wait_all_tasks_blocked()
            os.close(write_end)
        os.close(read_end)
        assert (reader.outcomes, writer.outcomes) == (["ready"], ["ready"])

    backend.run(main)


# Every kind of descriptor: what to wait for, and what makes it ready


def pipe(stack: ExitStack) -> tuple[int, Callable[[], object]]:
    read_end, write_end = os.pipe()
    stack.callback(os.close, read_end)
    stack.callback(os.close, write_end)
    return read_end, lambda: os.write(write_end, b"x")


def unix_stream(stack: ExitStack) -> tuple[int, Callable[[], object]]:
    ours, peer = stack.enter_context(socketpair())
    return ours.fileno(), lambda: peer.send(b"x")


def unix_datagram(stack: ExitStack) -> tuple[int, Callable[[], object]]:
    ours, peer = socket.socketpair(type=socket.SOCK_DGRAM)
    stack.enter_context(ours)
    stack.enter_context(peer)
    return ours.fileno(), lambda: peer.send(b"x")


def tcp(stack: ExitStack) -> tuple[int, Callable[[], object]]:
    ours, peer = stack.enter_context(tcp_pair())
    return ours.fileno(), lambda: peer.send(b"x")


def tcp_listener(stack: ExitStack) -> tuple[int, Callable[[], object]]:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return listener.fileno(), lambda: stack.enter_context(socket.create_connection(listener.getsockname()))


def udp(stack: ExitStack) -> tuple[int, Callable[[], object]]:
    ours, peer = (stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(2))
    ours.bind(("127.0.0.1", 0))
    return ours.fileno(), lambda: peer.sendto(b"x", ours.getsockname())


def eventfd(stack: ExitStack) -> tuple[int, Callable[[], object]]:
    fd = os.eventfd(0)
    stack.callback(os.close, fd)
    return fd, lambda: os.eventfd_write(fd, 1)


def terminal(stack: ExitStack) -> tuple[int, Callable[[], object]]:
    controller, follower = pty.openpty()
    stack.callback(os.close, controller)
    stack.callback(os.close, follower)
    tty.setraw(follower)
    return follower, lambda: os.write(controller, b"x")


def terminal_controller(stack: ExitStack) -> tuple[int, Callable[[], object]]:
    controller, follower = pty.openpty()
    stack.callback(os.close, controller)
    stack.callback(os.close, follower)
    return controller, lambda: os.write(follower, b"x")


def epoll(stack: ExitStack) -> tuple[int, Callable[[], object]]:
    fd, make_ready = pipe(stack)
    inner = stack.enter_context(select.epoll())
    inner.register(fd, select.EPOLLIN)
    return inner.fileno(), make_ready


def signalfd(stack: ExitStack) -> tuple[int, Callable[[], object]]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
    stack.callback(signal.sigtimedwait, {signal.SIGUSR2}, 0)
    fd = ctypes.CDLL(None).signalfd(-1, struct.pack("QQ", 1 << (signal.SIGUSR2 - 1), 0) + bytes(112), 0)
    assert fd >= 0
    stack.callback(os.close, fd)
    return fd, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)


def pidfd(stack: ExitStack) -> tuple[int, Callable[[], object]]:
    child = stack.enter_context(subprocess.Popen(["cat"], stdin=subprocess.PIPE))
    fd = os.pidfd_open(child.pid)
    stack.callback(os.close, fd)
    return fd, child.stdin.close  # type: ignore[union-attr]


def inotify(stack: ExitStack) -> tuple[int, Callable[[], object]]:
    libc = ctypes.CDLL(None)
    fd = libc.inotify_init()
    assert fd >= 0
    stack.callback(os.close, fd)
    folder = stack.enter_context(temporary_folder())
    assert libc.inotify_add_watch(fd, os.fsencode(folder), 0x100) > 0  # IN_CREATE
    return fd, Path(folder, "new").touch


@contextmanager
def temporary_folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield folder


KINDS = (
    pipe,
    unix_stream,
    unix_datagram,
    tcp,
    tcp_listener,
    udp,
    eventfd,
    terminal,
    terminal_controller,
    epoll,
    signalfd,
    pidfd,
    inotify,
)


@every_backend
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_descriptor_wakes_its_reader(
    backend: Backend, kind: Callable[[ExitStack], tuple[int, Callable[[], object]]]
) -> None:
    async def main() -> None:
        with ExitStack() as stack:
            fd, make_ready = kind(stack)
            waiter = Waiter()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waiter.run, wait_readable, fd)
                await wait_all_tasks_blocked(0.005)
                assert waiter.outcomes == []
                make_ready()
            assert waiter.outcomes == ["ready"]
            await wait_readable(fd)
            notify_closing(fd)

    backend.run(main)


async def wait_for_file(path: str) -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        await wait_readable(fd)
        return "ready"
    except PermissionError:
        return "PermissionError"
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "path", [__file__, os.path.dirname(__file__), "/dev/null"], ids=["file", "folder", "null"]
)
def test_what_epoll_refuses_is_ready_at_once(path: str) -> None:
    """The one difference that the manager's head documents for files."""
    assert EPOLL.run(lambda: wait_for_file(path)) == "PermissionError"
    assert URING.run(lambda: wait_for_file(path)) == "ready"


# Bad descriptors


def closed_number() -> int:
    """High enough that nothing else gets it meanwhile."""
    with open(os.devnull) as file:
        fd = fcntl.fcntl(file, fcntl.F_DUPFD, 1000)
    os.close(fd)
    return fd


class NoDescriptor:
    def fileno(self) -> object:
        return "three"


def bad_descriptors(path_only: int) -> dict[str, object]:
    closed_socket = socket.socket()
    closed_socket.close()
    return {
        "-1": -1,
        "smallest": -(2**31),
        "below": -(2**31) - 1,
        "2**31": 2**31,
        "2**63": 2**63,
        "closed": closed_number(),
        "never opened": 2**31 - 1,
        "closed socket": closed_socket,
        "O_PATH": path_only,
        "str": "0",
        "None": None,
        "float": 1.0,
        "fileno() not an int": NoDescriptor(),
    }


async def what_it_raises(wait: Wait, bad: object) -> tuple[type[BaseException], object]:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        await wait(bad)  # type: ignore[arg-type, misc]
    return caught.type, getattr(caught.value, "errno", None)


@every_ring
@both_directions
def test_bad_descriptors_raise_what_they_raise_on_epoll(backend: Backend, wait: Wait) -> None:
    path_only = os.open("/", os.O_PATH)
    bad = bad_descriptors(path_only)
    # A run each: epoll believes that somebody waits for -1 after it has refused to.
    expected = {name: EPOLL.run(partial(what_it_raises, wait, bad[name])) for name in bad}

    async def main() -> None:
        with socketpair() as (ours, _):
            for name, descriptor in [*bad.items(), *bad.items()]:
                assert await what_it_raises(wait, descriptor) == expected[name], name
                await wait_writable(ours)
        assert io_statistics().operations_in_flight == 0

    backend.run(main)
    os.close(path_only)


@every_backend
def test_closing_what_was_never_waited_for_is_nothing(backend: Backend) -> None:
    async def main() -> None:
        with socketpair() as (ours, _):
            for fd in (ours, closed_number(), -1):
                notify_closing(fd)

    backend.run(main)


# A peer that has shut down its sending side


@every_backend
@every_pair
@pytest.mark.parametrize("before", [True, False], ids=["before-the-wait", "during-the-wait"])
def test_full_socket_with_a_half_closed_peer_sleeps_until_it_is_read(
    backend: Backend, make_pair: Callable[..., object], before: bool
) -> None:
    async def main() -> None:
        with make_pair() as (ours, peer):  # type: ignore[attr-defined]
            fill(ours)
            waiter = Waiter()
            if before:
                peer.shutdown(socket.SHUT_WR)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waiter.run, wait_writable, ours)
                await wait_all_tasks_blocked()
                if not before:
                    peer.shutdown(socket.SHUT_WR)
                calls = entered() if backend.ring else 0
                await trio.sleep(0.1)
                assert waiter.outcomes == []
                if backend.ring:
                    assert entered() - calls < 20
                while not waiter.outcomes:
                    drain(peer)
                    await trio.lowlevel.checkpoint()
            assert waiter.outcomes == ["ready"]
            assert ours.send(b"x") == 1
            if backend.ring:
                assert io_statistics().operations_in_flight == 0

    backend.run(main)


@every_backend
@every_pair
def test_wait_on_a_half_closed_connection_can_be_cancelled_and_closed(
    backend: Backend, make_pair: Callable[..., object]
) -> None:
    async def main(act: str) -> list[str]:
        with make_pair() as (ours, peer):  # type: ignore[attr-defined]
            sent = fill(ours)
            peer.shutdown(socket.SHUT_WR)
            waiter = Waiter()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waiter.run, wait_writable, ours)
                await wait_all_tasks_blocked(0.01)
                if act == "cancel":
                    waiter.scope.cancel()
                else:
                    notify_closing(ours)
                ours.close()
                peer.setblocking(True)
                while sent:
                    sent -= len(peer.recv(1 << 20))
                peer.setblocking(False)
                assert act == "cancel" or sees_end(peer)
            return waiter.outcomes

    assert backend.run(lambda: main("cancel")) == ["cancelled"]
    assert backend.run(lambda: main("close")) == ["closed"]


async def calls_in_a_sleep() -> int:
    """How often the loop enters the kernel while all tasks sleep: once, unless it has something to do."""
    before = entered()
    await trio.sleep(0.1)
    return entered() - before


@every_ring
def test_more_half_closed_connections_than_the_ring_has_room_for_let_it_sleep(backend: Backend) -> None:
    async def main() -> None:
        with socketpair() as (ours, peer):
            fill(ours)
            peer.shutdown(socket.SHUT_WR)
            numbers = [os.dup(ours.fileno()) for _ in range(300)]
            waiters = [Waiter() for _ in numbers]
            async with trio.open_nursery() as nursery:
                for waiter, fd in zip(waiters, numbers, strict=True):
                    nursery.start_soon(waiter.run, wait_writable, fd)
                before = entered()
                await wait_all_tasks_blocked()
                # On the smallest ring it takes some 1,050 calls, however long they take.
                while await calls_in_a_sleep() > 4:
                    assert entered() - before < 10 * len(numbers)
                drain(peer)
            assert all(waiter.outcomes == ["ready"] for waiter in waiters)
            assert io_statistics().operations_in_flight == 0
            for fd in numbers:
                os.close(fd)

    backend.run(main)


# Many waiters on a small ring


@pytest.mark.parametrize("end", ["ready", "cancelled", "closed"])
@pytest.mark.usefixtures("many_descriptors")
def test_small_ring_carries_9000_waiters(end: str) -> None:
    async def main() -> None:
        with socketpair() as (ours, peer):
            numbers = [os.dup(ours.fileno()) for _ in range(9_000)]
            waiters = [Waiter() for _ in numbers]
            async with trio.open_nursery() as nursery:
                for waiter, fd in zip(waiters, numbers, strict=True):
                    nursery.start_soon(waiter.run, wait_readable, fd)
                await wait_all_tasks_blocked()
                assert io_statistics().operations_in_flight == 9_000
                if end == "ready":
                    peer.send(b"x")
                elif end == "cancelled":
                    nursery.cancel_scope.cancel()
                else:
                    for fd in numbers:
                        notify_closing(fd)
            expected = [] if end == "cancelled" else [end]
            assert all(waiter.outcomes == expected for waiter in waiters)
            assert io_statistics().operations_in_flight == 0
            for fd in numbers:
                os.close(fd)

    Backend("small ring", RingOptions(entries=8, cq_entries=16)).run(main)


# The end of a run


class BreakableClock(trio.abc.Clock):
    """Crashes the run when told to."""

    broken = False

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return time.monotonic()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        if self.broken:
            raise RuntimeError("broken clock")
        return deadline - time.monotonic()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what Trio leaves behind
@every_backend
def test_crashed_run_lets_go_of_its_descriptors(backend: Backend) -> None:
    def crash() -> None:
        clock = BreakableClock()
        ours, peer = socket.socketpair()

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_readable, ours)
                await wait_all_tasks_blocked()
                clock.broken = True

        with pytest.raises(trio.TrioInternalError):
            backend.run(main, clock=clock)
        ours.close()
        assert sees_end(peer)
        peer.close()
        gc.collect()

    crash()
    before = descriptors_so_far()
    crash()
    assert open_descriptors() == before


@every_backend
def test_runs_leave_no_descriptor_behind(backend: Backend) -> None:
    async def main() -> None:
        with socketpair() as (ours, _), trio.move_on_after(0):
            await wait_readable(ours)

    backend.run(main)
    before = descriptors_so_far()
    for _ in range(20):
        backend.run(main)
    assert open_descriptors() == before
