"""The states of a socket of a run (sockets/states.py): each transition of the table happens, and no other."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import io_statistics, needs_completions
from pairs import arm, armed_pair, peer_socket, tcp_pair
from trio.testing import wait_all_tasks_blocked

import trio_uring
from trio_uring import RingOptions
from trio_uring.sockets.run_socket import RunSocket
from trio_uring.sockets.states import CLOSED, TRANSITIONS, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = [pytest.mark.usefixtures("no_hanging"), needs_completions]

MANY = 50
"""More connections than there are buffers."""
RING = RingOptions(buffers=2, buffer_size=1024, read_ahead=2048)


class Watch:
    """Stands in for `RunSocket.state`, and notes each transition."""

    def __init__(self, slot: Any) -> None:
        self._slot = slot
        self.seen: set[tuple[State, State]] = set()

    def __get__(self, one: RunSocket, _owner: object) -> State:
        state: State = self._slot.__get__(one)
        return state

    def __set__(self, one: RunSocket, state: State) -> None:
        try:
            before = self._slot.__get__(one)
        except AttributeError:  # it is made
            before = state
        if before is not state and not (one.run.closed and state is CLOSED):
            self.seen.add((before, state))
        self._slot.__set__(one, state)


async def receive(stream: trio.SocketStream) -> None:
    with suppress(trio.ClosedResourceError):
        while await stream.receive_some():
            pass


async def is_received_and_ends() -> None:
    peer, stream = await armed_pair()
    await peer.aclose()
    assert await stream.receive_some() == b""
    await stream.aclose()


async def is_cancelled_once(*, closes: bool) -> None:
    peer, stream = await tcp_pair()
    async with peer, stream, trio.open_nursery() as nursery:
        nursery.start_soon(receive, stream)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        if closes:
            stream.socket.close()


async def is_closed_while_a_task_waits() -> None:
    for pair in (tcp_pair, armed_pair):
        peer, stream = await pair()
        async with peer, stream, trio.open_nursery() as nursery:
            nursery.start_soon(receive, stream)
            await wait_all_tasks_blocked()
            stream.socket.close()


async def is_asked_for_its_descriptor() -> None:
    peer, stream = await armed_pair()
    async with peer, stream:
        stream.socket.fileno()


async def is_closed_when_much_was_read_ahead() -> None:
    peer, stream = await armed_pair()
    async with peer, stream, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive_a_byte() -> None:
            await stream.receive_some(1)
            stream.socket.close()

        await wait_all_tasks_blocked()
        peer_socket(peer).send(bytes(2000))  # as much as may be read ahead, in as many buffers as there are


async def finds_no_buffer(*, armed: bool, end: str) -> None:
    pairs = [await tcp_pair() for _ in range(MANY)]
    if armed:
        for peer, stream in pairs:
            await arm(stream, peer_socket(peer))
    before = io_statistics().buffer_shortages
    async with trio.open_nursery() as nursery:
        for _, stream in pairs:
            nursery.start_soon(receive, stream)
        await wait_all_tasks_blocked()
        for peer, _ in pairs:
            peer_socket(peer).send(b"x")
        while io_statistics().buffer_shortages == before:
            await trio.lowlevel.checkpoint()
        if end == "received":
            await wait_all_tasks_blocked()
        if end == "closed":
            for _, stream in pairs:
                stream.socket.close()
        nursery.cancel_scope.cancel()
    for peer, stream in pairs:
        peer.socket.close()
        stream.socket.close()


SCENES: list[Callable[[], Awaitable[None]]] = [
    is_received_and_ends,
    lambda: is_cancelled_once(closes=False),
    lambda: is_cancelled_once(closes=True),
    is_closed_while_a_task_waits,
    is_asked_for_its_descriptor,
    is_closed_when_much_was_read_ahead,
    lambda: finds_no_buffer(armed=False, end="received"),
    lambda: finds_no_buffer(armed=True, end="received"),
    lambda: finds_no_buffer(armed=True, end="cancelled"),
    lambda: finds_no_buffer(armed=True, end="closed"),
]


def test_each_transition_of_the_table_happens_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(vars(RunSocket)["state"])
    monkeypatch.setattr(RunSocket, "state", watch)

    async def main() -> None:
        for scene in SCENES:
            await scene()

    trio_uring.run(main, ring=RING)
    assert watch.seen == set(TRANSITIONS)
