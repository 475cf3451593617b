"""However much a peer sends, and however slow the task is that receives: what is read ahead has a limit."""

from __future__ import annotations

import os
import re

import pytest
import trio
from equivalence import Backend, needs_completions
from pairs import arm, bytes_read_ahead, peer_socket, tcp_pair
from socket_calls import expected

from trio_uring import RingOptions

pytestmark = [pytest.mark.usefixtures("no_hanging"), needs_completions]

PEERS = 4
KERNEL = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))


@pytest.mark.skipif(KERNEL < (6, 17), reason="before Linux 6.17 a multishot has no limit of its own")
@pytest.mark.parametrize(
    ("ring", "most"),
    [
        (RingOptions(), 131_072),
        (RingOptions(features={"defer_taskrun": False}), 131_072),
        (RingOptions(read_ahead=300_000), 300_000),
        (RingOptions(read_ahead=1), 65_536),
        (RingOptions(buffers=2, buffer_size=1024, read_ahead=1000), 1024),
    ],
)
def test_a_peer_who_sends_more_than_is_asked_for_waits(ring: RingOptions, most: int) -> None:
    """The last buffer of a multishot may go past its limit."""

    async def main() -> None:
        pairs = [await tcp_pair() for _ in range(PEERS)]
        for peer, stream in pairs:
            await arm(stream, peer_socket(peer))
        before = bytes_read_ahead()
        sent = [0] * PEERS
        for _ in range(100):
            for number, (peer, _) in enumerate(pairs):
                while True:
                    try:
                        sent[number] += peer_socket(peer).send(expected(sent[number], 100_000))
                    except BlockingIOError:
                        break
            await trio.lowlevel.checkpoint()
        assert min(sent) > most + ring.buffer_size
        assert 0 < bytes_read_ahead() - before <= PEERS * (most + ring.buffer_size)
        for number, (peer, stream) in enumerate(pairs):
            got = 0
            while got < sent[number]:
                data = await stream.receive_some(50_000)
                assert data == expected(got, len(data))
                got += len(data)
            await peer.aclose()
            await stream.aclose()

    Backend("io_uring", ring).run(main)
