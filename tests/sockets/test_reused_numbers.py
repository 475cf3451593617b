"""A socket is closed and nobody tells the run: by the standard library's object below Trio's, or in
another run. Its descriptor's number is then another connection's, and nothing that was meant for the
first may reach it, nor may anything be taken from it.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from equivalence import EPOLL, URING, Backend, every_backend, every_ring, needs_completions
from pairs import arm, peer_socket, tcp_pair
from steps import interrupted
from trio.testing import wait_all_tasks_blocked

import trio_uring
from trio_uring import RingOptions
from trio_uring.sockets import sending

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

pytestmark = pytest.mark.usefixtures("no_hanging")

FULL = 4 << 20
"""More than both sockets have room for."""


def close(sock: socket.socket) -> None:
    sock.close()


def leave(sock: socket.socket) -> None:
    with sock:
        pass


def detach(sock: socket.socket) -> None:
    os.close(sock.detach())


def close_elsewhere(sock: socket.socket) -> None:
    """By a Trio socket, in a run of another thread."""

    async def main() -> None:
        trio.socket.from_stdlib_socket(sock).close()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    thread.join()


every_end = pytest.mark.parametrize("end", [close, leave, detach, close_elsewhere])


@attrs.define
class Stranger:
    """A connection of somebody else, which has got a number that was another's."""

    sock: socket.socket
    peer: socket.socket

    def check(self) -> None:
        """Nobody has sent by it, nor received from it."""
        with pytest.raises(BlockingIOError):
            self.peer.recv(100, socket.MSG_DONTWAIT)
        self.peer.sendall(b"for the stranger")
        assert self.sock.recv(100) == b"for the stranger"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def stranger_in_place_of(
    sock: socket.socket, end: Callable[[socket.socket], None], stack: ExitStack
) -> Stranger:
    """Ends ``sock``, and gives its number to a stranger, whose peer has sent already."""
    number = sock.fileno()
    mine, peer = socket.socketpair()
    end(sock)
    with mine:
        os.dup2(mine.fileno(), number, inheritable=False)
    stranger = Stranger(socket.socket(fileno=number), peer)
    stack.enter_context(stranger.sock)
    stack.enter_context(stranger.peer)
    return stranger


STREAM_CALLS: dict[str, Callable[[trio.SocketStream], Awaitable[object]]] = {
    "send_all": lambda stream: stream.send_all(b"not for the stranger"),
    "send_all of a view": lambda stream: stream.send_all(memoryview(b"not for the stranger")),
    "send_all of nothing": lambda stream: stream.send_all(b""),
    "receive_some": lambda stream: stream.receive_some(5),
    "send_eof": lambda stream: stream.send_eof(),
}
SOCKET_CALLS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "send": lambda sock: sock.send(b"not for the stranger"),
    "sendto": lambda sock: sock.sendto(b"not for the stranger", ("127.0.0.1", 9)),
    "sendmsg": lambda sock: sock.sendmsg([b"not for the stranger"]),
    "recv": lambda sock: sock.recv(5),
    "recv_into": lambda sock: sock.recv_into(bytearray(5)),
    "recv with a flag": lambda sock: sock.recv(5, socket.MSG_PEEK),
    "recvfrom": lambda sock: sock.recvfrom(5),
    "recvmsg": lambda sock: sock.recvmsg(5),
    "connect": lambda sock: sock.connect(("127.0.0.1", 9)),
}


@every_end
@pytest.mark.parametrize("budget", [0, 16])
@pytest.mark.parametrize("used", ["never", "once", "often"])
@pytest.mark.parametrize("name", STREAM_CALLS)
def test_a_stream_whose_socket_was_closed_below_it_is_closed(
    name: str, used: str, budget: int, end: Callable[[socket.socket], None], stack: ExitStack
) -> None:
    async def main() -> None:
        peer, stream = await tcp_pair()
        stack.enter_context(peer_socket(peer))
        if used == "once":
            await stream.send_all(b"x")
        elif used == "often":
            await arm(stream, peer_socket(peer))
        stranger = stranger_in_place_of(peer_socket(stream), end, stack)
        with pytest.raises(trio.ClosedResourceError) as raised:
            await STREAM_CALLS[name](stream)
        assert raised.value.__cause__ is None
        stranger.check()

    for backend in (EPOLL, Backend("io_uring", RingOptions(checkpoint_budget=budget))):
        backend.run(main)


@every_end
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("name", SOCKET_CALLS)
def test_a_socket_that_was_closed_below_is_a_bad_descriptor(
    name: str,
    together: bool,
    end: Callable[[socket.socket], None],
    stack: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        peer, stream = await tcp_pair()
        stack.enter_context(peer_socket(peer))
        await arm(stream, peer_socket(peer))
        stranger = stranger_in_place_of(peer_socket(stream), end, stack)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await SOCKET_CALLS[name](stream.socket)
        stranger.check()

    if together:  # sends are with the tick, however few tasks it has woken
        monkeypatch.setattr(sending, "FEW_EVENTS", -1)
    for backend in (EPOLL, URING):
        backend.run(main)


@every_end
@pytest.mark.parametrize("used", ["once", "often"])
@pytest.mark.parametrize("name", SOCKET_CALLS)
@every_backend
def test_a_call_that_is_awaited_after_the_end_is_of_a_bad_descriptor(
    backend: Backend, name: str, used: str, end: Callable[[socket.socket], None], stack: ExitStack
) -> None:
    async def main() -> None:
        peer, stream = await tcp_pair()
        stack.enter_context(peer_socket(peer))
        if used == "often":
            await arm(stream, peer_socket(peer))
        call = SOCKET_CALLS[name](stream.socket)  # as `Nursery.start_soon` does
        stranger = stranger_in_place_of(peer_socket(stream), end, stack)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await call
        stranger.check()

    backend.run(main)


def with_elsewhere(sock: Any) -> None:
    with sock:
        pass


def detach_elsewhere(sock: Any) -> None:
    os.close(sock.detach())


@needs_completions
@every_ring
@pytest.mark.parametrize("often", [False, True])
@pytest.mark.parametrize("end", [with_elsewhere, detach_elsewhere])
@pytest.mark.parametrize("run", [trio.run, trio_uring.run], ids=["epoll", "io_uring"])
def test_a_socket_that_a_run_of_another_thread_ends_is_closed_for_who_waits_for_it(
    backend: Backend, run: Callable[..., object], end: Callable[[Any], None], often: bool
) -> None:
    async def main() -> None:
        peer, stream = await tcp_pair()
        if often:
            await arm(stream, peer_socket(peer))

        async def end_it() -> None:
            end(stream.socket)

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some(5)

        async with peer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await wait_all_tasks_blocked()
                await trio.to_thread.run_sync(run, end_it)
            assert await peer.receive_some() == b""

    backend.run(main)


def close_socket(stream: trio.SocketStream) -> None:
    stream.socket.close()


def leave_socket(stream: trio.SocketStream) -> None:
    with stream.socket:
        pass


def detach_socket(stream: trio.SocketStream) -> None:
    stream.socket.detach()


@every_end
@pytest.mark.parametrize("again", [close_socket, leave_socket, detach_socket])
@every_backend
def test_the_peer_sees_the_end_when_what_was_closed_below_is_closed(
    backend: Backend,
    again: Callable[[trio.SocketStream], None],
    end: Callable[[socket.socket], None],
) -> None:
    async def main() -> None:
        peer, stream = await tcp_pair()
        await arm(stream, peer_socket(peer))
        end(peer_socket(stream))
        again(stream)
        async with peer:
            assert await peer.receive_some() == b""

    backend.run(main)


@every_end
@pytest.mark.parametrize("ahead", [0, 4])
@every_backend
def test_a_listener_that_was_closed_below_accepts_nobody(
    backend: Backend, ahead: int, end: Callable[[socket.socket], None], stack: ExitStack
) -> None:
    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        for _ in range(2):
            client = await trio.open_tcp_stream(*listener.socket.getsockname())
            async with client, await listener.accept():
                pass
        number = listener.socket._sock.fileno()  # type: ignore[attr-defined]
        other = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        end(listener.socket._sock)  # type: ignore[attr-defined]
        os.dup2(other.fileno(), number, inheritable=False)
        stranger = stack.enter_context(socket.socket(fileno=number))
        stack.enter_context(socket.create_connection(stranger.getsockname()))
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()
        with pytest.raises(OSError, match="Bad file descriptor"):
            await listener.socket.accept()
        stranger.settimeout(10)
        stranger.accept()[0].close()

    if ahead and backend.ring is not None:
        backend = Backend(backend.name, attrs.evolve(backend.ring, accept_ahead=ahead))
    backend.run(main)


PENDING: dict[str, Callable[[trio.SocketStream], Awaitable[object]]] = {
    "send_all": lambda stream: stream.send_all(b"not for the stranger"),
    "send_all of a view": lambda stream: stream.send_all(memoryview(b"not for the stranger")),
    "send": lambda stream: stream.socket.send(b"not for the stranger"),
    "receive_some": lambda stream: stream.receive_some(5),
    "recv": lambda stream: stream.socket.recv(5),
    "recv_into": lambda stream: stream.socket.recv_into(bytearray(5)),
}


async def outcome_of(call: Awaitable[object]) -> str:
    """What becomes of it, where nothing can come any more that it waits for."""
    outcome = "cancelled"

    async def run() -> None:
        nonlocal outcome
        try:
            await call
        except trio.ClosedResourceError:
            outcome = "closed"
        except OSError as error:
            outcome = "closed" if error.errno == errno.EBADF else str(error)
        else:
            outcome = "done"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return outcome


@needs_completions
@every_end
@pytest.mark.parametrize("enters", [False, True])
@pytest.mark.parametrize("often", [False, True])
@pytest.mark.parametrize("name", PENDING)
@every_ring
def test_what_waits_for_the_tick_goes_to_nobody_else(
    backend: Backend,
    name: str,
    often: bool,
    enters: bool,
    end: Callable[[socket.socket], None],
    stack: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The socket ends in the tick in which the call is made. ``enters``: then the kernel is entered
    for something else, before the tick is over."""

    async def main() -> str:
        peer, stream = await tcp_pair()
        stack.enter_context(peer_socket(peer))
        await stream.send_all(b"first")  # which does not wait for the tick
        assert peer_socket(peer).recv(10) == b"first"
        if often:
            await arm(stream, peer_socket(peer))
        strangers: list[Stranger] = []

        def action() -> None:
            strangers.append(stranger_in_place_of(peer_socket(stream), end, stack))
            if enters:
                trio.lowlevel.notify_closing(reader)

        with closing_pipe() as reader:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waits_until_closed, reader)
                await wait_all_tasks_blocked()
                outcome = await outcome_of(interrupted(PENDING[name](stream), action))
                if not enters:
                    trio.lowlevel.notify_closing(reader)
        strangers[0].check()
        return outcome

    monkeypatch.setattr(sending, "FEW_EVENTS", -1)
    waits = often and "rec" in name  # for its peer, by the receive that was pending before
    assert backend.run(main) == ("cancelled" if waits else "closed")


async def waits_until_closed(reader: int) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await trio.lowlevel.wait_readable(reader)


@contextmanager
def closing_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    yield reader
    os.close(reader)
    os.close(writer)
