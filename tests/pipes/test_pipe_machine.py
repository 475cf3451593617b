"""The same random calls on two FdStreams, on Trio's epoll manager and on io_uring.

A program is a list of steps, made by Hypothesis: calls of the two streams in tasks of their own, others who
read and write the same descriptors, cancellations, ends. Each backend runs it on a pair of files of its own,
and after each step, once all tasks are blocked, everything has to be as on epoll: what the calls returned or
raised, and which of them still wait.

TRIO_URING_ORACLE_EXAMPLES: that many programs, chosen at random, instead of the same few.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import EPOLL, Backend
from hypothesis import example, given
from hypothesis import strategies as st
from random_programs import programs_of
from socket_calls import Observation, described, disturbed, expected
from trio.lowlevel import FdStream
from trio.testing import wait_all_tasks_blocked

from trio_uring import RingOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

RINGS = [
    Backend("defaults", RingOptions()),
    Backend("budget", RingOptions(checkpoint_budget=16)),
    Backend("tiny ring", RingOptions(entries=1, cq_entries=2)),
    Backend("without the feature", RingOptions(features={"pipes": False})),
]
Step = tuple[Any, ...]
HUGE = 200_000
"""More than a pipe or a socket has room for."""

ends = st.integers(0, 1)
most = st.sampled_from([None, None, 1, 2, 100, 4096, 65_536, 65_537, 100_000])
wrong = st.sampled_from([0, -1, True, 1.5, "1", 1 << 70, b""])
sizes = st.sampled_from([0, 1, 2, 100, 4096, 4097, 65_536, HUGE])
forms = st.sampled_from([bytes, bytearray, memoryview])
moments = st.lists(st.integers(0, 4), max_size=3)
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("receive"), ends, most),
    st.tuples(st.just("receive"), st.just(0), most),
    st.tuples(st.just("receive"), ends, wrong),
    st.tuples(st.just("receive_disturbed"), st.just(0), most, moments),
    st.tuples(st.just("send"), ends, sizes, forms),
    st.tuples(st.just("send"), st.just(1), sizes, forms),
    st.tuples(st.just("send_wrong"), ends, st.sampled_from([None, "text", 7, [1]])),
    st.tuples(st.just("read"), ends, st.sampled_from([1, 100, 65_536])),
    st.tuples(st.just("write"), ends, st.sampled_from([1, 100, 65_536, HUGE])),
    st.tuples(st.just("wait"), ends, st.sampled_from(["wait_readable", "wait_writable"])),
    st.tuples(st.just("wait_send_all_might_not_block"), ends),
    st.tuples(st.sampled_from(["cancel", "cancel", "aclose", "close", "fileno"]), ends),
)
programs = st.lists(steps, min_size=1, max_size=25)


@pytest.mark.parametrize("kind", ["pipe", "fifo", "sockets"])
def test_fd_streams_show_what_they_show_on_epoll(kind: str, tmp_path: Path) -> None:
    @programs_of(60)
    @given(programs)
    @example([("write", 1, 65_536), ("wait", 1, "wait_writable"), ("send", 1, 1, bytes)])
    def check(program: list[Step]) -> None:
        seen = run(EPOLL, kind, tmp_path, program)
        for backend in RINGS:
            compare(program, seen, run(backend, kind, tmp_path, program), backend)

    check()


def run(backend: Backend, kind: str, folder: Path, program: list[Step]) -> list[Observation]:
    return backend.run(partial(observe, KINDS[kind], folder, program))


def compare(program: list[Step], on_epoll: list[Observation], seen: list[Observation], on: Backend) -> None:
    for index, (awaited, found) in enumerate(zip(on_epoll, seen, strict=True)):
        if awaited != found:
            lines = [f"{step}: {show}" for step, show in zip(program, on_epoll[: index + 1], strict=False)]
            raise AssertionError(
                "\n".join([f"{on.name}:", *lines, f"expected {awaited}", f"but got  {found}"])
            )


def pipe(_: Path) -> tuple[int, int]:
    return os.pipe()


def fifo(folder: Path) -> tuple[int, int]:
    """Its reader is there first, and so at the end until the writer comes."""
    name = folder / "fifo"
    os.mkfifo(name)
    reader = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(name, os.O_WRONLY)
    name.unlink()
    return reader, writer


def sockets(_: Path) -> tuple[int, int]:
    one, other = socket.socketpair()
    return one.detach(), other.detach()


KINDS: dict[str, Callable[[Path], tuple[int, int]]] = {"pipe": pipe, "fifo": fifo, "sockets": sockets}


async def observe(
    make: Callable[[Path], tuple[int, int]], folder: Path, program: list[Step]
) -> list[Observation]:
    """What each step shows, and which calls have ended meanwhile; at last all that is still to be read."""
    async with trio.open_nursery() as nursery:
        machine = Machine(make(folder), nursery)
        seen = [await machine.do(*step) for step in program]
        for end in (0, 1):
            seen.append(await machine.do("cancel", end))
        seen += [
            await machine.do("aclose", 1),
            await machine.do("read", 0, 1 << 20),
            await machine.do("close", 0),
        ]
    return seen


class Machine:
    """The steps. The reader of a pipe is the first end, the writer the second."""

    def __init__(self, fds: tuple[int, int], nursery: trio.Nursery) -> None:
        self.streams = tuple(FdStream(fd) for fd in fds)
        self.nursery = nursery
        self.scopes: tuple[list[trio.CancelScope], ...] = ([], [])
        self.sent = 0
        self.ended: list[Observation] = []

    async def do(self, name: str, end: int, *arguments: Any) -> Observation:
        self.ended = []
        shown = getattr(self, name)(end, *arguments)
        await wait_all_tasks_blocked()
        await wait_all_tasks_blocked(0.0005)
        return name, shown, *sorted(self.ended, key=repr)

    def receive(self, end: int, most: Any) -> None:
        self.call(end, "receive", partial(self.streams[end].receive_some, most))

    def receive_disturbed(self, end: int, most: Any, after: list[int]) -> None:
        async def receive() -> Observation | None:
            for count in after:
                data = await disturbed(partial(self.streams[end].receive_some, most), count)
                if data is not None:
                    return digest(data)
            return digest(await self.streams[end].receive_some(most))

        self.call(end, "receive disturbed", receive)

    def send(self, end: int, size: int, form: Callable[[bytes], Any]) -> None:
        self.call(end, "send", partial(self.streams[end].send_all, form(self.next(size))))

    def send_wrong(self, end: int, data: Any) -> None:
        self.call(end, "send", partial(self.streams[end].send_all, data))

    def wait(self, end: int, how: str) -> None:
        if self.streams[end].fileno() >= 0:
            self.call(end, how, partial(getattr(trio.lowlevel, how), self.streams[end].fileno()))

    def wait_send_all_might_not_block(self, end: int) -> None:
        self.call(end, "wait", self.streams[end].wait_send_all_might_not_block)

    def aclose(self, end: int) -> None:
        self.call(end, "aclose", self.streams[end].aclose)

    def close(self, end: int) -> None:
        self.streams[end].close()

    def cancel(self, end: int) -> None:
        for scope in self.scopes[end]:
            scope.cancel()
        self.scopes[end].clear()

    def fileno(self, end: int) -> bool:
        return self.streams[end].fileno() >= 0

    def read(self, end: int, size: int) -> object:
        """What somebody else does who has the descriptor."""
        try:
            return digest(os.read(self.streams[end].fileno(), size))
        except OSError as error:
            return type(error)

    def write(self, end: int, size: int) -> object:
        try:
            return os.write(self.streams[end].fileno(), self.next(size))
        except OSError as error:
            return type(error)

    # The calls

    def next(self, size: int) -> bytes:
        self.sent += size
        return expected(self.sent - size, size)

    def call(self, end: int, name: str, function: Callable[[], Awaitable[object]]) -> None:
        scope = trio.CancelScope()
        self.scopes[end].append(scope)
        self.nursery.start_soon(self.note, name, function, scope)

    async def note(
        self, name: str, function: Callable[[], Awaitable[object]], scope: trio.CancelScope
    ) -> None:
        with scope:
            try:
                result = await function()
            except Exception as error:
                self.ended.append((name, *described(error), type(error.__context__)))
                return
            self.ended.append((name, digest(result) if isinstance(result, bytes) else result))
        if scope.cancelled_caught:
            self.ended.append((name, "cancelled"))


def digest(data: bytes) -> Observation:
    """Enough of the data to tell what they are a part of."""
    return len(data), data[:9], data[-9:]
