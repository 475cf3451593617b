"""``async for`` over a stream: `receive_some` until the end, as on epoll."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from equivalence import every_backend
from pairs import armed_pair, pair_with_data, reset, tcp_pair
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

if TYPE_CHECKING:
    from equivalence import Backend


@every_backend
def test_it_gives_what_comes_until_the_end(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await tcp_pair()
        async with peer, stream, trio.open_nursery() as nursery:
            received: list[bytes] = []

            async def receive() -> None:
                async for data in stream:
                    received.append(data)

            nursery.start_soon(receive)
            for number in range(10):
                await peer.send_all(b"%d" % number)
                while len(received) <= number:
                    await trio.lowlevel.checkpoint()
            await peer.send_eof()
        assert received == [b"%d" % number for number in range(10)]

    backend.run(main)


@every_backend
def test_what_was_read_ahead_comes_first(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await pair_with_data(b"before")
        async with stream:
            await peer.aclose()
            assert [data async for data in stream] == [b"before"]
            assert [data async for data in stream] == []

    backend.run(main)


@every_backend
def test_a_reset_is_a_broken_stream(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with stream, trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(trio.BrokenResourceError) as raised:
                    await anext(aiter(stream))
                assert isinstance(raised.value.__cause__, ConnectionResetError)

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            reset(peer)

    backend.run(main)


@every_backend
def test_each_step_is_a_checkpoint_and_its_cancellation_loses_nothing(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with peer, stream:
            iterator = aiter(stream)
            with trio.CancelScope() as scope, assert_checkpoints():
                scope.cancel()
                await anext(iterator)
            assert scope.cancelled_caught
            with trio.move_on_after(0.01) as scope:
                await anext(iterator)
            assert scope.cancelled_caught
            await peer.send_all(b"kept")
            with assert_checkpoints():
                assert await anext(iterator) == b"kept"

    backend.run(main)


@every_backend
def test_a_second_task_is_busy_and_a_close_ends_the_first(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with peer, trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await anext(aiter(stream))

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await anext(aiter(stream))
            await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await anext(aiter(stream))

    backend.run(main)
