"""The functions of native/python, with whatever Python can hand them: objects of other classes, numbers that
fit nowhere, attributes that were replaced or deleted, methods that raise, and callbacks that call again.

They may raise what they like. What a fault does is to end the process, or to corrupt its memory, which the
session `sanitize` has watched."""

from __future__ import annotations

import array
import os
import socket
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import trio
from datagram_pairs import trio_pair
from equivalence import URING, needs_completions
from fuzzing import fuzzed
from hypothesis import given
from hypothesis import strategies as st

from trio_uring import Datagram, RingOptions, _tasks
from trio_uring.loop import manager
from trio_uring.loop.operation import Operation
from trio_uring.loop.trio_internals import TASK_ATTRIBUTES
from trio_uring.ring.native import lib
from trio_uring.ring.opening import open_ring
from trio_uring.sockets.connection import Connection
from trio_uring.sockets.registry import RunSockets
from trio_uring.sockets.run_socket import RunSocket
from trio_uring.sockets.streams import recv, send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UDP_GRO = 104

LEFT_ALONE = ("runner", "run", "_runner", "capsule")
"""Attributes that Trio and the tests need to end a run."""
OURS = {
    kind: [name for name in names if name not in LEFT_ALONE]
    for kind, names in {
        "task": TASK_ATTRIBUTES,
        "run": manager.Run.USED_BY_C,
        "operation": Operation.USED_BY_C,
        "connection": tuple({*RunSocket.USED_BY_C, *Connection.USED_BY_C}),
    }.items()
}


class Raises:
    """Whatever it is asked for, it raises."""

    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError(name)

    __call__ = __bool__ = __eq__ = __index__ = __len__ = __iter__ = __getattr__  # type: ignore[assignment]
    __hash__ = object.__hash__


class Lies:
    """Says that it is a run's socket."""

    __class__ = Connection  # type: ignore[assignment]


class Number(int):
    """No int itself, and nothing that it is compared with is equal."""

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    __hash__ = int.__hash__


STRANGERS: list[Callable[[], Any]] = [
    Raises, Lies, Number, object, dict, tuple, list, lambda: None, lambda: True, lambda: b"data",
    lambda: "text", lambda: 1.5, lambda: Raises, lambda: trio.lowlevel.Task.__new__(trio.lowlevel.Task),
    lambda: Operation.__new__(Operation), lambda: Connection.__new__(Connection),
    lambda: manager.Run.__new__(manager.Run), lambda: memoryview(b"x" * 64), lambda: {5: Raises()},
    lambda: (None,) * lib.TU_KINDS, lambda: ({}, {}) * 3,
]  # fmt: skip
numbers = st.one_of(
    st.integers(-3, 9), st.sampled_from([1 << 31, 1 << 32, 1 << 63, 1 << 64, -(1 << 63), -(1 << 80)])
)
events = st.lists(
    st.tuples(st.integers(-1, 8), st.integers(4, 6), st.integers(-40, 40), st.booleans(), st.integers(-1, 3)),
    max_size=6,
)
"""Their kinds, keys, results, whether more will come, and the numbers of their buffers."""
NOT_CALLED = ("keep", "uncleared_bytes", "watch_queue", "FEW_EVENTS")
"""They would fill the memory, or have a stranger watch the queue; or it is no function."""
names = st.sampled_from([name for name in dir(_tasks) if name[0] != "_" and name not in NOT_CALLED])
# What becomes of the objects before: of which kind, which attribute, deleted (-1) or what it becomes instead.
damages = st.lists(
    st.tuples(st.sampled_from(sorted(OURS)), st.integers(0, 9), st.integers(-1, 40)),
    max_size=3,
)
arguments = st.lists(
    st.one_of(st.integers(0, 40), numbers.map(lambda number: ("number", number))), max_size=4
)


FAMILIES = {
    "unix": socket.AF_UNIX,
    "udp": socket.AF_INET,
    "udp 6": socket.AF_INET6,
    "udp connected": socket.AF_INET,
}
# No name that is looked up, and no port where somebody listens.
hosts = st.sampled_from(["127.77.0.1", "::1", "", "1.2", "fe80::1%lo", "\ud800", "1.2.3.4\0", b"::1"])
ports = st.one_of(st.sampled_from([9, -1, 65_536, 9.5]), numbers.filter(lambda port: not 0 < port < 65_536))
anything = st.integers(0, 40).map(lambda one: ("any", one))
addresses = st.one_of(
    st.none(),
    st.text(max_size=120),
    st.binary(max_size=120),
    st.tuples(hosts, ports),
    st.tuples(hosts, ports, numbers, numbers),
    anything,
)
data = st.one_of(st.binary(max_size=40), st.sampled_from([bytes(70_000), bytearray(5)]), anything)
ancillary = st.lists(
    st.one_of(st.tuples(st.sampled_from([0, 1, 17, 41]), st.integers(-1, 110), data), anything), max_size=3
)
messages = st.lists(
    st.one_of(
        st.tuples(data, addresses),
        st.tuples(data, addresses, ancillary),
        st.tuples(st.binary(max_size=40), st.none(), st.just([])),
        anything,
    ),
    max_size=70,
)
kinds = st.one_of(st.sampled_from([tuple, Datagram, Lies, int]), anything)


class World:
    """The objects that are real."""

    def __init__(self, run: Any, stream: Any) -> None:
        self.run, self.stream = run, stream
        self.connection = stream.socket._uring
        self.task = trio.lowlevel.current_task()
        self.operation = Operation(run, self.task, 5, None)
        self.real = [
            run,
            stream,
            self.connection,
            self.task,
            self.operation,
            run.tables,
            run.handlers,
            self.again,
        ]
        self.depth = 0

    def any_object(self, choice: int) -> Any:
        made = [lambda one=one: one for one in self.real]
        return (made + STRANGERS)[choice % (len(made) + len(STRANGERS))]()

    def again(self, *_: object) -> None:
        """A callback that calls what has called it, and has less for it to find."""
        self.depth += 1
        if self.depth < 4:
            for table in self.run.tables:
                if isinstance(table, dict):
                    table.clear()
            _tasks.wake(self.run, 3, self.again)

    def made(self, one: Any) -> Any:
        """What strategies have drawn, with objects in place of their numbers, within tuples and lists too."""
        if isinstance(one, tuple) and one[:1] == ("any",):
            return self.any_object(one[1])
        return type(one)(map(self.made, one)) if type(one) in (tuple, list) else one

    def take_back(self) -> None:
        """Takes back a receive or a send that has begun."""
        sender = self.connection.sender
        self.connection.waiter = sender.task = None
        self.stream._send_conflict_detector._held = False
        if self.connection.run.operations.pop(sender.slot, None):
            lib.tu_cancel(self.connection.run.core, sender.slot)

    def wait_for(self, fd: int) -> None:
        """Begins to wait, and takes that back."""
        self.run.register(lib.TU_READ, {}, self.again)
        before = self.task.custom_sleep_data
        assert _tasks.start_reading(self.run, self.task, fd)
        assert not _tasks.start_reading(self.run, self.task, fd)
        lib.tu_poll_cancel(self.run.core, self.task.custom_sleep_data, 0)
        self.task.custom_sleep_data = before

    @contextmanager
    def damaged(self, kind: str, which: int, choice: int) -> Iterator[None]:
        """For a while an attribute is another object, or is missing."""
        victim = getattr(self, kind)
        name = OURS[kind][which % len(OURS[kind])]
        before = getattr(victim, name, None)
        if choice >= 0:
            setattr(victim, name, self.any_object(choice))
        elif hasattr(victim, name):
            delattr(victim, name)
        try:
            yield
        finally:
            setattr(victim, name, before)


@fuzzed
@given(name=names, arguments=arguments, damages=damages, events=events, tables=st.integers(0, 40))
def call_with(
    name: str,
    arguments: list[Any],
    damages: list[tuple[str, int, int]],
    events: list[tuple[int, int, int, bool, int]],
    tables: int,
) -> None:
    """Calls a function, and then `wake` for the events, in `the_world`."""
    world = the_world[0]
    run, task = world.run, world.task
    before = {attribute: getattr(task, attribute) for attribute in TASK_ATTRIBUTES}
    for kind in range(1, lib.TU_KINDS):
        run.register(kind, {5: world.any_object(tables + kind)}, world.again)
    memory = lib.tu_events(run.core)
    for index, (kind, key, result, more, buffer) in enumerate(events):
        event = memory[index]
        event.kind, event.key, event.result, event.more, event.buffer = kind, key, result, more, buffer
    made = [one[1] if isinstance(one, tuple) else world.any_object(one) for one in arguments]
    world.depth = 0
    with ExitStack() as undoing:
        for damage in damages:
            undoing.enter_context(world.damaged(*damage))
        with suppress(Exception):
            getattr(_tasks, name)(*made)
        with suppress(Exception):
            _tasks.wake(run, len(events), world.again)
    for index in range(len(events)):
        memory[index].kind = lib.TU_NOTHING
    for attribute, value in before.items():  # it was not woken
        setattr(task, attribute, value)
    world.take_back()
    _tasks.learn_methods(recv, send)


@fuzzed
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    said=st.one_of(st.sampled_from([1, 2, 10]), numbers),
    batch=messages,
    start=st.integers(-1, 3),
    kind=kinds,
    count=st.one_of(st.integers(0, 70), numbers),
    size=st.one_of(st.sampled_from([0, 7, 100, 65_535]), numbers),
    control=st.one_of(st.sampled_from([0, 8, 24, 104]), numbers),
)
def exchange_with(
    family: str,
    said: int,
    batch: list[Any],
    start: int,
    kind: Any,
    count: int,
    size: int,
    control: int,
) -> None:
    """Begins to send the messages, sends and receives them, and begins to wait for others."""
    world = the_world[0]
    made = tuple(map(world.made, batch))
    near, far = trio_pair(family)
    near._uring_at_once = True  # as after its first call
    with near, far:
        if family != "unix":
            far._sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        for message in made:
            for begin in (_tasks.begin_sendto, _tasks.begin_sendmsg):
                with suppress(Exception):
                    begin(near, message)
            with suppress(Exception):
                _tasks.is_resolved(near, message[1])
            with suppress(Exception):
                _tasks.send_many(near.fileno(), FAMILIES[family], (message,), 0)
        for family_said in (FAMILIES[family], said):
            with suppress(Exception):
                _tasks.send_many(near.fileno(), family_said, made, start)
        memory: Any = bytearray(100_000)
        with suppress(Exception):
            close_all(_tasks.receive_many(far.fileno(), world.made(kind), memory, count, size, control))
        with suppress(Exception):
            close_all(_tasks.receive_many(far.fileno(), Datagram, memory, 8, 1000, 1024))
        world.wait_for(far.fileno())


def close_all(datagrams: list[Any]) -> None:
    """Closes the descriptors that datagrams have brought."""
    for _, _, items, _ in datagrams:
        for level, kind, data in items:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                for fd in array.array("i", data):
                    os.close(fd)


the_world: list[World] = []


def in_the_world(call: Callable[[], object]) -> None:
    """Calls it while there is a world: a stream in a run, and another run, whose events nobody waits for."""

    async def main() -> None:
        near, far = socket.socketpair()
        with far, trio.socket.from_stdlib_socket(near) as sock:
            stream = trio.SocketStream(sock)
            for _ in range(3):  # by multishot, and by a sender, from the second one on
                far.send(b"x")
                await stream.receive_some()
                await stream.send_all(b"x")
            the_world[:] = [World(made, stream)]
            call()

    made = manager.UringManager(open_ring(RingOptions()), RunSockets)
    try:
        URING.run(main)
    finally:
        made.close()
        made.close_interrupt()


@needs_completions
def test_no_argument_ends_the_process() -> None:
    in_the_world(call_with)


@needs_completions
def test_no_datagram_ends_the_process() -> None:
    in_the_world(exchange_with)
