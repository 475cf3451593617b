"""Looking at a socket without receiving from it: peeks see all that has come, `is_readable` asks and
changes nothing, and urgent data are where they are on epoll."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from equivalence import (
    Backend,
    every_backend,
    every_ring,
    io_statistics,
    needs_completions,
    without,
)
from pairs import (
    arm,
    armed_pair,
    bytes_read_ahead,
    pair_with_data,
    pair_with_unread_data,
    peer_socket,
    tcp_pair,
)
from steps import interrupted
from trio.testing import wait_all_tasks_blocked

import trio_uring
from trio_uring import RingOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.usefixtures("no_hanging")

PEEK = socket.MSG_PEEK


async def peek_into(sock: Any, call: str, size: int) -> bytes:
    buffer = bytearray(size)
    result = await getattr(sock, call)(*(([buffer], 0) if call == "recvmsg_into" else (buffer, 0)), PEEK)
    return bytes(buffer[: result[0] if isinstance(result, tuple) else result])


PEEKS: dict[str, Callable[[Any, int], Awaitable[bytes]]] = {
    "recv": lambda sock, size: sock.recv(size, PEEK),
    "recv_into": lambda sock, size: peek_into(sock, "recv_into", size),
    "recvfrom": lambda sock, size: first(sock.recvfrom(size, PEEK)),
    "recvfrom_into": lambda sock, size: peek_into(sock, "recvfrom_into", size),
    "recvmsg": lambda sock, size: first(sock.recvmsg(size, 0, PEEK)),
    "recvmsg_into": lambda sock, size: peek_into(sock, "recvmsg_into", size),
}


async def first(call: Awaitable[tuple[bytes, object]]) -> bytes:
    return (await call)[0]


@pytest.mark.parametrize("name", PEEKS)
@every_backend
def test_a_peek_sees_what_was_read_ahead_and_what_waits_behind_it(backend: Backend, name: str) -> None:
    async def main() -> None:
        peer, stream = await pair_with_data(b"read ahead, ")
        peek = PEEKS[name]
        async with peer, stream:
            assert await peek(stream.socket, 100) == b"read ahead, "
            peer_socket(peer).send(b"and more")
            assert await peek(stream.socket, 100) == b"read ahead, and more"
            assert await peek(stream.socket, 14) == b"read ahead, an"
            assert await peek(stream.socket, 4) == b"read"
            assert await stream.receive_some(5) == b"read "
            assert await peek(stream.socket, 100) == b"ahead, and more"
            await peer.aclose()
            assert await peek(stream.socket, 100) == b"ahead, and more"
            received = b"".join([part async for part in stream])
            assert received == b"ahead, and more"
            assert await peek(stream.socket, 100) == b""

    backend.run(main)


@needs_completions
def test_a_connection_reads_ahead_again_after_a_peek() -> None:
    async def main() -> None:
        peer, stream = await pair_with_data(b"x")
        async with peer, stream:
            assert await stream.socket.recv(1, PEEK) == b"x"
            assert await stream.receive_some() == b"x"
            await arm(stream, peer_socket(peer))
            before = bytes_read_ahead()
            peer_socket(peer).send(b"ahead")
            while bytes_read_ahead() == before:
                await trio.lowlevel.checkpoint()

    trio_uring.run(main)


@needs_completions
def test_asking_whether_it_is_readable_changes_nothing() -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with peer, stream:
            ended = io_statistics().multishot_terminations
            for _ in range(10):
                assert not stream.socket.is_readable()
                peer_socket(peer).send(b"y")
                assert stream.socket.is_readable()
                before = bytes_read_ahead()
                while bytes_read_ahead() == before:
                    await trio.lowlevel.checkpoint()
                assert stream.socket.is_readable()
                entered = io_statistics().entered
                assert stream.socket.is_readable()
                assert io_statistics().entered == entered
                assert await stream.receive_some() == b"y"
            assert io_statistics().multishot_terminations == ended

    trio_uring.run(main)


@every_backend
def test_what_the_kernel_has_received_and_no_tick_has_told_is_readable(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await pair_with_unread_data(b"data")
        reader, writer = os.pipe()
        async with peer, stream, trio.open_nursery() as nursery:
            nursery.start_soon(waits_until_closed, reader)
            await wait_all_tasks_blocked()
            peer_socket(peer).send(b"data")
            trio.lowlevel.notify_closing(reader)  # enters the kernel, which receives
            assert stream.socket.is_readable()
        os.close(reader)
        os.close(writer)

    backend.run(main)


async def waits_until_closed(reader: int) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await trio.lowlevel.wait_readable(reader)


@pytest.mark.parametrize("data", [b"", b"data"])
@every_backend
def test_the_end_of_a_stream_is_readable(backend: Backend, data: bytes) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with stream:
            if data:
                await peer.send_all(data)
            await peer.aclose()
            for _ in range(3):
                assert stream.socket.is_readable()
                await trio.lowlevel.checkpoint()
            assert b"".join([part async for part in stream]) == data
            assert stream.socket.is_readable()

    backend.run(main)


@needs_completions
@pytest.mark.parametrize("features", [(), ("defer_taskrun",)])
def test_a_stopped_multishot_is_nothing_to_read(features: tuple[str, ...]) -> None:
    """Its last completion says that it was stopped, and not that there is something."""

    async def main() -> None:
        peer, stream = await armed_pair()
        async with peer, stream:
            stream.socket.fileno()
            assert not stream.socket.is_readable()

    trio_uring.run(main, ring=without(*features))


def ask_for_descriptor(sock: Any) -> None:
    sock.fileno()


def ask_for_error(sock: Any) -> None:
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def ask_for_descriptor_elsewhere(sock: Any) -> None:
    thread = threading.Thread(target=sock.fileno)
    thread.start()
    thread.join()


every_look = pytest.mark.parametrize(
    "look", [ask_for_descriptor, ask_for_error, ask_for_descriptor_elsewhere]
)


@every_look
@every_backend
def test_who_receives_since_this_tick_gets_its_data_whoever_looks(
    backend: Backend, look: Callable[[Any], None]
) -> None:
    """The receive is taken back before the kernel has seen it, and is made again."""

    async def main() -> None:
        peer, stream = await tcp_pair()
        peer_socket(peer).send(b"1")
        assert await stream.receive_some() == b"1"  # the next receive is multishot

        async def receive() -> None:
            assert await interrupted(stream.receive_some(), lambda: look(stream.socket)) == b"data"

        async with peer, stream, trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            peer_socket(peer).send(b"data")

    backend.run(main)


@every_look
@every_ring
def test_who_accepts_since_this_tick_gets_a_connection_whoever_looks(
    backend: Backend, look: Callable[[Any], None]
) -> None:
    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def accept() -> None:
            accepted: Any = await interrupted(listener.accept(), lambda: look(listener.socket))
            await accepted.aclose()

        async with listener, trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            await wait_all_tasks_blocked()
            await (await trio.open_tcp_stream(*listener.socket.getsockname())).aclose()

    assert backend.ring is not None
    Backend(backend.name, attrs.evolve(backend.ring, accept_ahead=4)).run(main)


def inline_of_stream(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def inline_of_socket(stream: trio.SocketStream) -> None:
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def inline_below(stream: trio.SocketStream) -> None:
    peer_socket(stream).setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


@pytest.mark.parametrize("set_inline", [inline_of_stream, inline_of_socket])
@every_backend
def test_urgent_data_that_are_inline_are_received(
    backend: Backend, set_inline: Callable[[trio.SocketStream], None]
) -> None:
    async def main() -> bytes:
        peer, stream = await armed_pair()
        async with stream:
            set_inline(stream)
            return await talk_urgently(peer, stream)

    assert backend.run(main) == b"before!after"


@every_backend
def test_urgent_data_that_were_made_inline_before_the_first_receive_are_received(backend: Backend) -> None:
    """By the standard library's object, or inherited from the listening socket."""

    async def main() -> bytes:
        peer, stream = await tcp_pair()
        async with stream:
            inline_below(stream)
            await arm(stream, peer_socket(peer))
            return await talk_urgently(peer, stream)

    assert backend.run(main) == b"before!after"


async def talk_urgently(peer: trio.SocketStream, stream: trio.SocketStream) -> bytes:
    peer_socket(peer).send(b"before")
    peer_socket(peer).send(b"!", socket.MSG_OOB)
    peer_socket(peer).send(b"after")
    await peer.aclose()
    return b"".join([part async for part in stream])


@every_backend
def test_who_has_asked_for_an_urgent_byte_loses_none(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with peer, stream:
            with pytest.raises(OSError, match="Invalid argument"):  # there is none
                await stream.socket.recv(1, socket.MSG_OOB)
            for letter in (b"a", b"b"):
                peer_socket(peer).send(b"data")
                assert await stream.receive_some() == b"data"
                peer_socket(peer).send(letter, socket.MSG_OOB)
                await wait_all_tasks_blocked()
                assert await stream.socket.recv(1, socket.MSG_OOB) == letter

    backend.run(main)


@needs_completions
def test_who_finds_no_buffer_left_waits_for_one() -> None:
    """Each tick lets as many try again as there are buffers."""
    count = 200

    async def main() -> None:
        pairs = [await armed_pair() for _ in range(count)]
        before = io_statistics().buffer_shortages
        received = [b""] * count

        async def receive(number: int) -> None:
            while len(received[number]) < 100:
                received[number] += await pairs[number][1].receive_some()

        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(receive, number)
            await wait_all_tasks_blocked()
            for peer, _ in pairs:
                peer_socket(peer).send(b"x" * 100)
        assert received == [b"x" * 100] * count
        assert io_statistics().buffer_shortages - before < 2 * count
        for pair in pairs:
            for stream in pair:
                await stream.aclose()

    trio_uring.run(main, ring=RingOptions(buffers=2))


@needs_completions
@pytest.mark.parametrize("end", ["cancelled", "closed"])
def test_who_waits_for_a_buffer_can_be_stopped(end: str) -> None:
    count = 50

    async def main() -> None:
        pairs = [await armed_pair() for _ in range(count)]
        told = 0

        async def receive(stream: trio.SocketStream) -> None:
            nonlocal told
            try:
                await stream.receive_some()
            except trio.ClosedResourceError:
                told += 1

        async with trio.open_nursery() as nursery:
            for _, stream in pairs:
                nursery.start_soon(receive, stream)
            await wait_all_tasks_blocked()
            for peer, _ in pairs:
                peer_socket(peer).send(b"x")
            while not io_statistics().buffer_shortages:
                await trio.lowlevel.checkpoint()
            if end == "cancelled":
                nursery.cancel_scope.cancel()
            else:
                for _, stream in pairs:
                    stream.socket.close()
        assert end == "cancelled" or told
        for peer, stream in pairs:
            if end == "cancelled":
                peer_socket(peer).send(b"y")
                assert (await stream.receive_some()) in (b"x", b"y", b"xy")
            await peer.aclose()
            await stream.aclose()

    trio_uring.run(main, ring=RingOptions(buffers=2))
