"""`RingOptions.accept_ahead`: who is accepted before anybody asks is bounded, given in order,
and never left open."""

from __future__ import annotations

import gc
import os
import socket
import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import (
    PATIENCE,
    Backend,
    descriptors_so_far,
    io_statistics,
    no_descriptors_left,
    open_descriptors,
    without,
)
from listeners import close_all, connect, gets_in_order, listen
from pairs import reset
from trio.testing import wait_all_tasks_blocked

import trio_uring
from trio_uring import RingOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

AHEAD = 3
BACKENDS = [
    Backend("ahead", RingOptions(accept_ahead=AHEAD)),
    Backend("tiny ring", RingOptions(accept_ahead=AHEAD, entries=1, cq_entries=2)),
    Backend("cooperative", RingOptions(accept_ahead=AHEAD, features={"defer_taskrun": False})),
    Backend("budget", RingOptions(accept_ahead=AHEAD, checkpoint_budget=4)),
]
every_ahead = pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name.replace(" ", "-"))


async def accept_raw(listener: trio.SocketListener) -> trio.SocketStream:
    sock, address = await listener.socket.accept()
    with suppress(OSError):
        assert sock.getpeername() == address
    return trio.SocketStream(sock)


WAYS: dict[str, Callable[[trio.SocketListener], Awaitable[Any]]] = {
    "listener": lambda listener: listener.accept(),
    "socket": accept_raw,
}
every_way = pytest.mark.parametrize("accept", WAYS.values(), ids=WAYS)


async def armed_listener() -> trio.SocketListener:
    """One that accepts ahead."""
    listener = await listen()
    with connect(listener):
        reset(await listener.accept())  # which leaves the port free
    return listener


async def until_accepted(clients: int, before: int) -> None:
    """So many clients, and as many accepted ahead, are the descriptors since ``before``."""
    with trio.fail_after(PATIENCE):
        while open_descriptors() < before + 2 * clients:
            await trio.lowlevel.checkpoint()


async def listener_with(clients: int) -> tuple[trio.SocketListener, list[socket.socket]]:
    """As many clients have been accepted ahead."""
    listener = await armed_listener()
    before = descriptors_so_far()
    connected = [connect(listener) for _ in range(clients)]
    await until_accepted(clients, before)
    return listener, connected


def assert_reset(clients: list[socket.socket]) -> None:
    for client in clients:
        with client, pytest.raises(ConnectionResetError):
            client.recv(1)


@every_ahead
@every_way
def test_who_was_accepted_ahead_is_given_in_order(backend: Backend, accept: Any) -> None:
    async def main() -> None:
        listener, clients = await listener_with(AHEAD)
        clients += [connect(listener) for _ in range(20)]
        async with listener:
            await gets_in_order(lambda: accept(listener), clients)

    before = descriptors_so_far()
    backend.run(main)
    assert open_descriptors() == before


@every_ahead
def test_no_more_are_accepted_ahead_than_was_allowed_and_the_others_wait(backend: Backend) -> None:
    """One tick's come on top: here that is one."""

    async def main() -> None:
        listener = await armed_listener()
        before = descriptors_so_far()
        clients: list[socket.socket] = []
        for _ in range(20):
            clients.append(connect(listener))
            for _ in range(5):
                await trio.lowlevel.checkpoint()
        assert open_descriptors() == before + len(clients) + AHEAD
        async with listener:
            await gets_in_order(listener.accept, clients)
        assert io_statistics().multishot_terminations >= 2

    backend.run(main)


@every_ahead
def test_many_at_once_overflow_nothing(backend: Backend) -> None:
    async def main() -> None:
        async with await armed_listener() as listener:
            await gets_in_order(listener.accept, [connect(listener) for _ in range(100)])

    backend.run(main)


@every_ahead
@every_way
def test_a_cancelled_accept_loses_nobody(backend: Backend, accept: Any) -> None:
    async def main() -> None:
        async with await armed_listener() as listener:
            accepted: list[trio.SocketStream] = []

            async def accept_one() -> None:
                accepted.append(await accept(listener))

            clients: list[socket.socket] = []
            for number in range(30):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(accept_one)
                    if number % 2:
                        await wait_all_tasks_blocked()
                    clients.append(connect(listener))
                    if number % 3:
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
            while len(accepted) < len(clients):
                await accept_one()
            for client, stream in zip(clients, accepted, strict=True):
                assert stream.socket.getpeername() == client.getsockname()
                await stream.aclose()
            close_all(clients)

    backend.run(main)


@every_ahead
@pytest.mark.parametrize("way", ["aclose", "close", "with"])
def test_closing_the_listener_resets_them_and_frees_the_port(backend: Backend, way: str) -> None:
    async def main() -> None:
        before = descriptors_so_far()
        listener, clients = await listener_with(AHEAD)
        address = listener.socket.getsockname()
        ended = io_statistics().multishot_terminations
        if way == "aclose":
            await listener.aclose()
        elif way == "close":
            listener.socket.close()
        else:
            with listener.socket:
                pass
        await trio.lowlevel.checkpoint()  # whom the kernel has, but no tick has told of, comes now
        await trio.lowlevel.checkpoint()
        assert_reset(clients)
        assert open_descriptors() == before
        with socket.socket() as other:
            other.bind(address)
            other.listen()
        await trio.lowlevel.checkpoint()
        assert io_statistics().multishot_terminations >= ended
        assert io_statistics().operations_in_flight == 0

    backend.run(main)


@every_ahead
def test_a_listener_that_is_collected_resets_them(backend: Backend) -> None:
    async def main() -> None:
        before = descriptors_so_far()
        listener, clients = await listener_with(AHEAD)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            held = [listener]
            del listener
            thread = threading.Thread(target=held.clear)
            thread.start()
            thread.join()
            gc.collect()
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        assert_reset(clients)
        await trio.lowlevel.checkpoint()
        assert open_descriptors() == before
        assert io_statistics().operations_in_flight == 0

    backend.run(main)


@every_ahead
@pytest.mark.parametrize("waits", [False, True])
def test_they_are_closed_when_the_run_ends_and_later_ones_wait(backend: Backend, waits: bool) -> None:
    before = descriptors_so_far()

    async def first() -> tuple[trio.SocketListener, list[socket.socket]]:
        listener, clients = await listener_with(AHEAD)
        if waits:
            while len(clients) > 1:
                clients.pop(0).close()
                await (await listener.accept()).aclose()
            clients.pop().close()
            await (await listener.accept()).aclose()
            trio.lowlevel.spawn_system_task(listener.accept)
            await wait_all_tasks_blocked()
        return listener, clients

    listener, clients = backend.run(first)
    for client in clients:
        assert client.recv(1) == b""
    close_all(clients)
    assert open_descriptors() == before + 1

    async def second() -> None:
        await gets_in_order(listener.accept, [connect(listener)])
        await listener.aclose()

    backend.run(second)
    assert open_descriptors() == before


@every_ahead
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_crashed_run_leaves_nobody_open(backend: Backend) -> None:
    before = descriptors_so_far()
    held: list[Any] = []

    async def main() -> None:
        listener, clients = await listener_with(AHEAD)
        held.extend([listener, *clients, connect(listener)])

        def crash(_: object) -> trio.lowlevel.Abort:
            raise RuntimeError("crash")

        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.lowlevel.wait_task_rescheduled(crash)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(trio.TrioInternalError):
            backend.run(main)
        gc.collect()
    listener, *clients = held
    close_all(clients)
    listener.socket._sock.close()
    assert open_descriptors() == before
    del listener, main
    held.clear()
    gc.collect()  # or a later test is told of the tasks that never ended


@every_ahead
@pytest.mark.parametrize("way", ["fileno", "wait_readable", "another thread"])
def test_whoever_asks_for_the_descriptor_ends_it_and_gets_whom_it_has_brought(
    backend: Backend, way: str
) -> None:
    async def main() -> None:
        listener, clients = await listener_with(2)
        async with listener:
            if way == "another thread":
                assert await trio.to_thread.run_sync(listener.socket.fileno) >= 0
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
            elif way == "wait_readable":
                await trio.lowlevel.wait_readable(listener.socket)
            else:
                assert getattr(listener.socket, way)()
            before = descriptors_so_far()
            clients += [connect(listener), connect(listener)]
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            assert open_descriptors() == before + 2
            for client in clients:
                await trio.lowlevel.wait_readable(listener.socket)
                assert listener.socket.is_readable()
                await gets_in_order(listener.accept, [client])
            assert not listener.socket.is_readable()

    backend.run(main)


@every_ahead
@pytest.mark.parametrize("way", ["fileno", "dup"])
def test_a_task_that_accepts_goes_on_when_another_asks_for_the_descriptor(backend: Backend, way: str) -> None:
    async def main() -> None:
        async with await armed_listener() as listener, trio.open_nursery() as nursery:
            accepted: list[trio.SocketStream] = []

            async def accept() -> None:
                accepted.append(await listener.accept())

            nursery.start_soon(accept)
            await wait_all_tasks_blocked()
            given = getattr(listener.socket, way)()
            await wait_all_tasks_blocked()
            with connect(listener) as client:
                await wait_all_tasks_blocked()
                assert accepted[0].socket.getpeername() == client.getsockname()
                await accepted[0].aclose()
            if way == "dup":
                given.close()

    backend.run(main)


@every_ahead
@pytest.mark.parametrize("way", ["dup", "detach"])
def test_a_listener_is_not_given_away_with_connections(backend: Backend, way: str) -> None:
    async def main() -> None:
        listener, clients = await listener_with(2)
        for left in (2, 1):
            with pytest.raises(RuntimeError, match=rf"^{way}: {left} connections were accepted ahead"):
                getattr(listener.socket, way)()
            await (await listener.accept()).aclose()
        given = getattr(listener.socket, way)()
        new = socket.socket(fileno=given) if way == "detach" else given._sock
        clients.append(socket.create_connection(new.getsockname()))
        with new:
            new.setblocking(True)
            accepted, address = new.accept()
            assert address == clients[-1].getsockname()
            accepted.close()
        await listener.aclose()
        close_all(clients)

    backend.run(main)


@every_ahead
def test_without_descriptors_it_ends_and_begins_again(backend: Backend) -> None:
    async def main() -> None:
        async with await listen() as listener:
            clients = [socket.socket(), socket.socket()]
            with no_descriptors_left():
                for client in clients:
                    client.connect(listener.socket.getsockname())
                for accept in (listener.accept, listener.socket.accept):
                    with pytest.raises(OSError, match="Too many open files"):
                        await accept()
            await gets_in_order(listener.accept, clients)

    backend.run(main)


@every_ahead
@every_way
def test_a_connection_that_was_reset_meanwhile_is_accepted_and_broken(backend: Backend, accept: Any) -> None:
    async def main() -> None:
        async with await armed_listener() as listener:
            before = descriptors_so_far()
            client = await trio.open_tcp_stream(*listener.socket.getsockname())
            await until_accepted(1, before)
            reset(client)
            stream = await accept(listener)
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            await stream.aclose()

    backend.run(main)


@every_ahead
def test_a_forked_child_that_unwinds_leaves_the_connections_alone(backend: Backend) -> None:
    async def main() -> None:
        listener, clients = await listener_with(AHEAD)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            child = os.fork()
        if not child:
            listener.socket.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        async with listener:
            for client in clients:
                async with await listener.accept() as stream:
                    assert stream.socket.getpeername() == client.getsockname()
                assert client.recv(1) == b""
        close_all(clients)

    backend.run(main)


@pytest.mark.filterwarnings("ignore::trio_uring.UringFallbackWarning")
def test_a_run_without_completions_is_refused_or_falls_back() -> None:
    features = without("completions").features
    with pytest.raises(trio_uring.UringUnavailableError, match="accept_ahead needs completions") as raised:
        trio_uring.run(trio.sleep, 0, ring=RingOptions(accept_ahead=1, features=features))
    assert "switched off" in str(raised.value) or "which this kernel" in str(raised.value)
    trio_uring.run(trio.sleep, 0, ring=RingOptions(features=features))

    async def main() -> str:
        return type(trio.lowlevel.current_statistics().io_statistics).__name__

    falls_back = RingOptions(accept_ahead=1, features=features, fallback="epoll")
    assert trio_uring.run(main, ring=falls_back) == "_EpollStatistics"
