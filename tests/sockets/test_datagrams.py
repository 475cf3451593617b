"""Datagram sockets show on io_uring what they show on epoll.

A program is a list of steps, made by Hypothesis, on two sockets that know each other. Every
call runs in a task of its own, and after each step the run settles: loopback delivers within
the call that sends, so what has ended by then is known.

TRIO_URING_ORACLE_EXAMPLES: that many programs, chosen at random, instead of the same few.
"""

from __future__ import annotations

import array
import os
import random
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from datagram_pairs import FAMILIES, open_pair, trio_pair
from equivalence import (
    EPOLL,
    URING,
    Backend,
    descriptors_so_far,
    entered,
    every_backend,
    needs_completions,
    open_descriptors,
)
from hypothesis import given
from hypothesis import strategies as st
from random_programs import programs_of
from socket_calls import Call, Observation, described, disturbed
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_uring import Datagrams, RingOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

RINGS = [URING, Backend("budget", RingOptions(checkpoint_budget=16))]
LARGEST = 65_507
"""Bytes of a datagram by UDP over IPv4, at most."""


def _told(data: bytes, size: int) -> Observation:
    """With MSG_TRUNC, bytes are as many as the datagram has: what Python has not asked for is whatever was
    in its memory."""
    return data[:size], len(data)


async def _recv(sock: Any, size: int, flags: int) -> Observation:
    return _told(await sock.recv(size, flags), size)


async def _recv_into(sock: Any, size: int, flags: int) -> Observation:
    buffer = bytearray(size)
    return await sock.recv_into(buffer, flags=flags), bytes(buffer)


async def _recvfrom(sock: Any, size: int, flags: int) -> Observation:
    data, address = await sock.recvfrom(size, flags)
    return *_told(data, size), address


async def _recvfrom_into(sock: Any, size: int, flags: int) -> Observation:
    buffer = bytearray(size + 3)
    return await sock.recvfrom_into(buffer, size, flags), bytes(buffer)


async def _recvmsg(sock: Any, size: int, flags: int) -> Observation:
    data, *rest = await sock.recvmsg(size, 64, flags)
    return *_told(data, size), *rest


async def _recvmsg_into(sock: Any, size: int, flags: int) -> Observation:
    buffers = [bytearray(size // 2), bytearray(size - size // 2)]
    return tuple(await sock.recvmsg_into(buffers, 0, flags)), *map(bytes, buffers)


RECEIVES: dict[str, Callable[[Any, int, int], Awaitable[Observation]]] = {
    "recv": _recv,
    "recv_into": _recv_into,
    "recvfrom": _recvfrom,
    "recvfrom_into": _recvfrom_into,
    "recvmsg": _recvmsg,
    "recvmsg_into": _recvmsg_into,
}
SENDS: dict[str, Callable[[Any, bytes, Any], Awaitable[int]]] = {
    "send": lambda sock, data, _: sock.send(data),
    "sendto": lambda sock, data, to: sock.sendto(data, to) if to else sock.send(data),
    "sendto with flags": lambda sock, data, to: sock.sendto(data, 0, to) if to else sock.send(data, 0),
    "sendmsg": lambda sock, data, to: sock.sendmsg([data[:3], data[3:]], [], 0, to),
}


async def _batch(sock: Any, size: int, _: int) -> Observation:
    found = await Datagrams(sock, size=min(size, LARGEST), count=2).receive()
    return tuple((each.data, each.address, each.flags) for each in found)


async def _send_batch(sock: Any, data: bytes, to: Any) -> int:
    datagrams = Datagrams(sock)
    await datagrams.send([(data, to), (data[:5], to)])
    return datagrams.sent


ALL_RECEIVES = {**RECEIVES, "a batch": _batch}
ALL_SENDS = {**SENDS, "a batch": _send_batch}
peers = st.integers(0, 1)
lengths = st.sampled_from([0, 1, 9, 1000, 60_000])
Step = tuple[Any, ...]
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(
        st.just("receive"),
        peers,
        st.sampled_from([*ALL_RECEIVES]),
        st.sampled_from([0, 1, 5, 2000, 65_536]),
        st.sampled_from([0, 0, 0, socket.MSG_PEEK, socket.MSG_TRUNC, socket.MSG_OOB]),
        st.lists(st.integers(0, 3), max_size=3),
    ),
    st.tuples(st.just("send"), peers, st.sampled_from([*ALL_SENDS]), lengths),
    st.tuples(st.just("send"), peers, st.sampled_from([*ALL_SENDS]), lengths),
    st.tuples(st.just("send many"), peers, st.sampled_from([*ALL_SENDS])),
    st.tuples(st.just("cancel"), peers),
    st.tuples(st.sampled_from(["is_readable", "wait_readable", "wait_writable"]), peers),
    st.tuples(st.just("connect"), peers),
    st.tuples(st.just("shutdown"), peers),  # of sending: the other is readable then, and has nothing
    st.tuples(st.sampled_from(["close", "close behind its back"]), peers),
)


@attrs.define(eq=False)
class Side:
    socket: Any
    name: Any
    calls: list[Call] = attrs.field(factory=list)

    def ended(self) -> Observation:
        ended = [call for call in self.calls if call.ended]
        self.calls = [call for call in self.calls if not call.ended]
        return tuple((call.name, call.observation) for call in ended)


class Machine:
    def __init__(self, family: str, nursery: trio.Nursery) -> None:
        first, second = trio_pair(family)
        self.addressed = family in ("udp", "udp 6")
        self.sides = Side(first, first.getsockname()), Side(second, second.getsockname())
        self.nursery = nursery
        self.sent = 0

    async def do(self, name: str, index: int, *arguments: Any) -> Observation:
        side, peer = self.sides[index], self.sides[1 - index]
        await getattr(self, name.replace(" ", "_"))(side, peer, *arguments)
        await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        return self.named(self.sides[0].ended()), self.named(self.sides[1].ended())

    def named(self, shown: Any) -> Any:
        """Ports are another pair's on each backend."""
        if shown in (self.sides[0].name, self.sides[1].name) and shown:
            return "first" if shown == self.sides[0].name else "second"
        return tuple(map(self.named, shown)) if isinstance(shown, tuple) else shown

    def start(self, side: Side, name: str, call: Callable[[], Awaitable[object]]) -> None:
        side.calls.append(Call(name))
        self.nursery.start_soon(self.note, side.calls[-1], call)

    async def note(self, call: Call, function: Callable[[], Awaitable[object]]) -> None:
        with call.scope:
            try:
                call.observation = ("returned", await function())
            except trio.Cancelled:
                call.observation = ("cancelled",)
                raise
            except Exception as error:
                call.observation = described(error)
            finally:
                call.ended = True

    async def receive(
        self, side: Side, _: Side, method: str, size: int, flags: int, after: list[int]
    ) -> None:
        """Cancelled again and again, until it is left alone."""

        async def receive() -> Observation:
            for count in after:
                found = await disturbed(lambda: ALL_RECEIVES[method](side.socket, size, flags), count)
                if found is not None:
                    return found
            return await ALL_RECEIVES[method](side.socket, size, flags)

        self.start(side, method, receive)

    async def send(self, side: Side, peer: Side, method: str, size: int) -> None:
        self.start(side, method, partial(self.send_one, side, peer, method, size))

    async def send_one(self, side: Side, peer: Side, method: str, size: int) -> int:
        self.sent += 1
        data = (b"%d;" % self.sent + bytes(size))[:size]
        return await ALL_SENDS[method](side.socket, data, peer.name if self.addressed else None)

    async def send_many(self, side: Side, peer: Side, method: str) -> None:
        async def send() -> None:
            for _ in range(20):
                await self.send_one(side, peer, method, 9000)
                if peer.socket.fileno() < 0:
                    # It is refused, and either the next send is told or who waits for the socket: with a
                    # budget there is no tick in between, and with one the order is Trio's choice.
                    for _ in range(5):
                        await trio.lowlevel.checkpoint()

        self.start(side, f"many by {method}", send)

    async def cancel(self, side: Side, _: Side) -> None:
        for call in side.calls:
            call.scope.cancel()

    async def is_readable(self, side: Side, _: Side) -> None:
        async def ask() -> bool:
            return side.socket.fileno() >= 0 and side.socket.is_readable()

        self.start(side, "is_readable", ask)

    async def wait_readable(self, side: Side, _: Side) -> None:
        if side.socket.fileno() >= 0:
            self.start(side, "wait_readable", partial(trio.lowlevel.wait_readable, side.socket))

    async def wait_writable(self, side: Side, _: Side) -> None:
        if side.socket.fileno() >= 0:
            self.start(side, "wait_writable", side.socket.wait_writable)

    async def connect(self, side: Side, peer: Side) -> None:
        if self.addressed:
            self.start(side, "connect", partial(side.socket.connect, peer.name))

    async def shutdown(self, side: Side, _: Side) -> None:
        async def shut() -> None:
            side.socket.shutdown(socket.SHUT_WR)

        self.start(side, "shutdown", shut)

    async def close(self, side: Side, _: Side) -> None:
        side.socket.close()

    async def close_behind_its_back(self, side: Side, _: Side) -> None:
        """Which nobody may do while somebody waits."""
        if not side.calls:
            side.socket._sock.close()


async def observe(family: str, program: list[Step]) -> list[Observation]:
    seen: list[Observation] = []
    async with trio.open_nursery() as nursery:
        machine = Machine(family, nursery)
        for step in [*program, ("cancel", 0), ("cancel", 1), ("close", 0), ("close", 1)]:
            seen.append((step, await machine.do(*step)))
    return seen


@pytest.mark.parametrize("family", FAMILIES)
def test_datagram_sockets_show_what_they_show_on_epoll(family: str) -> None:
    @programs_of(100)
    @given(st.lists(steps, min_size=1, max_size=20))
    def check(program: list[Step]) -> None:
        expected = EPOLL.run(partial(observe, family, program))
        for backend in RINGS:
            assert backend.run(partial(observe, family, program)) == expected, backend.name

    check()


@every_backend
@pytest.mark.parametrize("method", RECEIVES)
def test_the_largest_datagram_is_received_whole(backend: Backend, method: str) -> None:
    data = random.Random(6).randbytes(LARGEST)

    async def main() -> None:
        sender, receiver = open_pair("udp")
        with trio.socket.from_stdlib_socket(receiver) as sock:
            for waits in (False, True):
                async with trio.open_nursery() as nursery:
                    if waits:
                        nursery.start_soon(receive, sock)
                        await wait_all_tasks_blocked()
                    sender.sendto(data, receiver.getsockname())
                    if not waits:
                        await receive(sock)
        sender.close()

    async def receive(sock: Any) -> None:
        assert data in b"".join(flat(await RECEIVES[method](sock, LARGEST, 0)))

    backend.run(main)


def flat(shown: object) -> list[bytes]:
    if isinstance(shown, tuple):
        return [part for each in shown for part in flat(each)]
    return [shown] if isinstance(shown, bytes) else []


@every_backend
@pytest.mark.parametrize("method", RECEIVES)
def test_no_datagram_is_lost_to_cancelled_receives(backend: Backend, method: str) -> None:
    """A Unix socket's peer waits for room, so all of them have to come, and in order."""
    count = 200
    chance = random.Random(7)

    async def main() -> None:
        sender, receiver = trio_pair("unix")
        received: list[int] = []

        async def send() -> None:
            for number in range(count):
                await sender.send(b"%04d" % number)
                for _ in range(chance.randrange(3)):
                    await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while len(received) < count:
                found = await disturbed(lambda: RECEIVES[method](receiver, 4, 0), chance.randrange(4))
                if found is not None:
                    received.append(int(b"".join(flat(found)).rstrip(b"\0")))
        assert received == list(range(count))
        sender.close()
        receiver.close()

    backend.run(main)


@every_backend
def test_every_call_is_a_checkpoint(backend: Backend) -> None:
    async def main() -> None:
        first, second = trio_pair("udp connected")
        for method in RECEIVES.values():
            with assert_checkpoints():
                await first.send(b"x")
            with assert_checkpoints():
                await method(second, 5, 0)
        for call in (
            lambda: first.sendto(b"x", second.getsockname()),
            lambda: first.sendto(b"x", ("localhost", 9)),
            lambda: first.sendmsg([b"x"]),
            lambda: first.sendmsg([b"x"], [], 0, second.getsockname()),
        ):
            with assert_checkpoints():
                await call()
        for failing in (lambda: first.send(bytes(70_000)), lambda: first.sendmsg([bytes(70_000)])):
            with assert_checkpoints(), pytest.raises(OSError, match="too long"):
                await failing()
        second.close()
        for method in RECEIVES.values():
            with assert_checkpoints(), pytest.raises(OSError, match="Bad file descriptor"):
                await method(second, 5, 0)
        first.close()

    backend.run(main)


@every_backend
def test_a_cancelled_call_neither_sends_nor_receives(backend: Backend) -> None:
    async def main() -> None:
        first, second = trio_pair("udp connected")
        await first.send(b"to be received")
        with trio.CancelScope() as scope:
            scope.cancel()
            for call in (lambda: second.send(b"x"), lambda: second.recv(5), lambda: second.recvmsg(5)):
                with pytest.raises(trio.Cancelled):
                    await call()
        assert await second.recv(100) == b"to be received"
        assert not first.is_readable()
        first.close()
        second.close()

    backend.run(main)


class Steps(trio.abc.Instrument):
    """How often the task that makes it has gone on."""

    def __init__(self) -> None:
        self.task = trio.lowlevel.current_task()
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self.task


@needs_completions
@pytest.mark.usefixtures("still_clock")
def test_with_a_budget_calls_that_need_not_wait_do_not_yield() -> None:
    budget = 5

    async def main() -> None:
        first, second = trio_pair("udp connected")
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        for call in (lambda: first.send(b"x"), lambda: second.recvfrom(5), lambda: first.sendmsg([b"x"])):
            await trio.lowlevel.checkpoint()
            before = steps.count
            for _ in range(budget):
                await call()
            assert steps.count == before
            await call()
            assert steps.count == before + 1
        first.close()
        second.close()

    Backend("budget", RingOptions(checkpoint_budget=budget)).run(main)


def test_datagrams_that_are_there_need_nothing_of_the_ring() -> None:
    async def main() -> None:
        first, second = trio_pair("udp")
        name = second.getsockname()
        await first.sendto(b"the first", name)
        await second.recvfrom(100)
        before = entered()
        for number in range(20):
            await first.sendto(b"%d" % number, name)
        for number in range(20):
            assert await second.recvfrom(100) == (b"%d" % number, first.getsockname())
        assert entered() == before
        first.close()
        second.close()

    URING.run(main)


ADDRESSES: dict[str, list[Any]] = {
    "udp": [
        ("127.0.0.1", 9),
        ("localhost", 9),
        ("", 9),
        (None, 9),
        ("127.0.0.1", "9"),
        ("127.0.0.1", "discard"),
        ("127.0.0.1", True),
        ("127.0.0.1", None),
        ("127.0.0.1", 70_000),
        ("127.0.0.1", -1),
        ("127.0.0.1",),
        ("127.0.0.1", 9, 0),
        ("::1", 9),
        ("127.1", 9),
        ("\0", 9),
        (b"127.0.0.1", 9),
        ("<broadcast>", 9),
        ["127.0.0.1", 9],
        (),
        "127.0.0.1",
        b"x",
        None,
        9,
    ],
    "udp 6": [
        ("::1", 9),
        ("::1", 9, 0),
        ("::1", 9, 0, 0),
        ("::1", 9, 0, 0, 0),
        ("::1", 9, "x"),
        ("127.0.0.1", 9),
        ("::1",),
        ("::1%1", 9),
        None,
    ],
    "unix": ["/nobody/is/here", b"/nobody/is/here", "\0nobody", ("127.0.0.1", 9), "", "x" * 200, 9],
}


@pytest.mark.parametrize("family", ADDRESSES)
def test_addresses_are_taken_and_refused_as_on_epoll(family: str) -> None:
    async def main() -> list[Observation]:
        first, second = trio_pair(family)
        if family == "unix":
            first = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        seen: list[Observation] = []
        for address in ADDRESSES[family]:
            for call in (
                partial(first.sendto, b"x", address),
                partial(first.sendto, b"x", socket.MSG_DONTWAIT, address),
                partial(first.sendto, "x", address),
                partial(first.sendmsg, [b"x"], [], 0, address),
                partial(first.sendmsg, b"x", [], 0, address),
            ):
                seen.append((str(address), await shown_by(call)))
        for call in (
            first.sendto,
            partial(first.sendto, b"x"),
            partial(first.sendto, 1, 2, 3, 4),
            first.sendmsg,
        ):
            seen.append(await shown_by(call))
        first.close()
        seen.append(await shown_by(partial(first.sendto, b"x", ADDRESSES[family][0])))
        seen.append(await shown_by(partial(first.recvfrom, 5)))
        second.close()
        return seen

    expected = EPOLL.run(main)
    for backend in RINGS:
        assert backend.run(main) == expected


async def shown_by(call: Callable[..., Awaitable[object]]) -> Observation:
    try:
        return ("returned", await call())
    except Exception as error:
        return described(error)


@every_backend
def test_descriptors_travel_with_datagrams(backend: Backend) -> None:
    async def main() -> None:
        before = descriptors_so_far()
        first, second = trio_pair("unix")
        read_end, write_end = os.pipe()
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [read_end]))
        received: list[int] = []

        async def receive() -> None:
            data, ancillary, flags, _ = await second.recvmsg(100, socket.CMSG_SPACE(4))
            assert (data, flags & ~socket.MSG_CMSG_CLOEXEC) == (b"take it", 0)
            received.extend(array.array("i", ancillary[0][2]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            await first.sendmsg([b"take ", b"it"], [rights])
        await first.sendmsg([b"take it"], [rights])
        await receive()
        os.write(write_end, b"12")
        assert [os.read(each, 1) for each in received] == [b"1", b"2"]
        for each in (*received, read_end, write_end):
            os.close(each)
        first.close()
        second.close()
        assert open_descriptors() == before

    backend.run(main)
