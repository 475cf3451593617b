"""`SocketListener.accept` and `accept` of sockets: one connection for each call, and none that
nobody gets. With an `accept_ahead` they show the same, but for whom they leave in the backlog."""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import (
    EPOLL,
    PATIENCE,
    RINGS,
    URING,
    Backend,
    descriptors_so_far,
    every_backend,
    needs_completions,
    no_descriptors_left,
    open_descriptors,
)
from listeners import connect, gets_in_order, listen
from pairs import fails_with, peer_socket, reset, tcp_pair
from trio.testing import wait_all_tasks_blocked

from trio_uring import RingOptions
from trio_uring.sockets.acceptor import Acceptor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

every_way_to_accept = pytest.mark.parametrize(
    "backend",
    [EPOLL, *RINGS, Backend("accept ahead", RingOptions(accept_ahead=3))],
    ids=lambda backend: backend.name.replace(" ", "-"),
)


@every_backend
def test_each_call_gets_one_connection_and_the_others_stay_with_the_kernel(backend: Backend) -> None:
    async def main() -> None:
        async with await listen() as listener:
            clients = [connect(listener) for _ in range(3)]
            for number, client in enumerate(clients, start=1):
                before = descriptors_so_far()
                stream = await listener.accept()
                assert stream.socket.getpeername() == client.getsockname()
                assert open_descriptors() == before + 1
                client.send(b"%d" % number)
                assert await stream.receive_some() == b"%d" % number
                await stream.aclose()
                client.close()

    backend.run(main)


@every_way_to_accept
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_what_is_accepted_is_as_trio_makes_it(
    backend: Backend, family: socket.AddressFamily, tmp_path: Path
) -> None:
    async def main() -> None:
        sock = trio.socket.socket(family)
        await sock.bind(str(tmp_path / "socket") if family is socket.AF_UNIX else ("localhost", 0))
        sock.listen()
        async with trio.SocketListener(sock) as listener:
            with socket.socket(family) as client:
                client.connect(sock.getsockname())
                stream = await listener.accept()
                accepted = peer_socket(stream)
                assert type(stream) is trio.SocketStream
                assert (accepted.family, accepted.type, accepted.proto) == (family, sock.type, sock.proto)
                assert accepted.gettimeout() == 0.0
                assert not accepted.get_inheritable()
                if family is not socket.AF_UNIX:
                    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                await stream.aclose()

    backend.run(main)


@every_way_to_accept
@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_INET6, ("::1", 0)),
        (socket.AF_UNIX, "listener"),
        (socket.AF_UNIX, b"\0abstract"),
    ],
)
@pytest.mark.usefixtures("playground")
def test_a_socket_accepts_and_tells_the_address(
    backend: Backend, family: socket.AddressFamily, address: Any
) -> None:
    async def main() -> None:
        with trio.socket.socket(family) as sock:
            await sock.bind(address)
            sock.listen()
            for bound in (False, True):
                with socket.socket(family) as client:
                    if bound and family is socket.AF_UNIX:
                        client.bind("client")
                    client.connect(sock.getsockname())
                    accepted, peer = await sock.accept()
                    assert peer == client.getsockname()
                    assert type(peer) is type(client.getsockname())
                    assert accepted.getpeername() == peer
                    assert (accepted.family, accepted.type) == (family, socket.SOCK_STREAM)
                    assert not accepted.get_inheritable()
                    client.send(b"hello")
                    assert await accepted.recv(10) == b"hello"
                    accepted.close()

    backend.run(main)


@every_way_to_accept
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_socket_tells_the_address_of_a_connection_that_was_reset(backend: Backend, host: str) -> None:
    async def main() -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with trio.socket.socket(family) as sock:
            await sock.bind((host, 0))
            sock.listen()
            client = trio.socket.socket(family)
            await client.connect(sock.getsockname())
            address = client.getsockname()
            reset(trio.SocketStream(client))
            accepted, peer = await sock.accept()
            assert peer == address
            with pytest.raises(ConnectionResetError):
                await accepted.recv(1)  # the reset has come, however busy the machine is
            with pytest.raises(OSError, match="not connected"):
                accepted.getpeername()
            accepted.close()

    backend.run(main)


@every_backend
def test_a_cancelled_accept_takes_no_connection(backend: Backend) -> None:
    async def main() -> None:
        async with await listen() as listener:
            for wait in (True, False):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(listener.accept)
                    if wait:
                        await wait_all_tasks_blocked()
                    nursery.cancel_scope.cancel()
            before = descriptors_so_far()
            await gets_in_order(listener.accept, [connect(listener)])
            assert open_descriptors() == before

    backend.run(main)


@every_way_to_accept
def test_a_connection_that_came_before_the_cancellation_is_not_lost(backend: Backend) -> None:
    """It is returned, or stays with the kernel."""

    async def main() -> None:
        async with await listen() as listener:
            accepted: list[trio.SocketStream] = []

            async def accept() -> None:
                accepted.append(await listener.accept())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(accept)
                await wait_all_tasks_blocked()
                client = connect(listener)
                nursery.cancel_scope.cancel()
            if not accepted:
                await accept()
            (stream,) = accepted
            assert stream.socket.getpeername() == client.getsockname()
            await stream.aclose()
            client.close()

    backend.run(main)


@every_way_to_accept
def test_closing_in_another_task_ends_it_and_frees_the_port(backend: Backend) -> None:
    async def main() -> None:
        listener = await listen()
        port = listener.socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_with, trio.ClosedResourceError, listener.accept)
            await wait_all_tasks_blocked()
            await listener.aclose()
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", port))
                sock.listen()
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()

    backend.run(main)


@every_way_to_accept
def test_a_second_task_is_told_that_it_is_busy(backend: Backend) -> None:
    async def main() -> None:
        async with await listen() as listener:
            for first in (listener.accept, listener.socket.accept):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(first)
                    await wait_all_tasks_blocked()
                    for second in (listener.accept, listener.socket.accept):
                        with pytest.raises(trio.BusyResourceError):
                            await second()
                    with pytest.raises(trio.BusyResourceError):
                        await trio.lowlevel.wait_readable(listener.socket)
                    nursery.cancel_scope.cancel()

    backend.run(main)


@every_way_to_accept
def test_without_descriptors_it_is_an_error_and_the_connection_waits(backend: Backend) -> None:
    async def main() -> None:
        async with await listen() as listener:
            client = connect(listener)
            with no_descriptors_left():
                with pytest.raises(OSError, match="Too many open files") as raised:
                    await listener.accept()
                assert raised.value.errno == errno.EMFILE
            await gets_in_order(listener.accept, [client])

    backend.run(main)


@every_way_to_accept
def test_a_connection_that_was_reset_before_is_accepted_and_broken(backend: Backend) -> None:
    async def main() -> None:
        async with await listen() as listener:
            reset(await trio.open_tcp_stream(*listener.socket.getsockname()))
            stream = await listener.accept()
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            await stream.aclose()

    backend.run(main)


@every_way_to_accept
def test_a_run_that_ends_while_a_task_accepts_frees_the_port(backend: Backend) -> None:
    async def main() -> trio.SocketListener:
        listener = await listen()
        trio.lowlevel.spawn_system_task(listener.accept)
        await wait_all_tasks_blocked()
        return listener

    sock: socket.socket = backend.run(main).socket._sock  # type: ignore[attr-defined]
    address = sock.getsockname()
    sock.close()
    with socket.socket() as other:
        other.bind(address)
        other.listen()


@every_way_to_accept
def test_a_socket_that_does_not_listen_is_refused(backend: Backend) -> None:
    async def main() -> None:
        with trio.socket.socket() as sock, pytest.raises(OSError, match="Invalid argument"):
            await sock.accept()
        with trio.socket.socket() as sock:
            for call in (lambda: sock.recv(1), lambda: sock.recv_into(bytearray(1))):
                with pytest.raises(OSError, match="not connected") as raised:
                    await call()
                assert raised.value.errno == errno.ENOTCONN
        async with await listen() as listener:
            with pytest.raises(OSError, match="not connected"):
                await listener.socket.recv(1)

    backend.run(main)


@every_backend
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_sockets_that_are_no_streams_keep_their_messages_apart(
    backend: Backend, kind: socket.SocketKind
) -> None:
    async def main() -> None:
        left, right = trio.socket.socketpair(socket.AF_UNIX, kind)
        with left, right:
            for _ in range(3):
                await left.send(b"one")
                await left.send(b"two")
                assert await right.recv(100) == b"one"
                assert await right.recv(1) == b"t"

    backend.run(main)


@every_way_to_accept
@pytest.mark.parametrize("raw", [False, True])
def test_closing_a_listener_leaves_alone_whoever_got_the_slot_of_its_accept(
    backend: Backend, raw: bool
) -> None:
    """One tick brings a connection, and wakes one task that sends and one that closes the
    listener, half of the time before the task that accepts goes on."""

    async def accept(listener: trio.SocketListener) -> None:
        with suppress(trio.ClosedResourceError, OSError):
            accepted = await (listener.socket.accept() if raw else listener.accept())
            if isinstance(accepted, tuple):
                accepted[0].close()
            else:
                await accepted.aclose()

    async def close_when_readable(sock: socket.socket, listener: trio.SocketListener) -> None:
        await trio.lowlevel.wait_readable(sock)
        listener.socket.close()

    async def send_when_readable(sock: socket.socket, stream: trio.SocketStream) -> None:
        await trio.lowlevel.wait_readable(sock)
        await stream.send_all(b"sent")

    async def once() -> None:
        listener = await listen()
        peer, stream = await tcp_pair()
        closing, close = socket.socketpair()
        sending, send = socket.socketpair()
        with closing, close, sending, send:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(accept, listener)
                nursery.start_soon(close_when_readable, closing, listener)
                nursery.start_soon(send_when_readable, sending, stream)
                await wait_all_tasks_blocked()
                send.send(b"x")
                close.send(b"x")
                socket.create_connection(listener.socket.getsockname()).close()
            assert await peer.receive_some() == b"sent"
        await peer.aclose()
        await stream.aclose()

    async def main() -> None:
        for _ in range(20):
            await unless_it_sleeps_for_ever(once)

    backend.run(main)


async def unless_it_sleeps_for_ever(call: Callable[[], Awaitable[None]]) -> None:
    """Crashes the run if a task of ``call`` cannot even be cancelled."""
    done = trio.Event()

    async def watch() -> None:
        with trio.CancelScope(shield=True), trio.move_on_after(PATIENCE):
            await done.wait()
            return
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.lowlevel.wait_task_rescheduled(crash)

    def crash(_: object) -> trio.lowlevel.Abort:
        raise AssertionError("a task sleeps for ever")

    trio.lowlevel.spawn_system_task(watch)
    try:
        await call()
    finally:
        done.set()


# Who waits already


@every_backend
def test_who_waits_in_the_backlog_is_accepted_at_a_checkpoint(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        clients = [socket.create_connection(listener.socket.getsockname()) for _ in range(4)]
        async with listener:
            with trio.CancelScope() as scope:
                scope.cancel()
                await listener.accept()
            assert scope.cancelled_caught  # and nobody was taken
            for client in clients:
                with trio.testing.assert_checkpoints():
                    stream = await listener.accept()
                assert stream.socket.getpeername() == client.getsockname()
                assert not os.get_inheritable(stream.socket.fileno())
                assert not os.get_blocking(stream.socket.fileno())
                await stream.aclose()
                client.close()

    monkeypatch.setattr(Acceptor, "submit", None)  # who waits needs none
    backend.run(main)


@every_backend
def test_an_error_of_the_accept_is_told_once(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        with socket.create_connection(listener.socket.getsockname()) as client:
            async with listener:
                with (
                    pytest.raises(OSError, match="Protocol error") as raised,
                    trio.testing.assert_checkpoints(),
                ):
                    await listener.socket.accept()
                assert raised.value.errno == errno.EPROTO
                accepted, address = await listener.socket.accept()
                assert address == client.getsockname()
                accepted.close()

    def accept(self: socket.socket) -> tuple[int, Any]:
        if answers:
            raise OSError(answers.pop(), "Protocol error")
        return below(self)

    answers = [errno.EPROTO]
    below = socket.socket._accept  # type: ignore[attr-defined]
    monkeypatch.setattr(socket.socket, "_accept", accept, raising=False)
    backend.run(main)
    assert not answers


@needs_completions
def test_with_a_budget_who_waits_is_accepted_without_a_yield(still_clock: None) -> None:
    async def main() -> list[int]:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task = trio.lowlevel.current_task()
        steps = []
        async with listener:
            clients = [socket.create_connection(listener.socket.getsockname()) for _ in range(6)]
            for _ in clients:
                stream = await listener.accept()
                steps.append(task._schedule_points)
                stream.socket.close()
            for client in clients:
                client.close()
        return [step - steps[0] for step in steps]

    assert Backend("budget", RingOptions(checkpoint_budget=2)).run(main) == [0, 0, 1, 1, 1, 2]
    assert URING.run(main) == [0, 1, 2, 3, 4, 5]


@every_backend
def test_the_first_receive_takes_what_has_come(backend: Backend) -> None:
    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            for sent in (b"request", b""):
                client = socket.create_connection(listener.socket.getsockname())
                client.sendall(sent)
                if not sent:
                    client.close()
                stream = await listener.accept()
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await stream.receive_some()
                assert scope.cancelled_caught
                with trio.testing.assert_checkpoints():
                    assert await stream.receive_some() == sent
                if sent:
                    client.sendall(b"another")
                    assert await stream.receive_some() == b"another"
                await stream.aclose()
                client.close()

    backend.run(main)


@every_backend
def test_the_first_receive_tells_of_a_reset(backend: Backend) -> None:
    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            client = socket.create_connection(listener.socket.getsockname())
            stream = await listener.accept()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            with pytest.raises(trio.BrokenResourceError) as raised, trio.testing.assert_checkpoints():
                await stream.receive_some()
            assert isinstance(raised.value.__cause__, ConnectionResetError)
            await stream.aclose()

    backend.run(main)
