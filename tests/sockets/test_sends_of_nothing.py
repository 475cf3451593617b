"""A `send_all` of nothing, with which h11's servers end each response, is Trio's, and costs the
connection nothing that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import every_backend, io_statistics
from pairs import armed_pair, peer_socket
from trio.testing import wait_all_tasks_blocked

import trio_uring

if TYPE_CHECKING:
    from equivalence import Backend

EMPTY = (b"", bytearray(), memoryview(b""))


@pytest.mark.parametrize("nothing", EMPTY, ids=lambda nothing: type(nothing).__name__)
def test_the_multishot_receive_goes_on(nothing: bytes | bytearray | memoryview) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with peer, stream:
            before = io_statistics()
            await stream.send_all(nothing)
            assert io_statistics().multishot_terminations == before.multishot_terminations
            peer_socket(peer).send(b"12345")
            assert await stream.receive_some() == b"12345"

    trio_uring.run(main)


@every_backend
def test_it_is_refused_as_any_other_send(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        nothing: Any
        for nothing in ("", None):
            with pytest.raises(TypeError):
                await stream.send_all(nothing)
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.send_all(b"")
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(20_000_000))
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await stream.send_all(b"")
            nursery.cancel_scope.cancel()
        stream.socket._sock.close()  # type: ignore[attr-defined]  # behind Trio's back
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"")
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"")
        await peer.aclose()

    backend.run(main)
