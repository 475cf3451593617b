"""TLS records that were damaged on their way, cut anywhere: an SSLStream returns what it returns on epoll,
and raises what it raises there.

tests/sockets/test_tls_machine.py has the other calls, and a peer that makes whole records."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import trio
from equivalence import EPOLL, URING, needs_completions
from fuzzing import fuzzed
from hypothesis import given
from hypothesis import strategies as st
from socket_calls import described
from tls_peer import VERSIONS, Peer, context
from trio.testing import wait_all_tasks_blocked

if TYPE_CHECKING:
    import ssl

ALL = 1 << 30
sizes = st.one_of(st.integers(1, 100), st.sampled_from([1024, 16_384, 16_385, 40_000]))
# What the peer makes: data of these sizes, new keys, and its end.
makes = st.lists(
    st.one_of(
        st.tuples(st.just("send"), sizes),
        st.tuples(st.sampled_from(["ask_for_new_keys", "end"]), st.just(None)),
    ),
    min_size=1,
    max_size=5,
)
# What becomes of the records: how, of which one, and with what. What is inside is encrypted with other keys
# each time: so no length is changed, after which it would be taken for the next record's header.
damages = st.lists(
    st.tuples(
        st.sampled_from(["flip", "drop", "repeat", "swap", "type", "version", "insert", "cut"]),
        st.integers(0, 9),
        st.integers(0, 255),
    ),
    max_size=3,
)
cuts = st.lists(st.one_of(st.integers(1, 40), st.integers(1, 40_000)), max_size=4)


def records_of(data: bytes) -> list[bytes]:
    """Whole records, each with its header of five bytes, of which the last two are its length."""
    records = []
    while data:
        length = 5 + int.from_bytes(data[3:5], "big")
        records.append(data[:length])
        data = data[length:]
    return records


def damage(records: list[bytes], how: str, which: int, what: int) -> None:
    at = which % len(records)
    record = bytearray(records[at])
    if how == "drop" and len(records) > 1:
        del records[at]
    elif how == "repeat":
        records.insert(at, records[at])
    elif how == "swap":
        records[at], records[-1] = records[-1], records[at]
    elif how == "insert":
        records.insert(at, bytes([what, 3, 3, 0, what % 64]) + bytes(what % 64))
    elif how == "cut":
        del records[at + 1 :]
        records[at] = records[at][:what]
    elif len(record) > 5:
        record[{"type": 0, "version": 2}.get(how, 5 + what % (len(record) - 5))] ^= what or 1
        records[at] = bytes(record)


async def seen(version: ssl.TLSVersion, pieces: Any, made: Any, damaged: Any, chunk: int | None) -> Any:
    """What the receives return altogether, and what the last two of them raise."""
    near, far = socket.socketpair()
    with far, trio.socket.from_stdlib_socket(near) as sock:
        peer = Peer(far, version, server_side=True)
        stream = trio.SSLStream(
            trio.SocketStream(sock), context(version, server_side=False), server_hostname="localhost"
        )
        data, ends = bytearray(), []

        async def receive() -> None:
            while len(ends) < 2:
                try:
                    some = await stream.receive_some(chunk)
                except Exception as error:
                    ends.append(described(error))
                else:
                    data.extend(some)
                    if not some:
                        ends.append(("end",))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            while not peer.handshaken:
                await wait_all_tasks_blocked()
                peer.pump()
            peer.hold(ALL)
            for name, size in made:
                if name != "ask_for_new_keys" or version.name == "TLSv1_3":
                    getattr(peer, name)(*[size] if size else [])
            records = records_of(bytes(peer._unsent))
            for one in damaged:
                if records:
                    damage(records, *one)
            left = b"".join(records)
            for piece in (*pieces, len(left)):
                far.setblocking(False)
                peer.pump()  # what the stream has sent
                far.send(left[:piece])
                left = left[piece:]
                await wait_all_tasks_blocked()
            far.shutdown(socket.SHUT_WR)
    return bytes(data), ends


@needs_completions
@fuzzed
@given(
    version=st.sampled_from(VERSIONS),
    pieces=cuts,
    made=makes,
    damaged=damages,
    chunk=st.sampled_from([None, 1, 100, 16_384, 65_536]),
)
def test_damaged_records_are_taken_as_on_epoll(
    version: ssl.TLSVersion, pieces: list[int], made: Any, damaged: Any, chunk: int | None
) -> None:
    said, ends = EPOLL.run(lambda: seen(version, pieces, made, damaged, chunk))
    assert URING.run(lambda: seen(version, pieces, made, damaged, chunk)) == (said, ends)
