"""The same random calls on connected sockets, on Trio's epoll manager and on io_uring.

A program is a list of steps, made by Hypothesis: receives of every kind, sends, ends, resets,
closes, cancellations, calls by a second task. Each backend runs it on a pair of sockets of
its own, and everything that it shows (socket_calls.py says what) has to be what epoll shows.

TRIO_URING_ORACLE_EXAMPLES: that many programs, chosen at random, instead of the same few.
"""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import EPOLL, Backend
from hypothesis import given
from hypothesis import strategies as st
from random_programs import programs_of
from socket_calls import (
    HUGE,
    LITTLE,
    RECEIVES,
    WHAT_COMES,
    End,
    Observation,
    Pair,
    described,
    disturbed,
    reset,
)
from trio.testing import wait_all_tasks_blocked

from trio_uring import RingOptions
from trio_uring.sockets import sending, streams

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SMALL: dict[str, int] = {"buffers": 2, "buffer_size": 1024, "read_ahead": 2048}
RINGS = [
    Backend("defaults", RingOptions()),
    Backend("budget", RingOptions(checkpoint_budget=16)),
    Backend("small buffers", RingOptions(**SMALL)),  # type: ignore[arg-type]
    Backend("small buffers, budget", RingOptions(checkpoint_budget=16, **SMALL)),  # type: ignore[arg-type]
]
Step = tuple[Any, ...]

sizes = st.sampled_from([1, 2, 7, 100, 1000, 1024, 1025, 3000])
chunks = st.sampled_from([1, 5, 100, 1023, 1024, 1025, 5000, 65_536, 100_000])
moments = st.lists(st.integers(0, 4), max_size=3)
ends = st.integers(0, 1)
how_much = st.sampled_from(["some", "some", "all", "all", "more"])
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("receive"), ends, st.sampled_from([*RECEIVES]), chunks, how_much, sizes, moments),
    st.tuples(
        st.just("receive"), ends, st.sampled_from(["receive_some", "recv"]), chunks, how_much, sizes, moments
    ),
    st.tuples(st.just("peek"), ends, chunks),
    st.tuples(st.just("send_all"), ends, sizes, st.sampled_from([bytes, bytearray, memoryview])),
    st.tuples(st.just("send_all"), ends, sizes, st.sampled_from([bytes, bytearray, memoryview])),
    st.tuples(st.just("send"), ends, sizes, moments),
    st.tuples(st.just("send_all"), ends, st.just(HUGE), st.sampled_from([bytes, bytearray, memoryview])),
    st.tuples(st.just("send"), ends, st.just(HUGE), moments),
    st.tuples(st.just("cancel"), ends),
    st.tuples(
        st.sampled_from(
            ["is_readable", "wait_readable", "wait_writable", "wait_send_all_might_not_block", "fileno"]
        ),
        ends,
    ),
    st.tuples(st.sampled_from(["send_eof", "aclose", "reset", "close", "leave"]), ends),
    st.tuples(st.just("shutdown"), ends, st.sampled_from([socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR])),
)
programs = st.lists(steps, min_size=1, max_size=25)


@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize("sends", ["tried", "with the tick"])
def test_sockets_show_what_they_show_on_epoll(
    family: str, sends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sends == "with the tick":  # as where many tasks are woken at once
        for module in (sending, streams):
            monkeypatch.setattr(module, "FEW_EVENTS", -1)

    @programs_of(60)
    @given(programs)
    def check(program: list[Step]) -> None:
        seen = run(EPOLL, family, program)
        for backend in RINGS:
            compare(program, seen, run(backend, family, program), backend)

    check()


def run(backend: Backend, family: str, program: list[Step]) -> list[Observation]:
    shown: list[Observation] = backend.run(partial(observe, family, program))
    return shown


def compare(program: list[Step], on_epoll: list[Observation], seen: list[Observation], on: Backend) -> None:
    for index, (expected, found) in enumerate(zip(on_epoll, seen, strict=True)):
        if expected != found:
            lines = [f"{step}: {show}" for step, show in zip(program, on_epoll[: index + 1], strict=False)]
            report = "\n".join([f"{on.name}:", *lines, f"expected {expected}", f"but got  {found}"])
            raise AssertionError(report)


async def observe(family: str, program: list[Step]) -> list[Observation]:
    """What each step shows, and what became of the calls that ended meanwhile; at last all that
    is still to be received."""
    seen: list[Observation] = []
    async with trio.open_nursery() as nursery:
        state = Pair(family, nursery)
        for step in [*program, *CONCLUSION]:
            shown = await Machine(state).do(*step)
            seen.append((shown, *(ended(end) for end in state.ends)))
        state.close_all()
    return seen


CONCLUSION: list[Step] = [
    *(("cancel", end) for end in (0, 1)),
    *(("receive", end, "receive_some", 100_000, "all", 1, []) for end in (0, 1)),
    *(("cancel", end) for end in (0, 1)),
    *(("aclose", end) for end in (0, 1)),
]


def ended(end: End) -> Observation:
    calls, end.calls = end.calls, end.waiting()
    return tuple((call.name, call.observation) for call in calls if call.ended)


class Machine:
    """The steps. One that the state does not allow shows nothing, and does nothing."""

    def __init__(self, state: Pair) -> None:
        self.state = state

    async def do(self, name: str, end: int, *arguments: Any) -> Observation:
        step: Callable[..., Awaitable[Observation]] = getattr(self, name)
        return await step(self.state.ends[end], *arguments)

    async def receive(
        self, end: End, method: str, size: int, how_much: str, count: int, after: list[int]
    ) -> Observation:
        state, peer = self.state, self.state.peer(end)
        ahead = peer.sent - end.received
        if peer.huge and how_much == "some" and ahead < HUGE - LITTLE:
            return ()
        if how_much == "some":
            count = min(count, ahead)
        elif how_much == "all":
            count = ahead
        else:
            count += ahead
        if any(call.name == "receive" for call in end.waiting()):
            count, after = max(count, 1), []
        if method == WHAT_COMES and (how_much != "all" or end.waiting()):
            method = "receive_some"
        if size < 1000 and count > 10_000:
            size = 50_000
        target = end.received + count
        return await state.call(
            end, "receive", lambda: state.receive_disturbed(end, method, size, target, after)
        )

    async def peek(self, end: End, size: int) -> Observation:
        return await self.state.call(end, "peek", lambda: self.state.peek(end, size))

    async def send_all(self, end: End, size: int, form: Callable[[bytes], Any]) -> Observation:
        if not self.may_send(end, size):
            return ()
        return await self.state.call(end, "send", lambda: self.state.send_all(end, size, form))

    async def send(self, end: End, size: int, after: list[int]) -> Observation:
        if not self.may_send(end, size):
            return ()
        return await self.state.call(end, "send", lambda: self.state.send(end, size, after))

    def may_send(self, end: End, size: int) -> bool:
        """Little enough to find room, or so much that it does not."""
        ahead = end.sent - self.state.peer(end).received
        sending = end.is_sending()
        if not sending and not ahead:
            end.huge = False
        if (
            end.torn
            or self.state.peer(end).deaf
            or (end.huge and not sending)
            or (ahead > LITTLE and not sending)
        ):
            return False
        end.huge = end.huge or size == HUGE
        return True

    async def cancel(self, end: End) -> Observation:
        calls = end.waiting()
        for call in calls:
            call.scope.cancel()
        await self.state.settle()
        return tuple(sorted(call.name for call in calls))

    async def is_readable(self, end: End) -> Observation:
        return (end.socket.is_readable(),) if end.socket.fileno() >= 0 else ()

    async def wait_readable(self, end: End) -> Observation:
        if end.socket.fileno() < 0:
            return ()
        return await self.state.call(end, "wait", partial(self.wait, trio.lowlevel.wait_readable, end))

    async def wait_writable(self, end: End) -> Observation:
        if end.torn or end.socket.fileno() < 0 or (end.huge and not end.waiting()):
            return ()
        return await self.state.call(end, "wait", partial(self.wait, trio.lowlevel.wait_writable, end))

    async def wait_send_all_might_not_block(self, end: End) -> Observation:
        if end.torn or end.socket.fileno() < 0 or (end.huge and not end.waiting()):
            return ()
        call = end.stream.wait_send_all_might_not_block
        return await self.state.call(end, "wait", lambda: nothing_of(call()))

    async def wait(self, function: Callable[[Any], Awaitable[None]], end: End) -> Observation:
        return await nothing_of(function(end.socket))

    async def fileno(self, end: End) -> Observation:
        return (end.socket.fileno() >= 0,)

    async def send_eof(self, end: End) -> Observation:
        return await self.state.call(end, "send_eof", lambda: nothing_of(end.stream.send_eof()))

    async def shutdown(self, end: End, how: int) -> Observation:
        if self.state.is_sending():
            return ()

        async def shut() -> Observation:
            end.socket.shutdown(how)
            end.deaf = end.deaf or how != socket.SHUT_WR
            return ()

        return await self.state.call(end, "shutdown", shut)

    async def aclose(self, end: End) -> Observation:
        return await self.state.call(end, "aclose", lambda: nothing_of(end.stream.aclose()))

    async def leave(self, end: End) -> Observation:
        if end.waiting():
            return ()

        async def enter_and_leave() -> Observation:
            with end.socket:
                return ()

        return await self.state.call(end, "leave", enter_and_leave)

    async def reset(self, end: End) -> Observation:
        reset(end)
        return await self.aclose(end)

    async def close(self, end: End) -> Observation:
        end.socket.close()
        await self.state.settle()
        return ()


async def nothing_of(call: Awaitable[object]) -> Observation:
    await call
    return ()


accepting: st.SearchStrategy[str] = st.sampled_from(
    [
        *("accept", "accept raw", "connect", "connect by trio", "connect by trio", "accept disturbed"),
        *("cancel", "wait_readable", "is_readable", "close"),
    ]
)
ACCEPTING = [*RINGS[:2], Backend("accept ahead", RingOptions(accept_ahead=2))]


@pytest.mark.parametrize("backend", ACCEPTING, ids=lambda backend: backend.name)
def test_listeners_show_what_they_show_on_epoll(backend: Backend) -> None:
    @programs_of(30)
    @given(st.lists(accepting, min_size=1, max_size=15), st.lists(st.integers(0, 3), min_size=1))
    def check(program: list[str], moments: list[int]) -> None:
        expected = EPOLL.run(partial(observe_listener, program, moments))
        assert backend.run(partial(observe_listener, program, moments)) == expected

    check()


async def observe_listener(program: list[str], moments: list[int]) -> list[Observation]:
    """What accepts show, each of which accepts the client whose turn it is."""
    async with trio.open_nursery() as nursery:
        state = Listening(nursery, moments)
        shown = [await state.step(step) for step in [*program, "cancel", "close"]]
    await state.talk()
    return shown


class Listening:
    """The steps; all but `cancel` do nothing to a listener that is closed, or show an error."""

    def __init__(self, nursery: trio.Nursery, moments: list[int]) -> None:
        self.nursery = nursery
        self.moments = moments
        sock = socket.create_server(("127.0.0.1", 0))
        self.address = sock.getsockname()
        self.listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        self.closed = False
        self.clients: list[socket.socket] = []
        self.accepted: list[trio.SocketStream] = []
        self.scopes: list[trio.CancelScope] = []
        self.ended: list[Observation] = []

    async def step(self, step: str) -> Observation:
        """What the step shows, and which calls have ended meanwhile."""
        ended = self.ended = []
        await getattr(self, step.replace(" ", "_"))()
        await wait_all_tasks_blocked()
        await wait_all_tasks_blocked(0.0005)
        return step, len(self.accepted), *sorted(ended, key=repr)

    async def accept(self) -> None:
        self.call("accept", self.accept_one)

    async def accept_raw(self) -> None:
        self.call("accept raw", self.accept_one_raw)

    async def accept_disturbed(self) -> None:
        self.call("accept disturbed", self.accept_one_disturbed)

    async def connect(self) -> None:
        if not self.closed:
            self.clients.append(socket.create_connection(self.address))

    async def connect_by_trio(self) -> None:
        self.call("connect", self.connect_one)

    async def cancel(self) -> None:
        for scope in self.scopes:
            scope.cancel()

    async def wait_readable(self) -> None:
        if not self.closed:
            self.call("wait", partial(trio.lowlevel.wait_readable, self.listener.socket))

    async def is_readable(self) -> None:
        if not self.closed:
            self.ended.append(("is_readable", self.listener.socket.is_readable()))

    async def close(self) -> None:
        self.closed = True
        await self.listener.aclose()

    # The calls

    def call(self, name: str, function: Callable[[], Awaitable[object]]) -> None:
        self.scopes.append(trio.CancelScope())
        self.nursery.start_soon(self.note, name, function, self.scopes[-1])

    async def note(self, name: str, call: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
        with scope:
            try:
                await call()
            except Exception as error:
                said = str(error).replace(str(self.address[1]), "its port")
                self.ended.append((name, *described(error)[:2], said))
                return
        self.ended.append((name, "cancelled" if scope.cancelled_caught else "done"))

    async def accept_one(self) -> None:
        self.take(await self.listener.accept())

    async def accept_one_raw(self) -> None:
        sock, address = await self.listener.socket.accept()
        assert sock.getpeername() == address
        self.take(trio.SocketStream(sock))

    async def accept_one_disturbed(self) -> None:
        """One accept, however often it has to be called."""
        before = len(self.accepted)
        for steps in self.moments:
            await disturbed(self.accept_one, steps)
            if len(self.accepted) > before:
                return
        await self.accept_one()

    def take(self, stream: trio.SocketStream) -> None:
        assert stream.socket.getpeername() == self.clients[len(self.accepted)].getsockname()
        self.accepted.append(stream)

    async def connect_one(self) -> None:
        sock = trio.socket.socket()
        self.clients.append(sock._sock)  # type: ignore[attr-defined]
        try:
            await sock.connect(self.address)
        except OSError:
            self.clients.pop().close()
            raise

    async def talk(self) -> None:
        for client, stream in zip(self.clients, self.accepted, strict=False):
            client.send(b"hello")
            assert await stream.receive_some() == b"hello"
            await stream.aclose()
        for client in self.clients:
            client.close()
