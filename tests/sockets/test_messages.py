"""`recvfrom`, `recvmsg` and their kin on stream sockets with data that was read ahead: what
they return, and what a call that fails or asks for something else leaves behind.

Random programs of them are in test_socket_machine.py.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import Backend, every_backend
from pairs import pair_with_data, peer_socket
from trio.testing import assert_checkpoints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DATA = b"0123456789"

WHOLE: dict[str, tuple[Callable[[Any, Any], Awaitable[object]], object]] = {
    "recvfrom": (lambda sock, _: sock.recvfrom(100), (DATA, None)),
    "recvfrom_into": (lambda sock, buffer: sock.recvfrom_into(buffer), (10, None)),
    "recvfrom_into, of a part": (lambda sock, buffer: sock.recvfrom_into(buffer, nbytes=10), (10, None)),
    "recvmsg": (lambda sock, _: sock.recvmsg(100), (DATA, [], 0, None)),
    "recvmsg, with ancillary data": (lambda sock, _: sock.recvmsg(100, 64), (DATA, [], 0, None)),
    "recvmsg_into": (lambda sock, buffer: sock.recvmsg_into([buffer]), (10, [], 0, None)),
    "recvmsg_into, of an iterator": (
        lambda sock, buffer: sock.recvmsg_into(iter([buffer[:3], buffer[3:]])),
        (10, [], 0, None),
    ),
}
TAKES_NOTHING: dict[str, tuple[Callable[[Any], Awaitable[object]], object]] = {
    "recv": (lambda sock: sock.recv(0), b""),
    "recv_into": (lambda sock: sock.recv_into(bytearray()), 0),
    "recvfrom": (lambda sock: sock.recvfrom(0), (b"", None)),
    "recvfrom_into": (lambda sock: sock.recvfrom_into(bytearray()), (0, None)),
    "recvmsg": (lambda sock: sock.recvmsg(0), (b"", [], 0, None)),
    "recvmsg_into": (lambda sock: sock.recvmsg_into([]), (0, [], 0, None)),
    "recv, a negative size": (lambda sock: sock.recv(-1), ValueError),
    "recvfrom, a negative size": (lambda sock: sock.recvfrom(-1), ValueError),
    "recvmsg, a negative size": (lambda sock: sock.recvmsg(-1), ValueError),
    "recv_into, read only": (lambda sock: sock.recv_into(bytes(5)), TypeError),
    "recvfrom_into, read only": (lambda sock: sock.recvfrom_into(bytes(5)), TypeError),
    "recvmsg_into, read only": (lambda sock: sock.recvmsg_into([bytearray(5), bytes(5)]), TypeError),
    "recv_into, not contiguous": (lambda sock: sock.recv_into(memoryview(bytearray(9))[::2]), TypeError),
    "recvfrom_into, not contiguous": (
        lambda sock: sock.recvfrom_into(memoryview(bytearray(9))[::2]),
        TypeError,
    ),
    "recvmsg_into, not contiguous": (
        lambda sock: sock.recvmsg_into([memoryview(bytearray(9))[::2]]),
        TypeError,
    ),
    "recv_into, more than fits": (lambda sock: sock.recv_into(bytearray(5), 6), ValueError),
    "recvfrom_into, more than fits": (lambda sock: sock.recvfrom_into(bytearray(5), 6), ValueError),
    "recvfrom_into, a negative size": (lambda sock: sock.recvfrom_into(bytearray(5), -1), ValueError),
    "recvfrom_into, no buffer": (lambda sock: sock.recvfrom_into(5), TypeError),
    "recvmsg_into, no buffer": (lambda sock: sock.recvmsg_into([5]), TypeError),
}


@every_backend
@pytest.mark.parametrize("name", WHOLE)
def test_what_was_read_ahead_comes_first(backend: Backend, name: str) -> None:
    call, expected = WHOLE[name]

    async def main() -> None:
        peer, stream = await pair_with_data(DATA)
        buffer = bytearray(20)
        async with peer, stream:
            with assert_checkpoints():
                assert await call(stream.socket, memoryview(buffer)) == expected
            assert "into" not in name or buffer == DATA + bytes(10)
            peer_socket(peer).send(b"and the rest")
            assert await stream.receive_some() == b"and the rest"

    backend.run(main)


@every_backend
@pytest.mark.parametrize("name", TAKES_NOTHING)
def test_a_call_for_nothing_or_that_is_refused_takes_nothing(backend: Backend, name: str) -> None:
    call, expected = TAKES_NOTHING[name]
    ends = pytest.raises(expected) if isinstance(expected, type) else assert_checkpoints()

    async def main() -> None:
        peer, stream = await pair_with_data(DATA)
        async with peer, stream:
            with ends:
                assert await call(stream.socket) == expected
            assert await stream.receive_some() == DATA

    backend.run(main)


@every_backend
@pytest.mark.parametrize("flag", [socket.MSG_ERRQUEUE, socket.MSG_OOB], ids=["MSG_ERRQUEUE", "MSG_OOB"])
def test_a_receive_of_something_else_takes_no_data(backend: Backend, flag: int) -> None:
    async def main() -> None:
        peer, stream = await pair_with_data(DATA)
        async with peer, stream:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(receive, stream.socket)
                    for _ in range(5):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            assert await stream.receive_some() == DATA

    async def receive(sock: Any) -> None:
        with pytest.raises((trio.Cancelled, OSError)) as raised:
            await sock.recvmsg(100, 100, flag)
        if isinstance(raised.value, trio.Cancelled):
            raise raised.value

    backend.run(main)
