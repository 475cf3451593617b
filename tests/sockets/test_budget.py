"""Checkpoints: Trio's rule, what a `RingOptions.checkpoint_budget` makes of it; and the statistics."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
from equivalence import PATIENCE, Backend, every_backend, io_statistics, needs_completions
from listeners import connect, listen
from pairs import armed_pair, pair_with_data, pair_with_unread_data, peer_socket
from steps import Steps
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

import trio_uring
from trio_uring import RingOptions

pytestmark = needs_completions

RECEIVES: dict[str, Any] = {
    "receive_some": lambda stream: stream.receive_some(1),
    "receive_some of any size": lambda stream: stream.receive_some(),
    "recv": lambda stream: stream.socket.recv(1),
    "recv_into": lambda stream: stream.socket.recv_into(bytearray(1)),
    "recv with a flag": lambda stream: stream.socket.recv(1, socket.MSG_PEEK),
    "recvfrom": lambda stream: stream.socket.recvfrom(1),
    "recvfrom_into": lambda stream: stream.socket.recvfrom_into(bytearray(1)),
    "recvmsg": lambda stream: stream.socket.recvmsg(1),
    "recvmsg_into": lambda stream: stream.socket.recvmsg_into([bytearray(1)]),
}
SENDS: dict[str, Any] = {
    "send_all": lambda stream: stream.send_all(b"x"),
    "send_all of nothing": lambda stream: stream.send_all(b""),
    "send": lambda stream: stream.socket.send(b"x"),
    "wait_send_all_might_not_block": lambda stream: stream.wait_send_all_might_not_block(),
}
CALLS = {**RECEIVES, **SENDS}
PAIRS: dict[str, Any] = {"in the kernel": pair_with_unread_data, "read ahead": pair_with_data}
CLOSES: dict[str, Any] = {
    "aclose": lambda stream: stream.aclose(),
    "aclose_forcefully": lambda stream: trio.aclose_forcefully(resource=stream),
}


def budget(calls: int) -> Backend:
    return Backend(f"budget of {calls}", RingOptions(checkpoint_budget=calls))


@every_backend
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_each_call_is_a_checkpoint(backend: Backend, call: Any, pair: Any) -> None:
    async def main() -> None:
        peer, stream = await pair(b"1234")
        async with peer, stream:
            with assert_checkpoints():
                await call(stream)

    backend.run(main)


@every_backend
def test_the_end_is_a_checkpoint_every_time(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        await peer.aclose()
        async with stream:
            for _ in range(3):
                with assert_checkpoints():
                    assert await stream.receive_some() == b""

    backend.run(main)


@every_backend
def test_accept_is_a_checkpoint(backend: Backend) -> None:
    async def main() -> None:
        async with await listen() as listener:
            with connect(listener), assert_checkpoints():
                stream = await listener.accept()
            await stream.aclose()

    backend.run(main)


@pytest.mark.parametrize("backend", [Backend("io_uring", RingOptions()), budget(16)], ids=lambda b: b.name)
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_cancelled_call_does_nothing(backend: Backend, call: Any, pair: Any) -> None:
    async def main() -> None:
        peer, stream = await pair(b"1234")
        async with peer, stream:
            with trio.CancelScope() as scope:
                scope.cancel()
                await call(stream)
            assert scope.cancelled_caught
            with trio.fail_after(PATIENCE):
                assert await stream.receive_some() == b"1234"
            await stream.send_all(b"end")
            assert await peer.receive_some() == b"end"

    backend.run(main)


@pytest.mark.usefixtures("still_clock")
@pytest.mark.parametrize("calls", [0, 1, 3, 16])
@pytest.mark.parametrize("name", ["send_all", "send", "receive_some", "recv", *CLOSES])
def test_a_task_makes_so_many_calls_at_once_and_no_more(name: str, calls: int) -> None:
    """And one more: that which has yielded is finished by the step that it yields to."""

    async def main() -> list[int]:
        peer, stream = await pair_with_data(bytes(100))
        async with peer, stream:
            steps = Steps()
            trio.lowlevel.add_instrument(steps)
            for _ in range(3 * (calls + 1)):
                await {**CALLS, **CLOSES}[name](stream)
                steps.calls[-1] += 1
            trio.lowlevel.remove_instrument(steps)
            return steps.calls

    assert budget(calls).run(main) == [calls, calls + 1, calls + 1, 1]


def test_a_budget_does_not_outlive_a_cancellation() -> None:
    async def main() -> int:
        peer, stream = await armed_pair()
        async with peer, stream:
            sent = 0
            with trio.CancelScope() as scope:
                for _ in range(10):
                    await stream.send_all(b"x")
                    sent += 1
                    if sent == 5:
                        scope.cancel()
            return sent

    assert budget(16).run(main) == 5


def test_the_statistics_count_what_was_read_ahead_and_who_waits() -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with peer, stream:
            before = io_statistics()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.receive_some)
                nursery.start_soon(stream.send_all, bytes(20_000_000))
                await wait_all_tasks_blocked()
                assert io_statistics().tasks_waiting_read == before.tasks_waiting_read + 1
                assert io_statistics().tasks_waiting_write == before.tasks_waiting_write + 1
                nursery.cancel_scope.cancel()
            assert io_statistics().tasks_waiting_read == before.tasks_waiting_read
            assert io_statistics().tasks_waiting_write == before.tasks_waiting_write
            assert io_statistics().bytes_read_ahead == before.bytes_read_ahead
            peer_socket(peer).send(b"12345")
            while io_statistics().bytes_read_ahead == before.bytes_read_ahead:
                await trio.lowlevel.checkpoint()
            assert io_statistics().bytes_read_ahead == before.bytes_read_ahead + 5
            assert io_statistics().multishot_terminations == before.multishot_terminations
            stream.socket.fileno()
            assert io_statistics().multishot_terminations == before.multishot_terminations + 1

    trio_uring.run(main)


def test_connections_that_share_two_buffers_all_get_their_data() -> None:
    async def main() -> None:
        pairs = [await armed_pair() for _ in range(20)]
        received = [b""] * len(pairs)

        async def receive(number: int) -> None:
            async for data in pairs[number][1]:
                received[number] += data

        async with trio.open_nursery() as nursery:
            for number in range(len(pairs)):
                nursery.start_soon(receive, number)
            await wait_all_tasks_blocked()
            for peer, _ in pairs:
                peer_socket(peer).send(b"x" * 100)
            for peer, _ in pairs:
                await peer.aclose()
        assert received == [b"x" * 100] * len(pairs)
        assert io_statistics().buffer_shortages > 0
        assert io_statistics().multishot_terminations >= io_statistics().buffer_shortages
        for _, stream in pairs:
            await stream.aclose()

    trio_uring.run(main, ring=RingOptions(buffers=2))
