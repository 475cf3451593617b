"""Two tasks that receive from one socket, the second when the first was woken and has not run yet."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio
from equivalence import every_backend
from pairs import arm, armed_pair, peer_socket
from trio.lowlevel import wait_readable
from trio.testing import wait_all_tasks_blocked

if TYPE_CHECKING:
    from equivalence import Backend

ATTEMPTS = 30  # which of two tasks of a tick runs first is up to Trio's dice


@every_backend
@pytest.mark.parametrize("waits", [False, True], ids=["receives", "waits-to-read"])
def test_what_the_first_leaves_is_the_seconds(backend: Backend, waits: bool) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        other, starter = await armed_pair()
        async with peer, stream, other, starter:
            for _ in range(ATTEMPTS):
                pieces: list[bytes] = []

                async def first(pieces: list[bytes] = pieces) -> None:
                    pieces.append(await stream.receive_some(3))

                async def second(pieces: list[bytes] = pieces) -> None:
                    await starter.receive_some()
                    if waits:
                        await wait_readable(stream.socket._sock)  # type: ignore[attr-defined]
                    pieces.append(await stream.receive_some(3))

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(first)
                    nursery.start_soon(second)
                    await wait_all_tasks_blocked()
                    peer_socket(other).send(b"x")
                    peer_socket(peer).send(b"abcdef")
                assert sorted(pieces) == [b"abc", b"def"]

    backend.run(main)


@every_backend
def test_a_socket_that_others_read_gives_no_more_than_was_asked_for(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with peer, stream:
            await arm(stream, peer_socket(peer))
            async with trio.open_nursery() as nursery:

                async def receive() -> None:
                    assert await stream.receive_some(1) == b"a"

                nursery.start_soon(receive)
                await wait_all_tasks_blocked()
                descriptor = stream.socket.fileno()
                await wait_all_tasks_blocked()
                peer_socket(peer).send(b"abcdef")
            assert os.read(descriptor, 10) == b"bcdef"

    backend.run(main)
