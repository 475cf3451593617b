"""native/python: that its functions refuse what they were not made for, and do nothing then."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import URING, needs_completions
from trio.lowlevel import Abort, Task, wait_task_rescheduled
from trio.testing import wait_all_tasks_blocked

from trio_uring._tasks import learn, start_receive, start_send, wake
from trio_uring.loop import manager
from trio_uring.loop.operation import Operation
from trio_uring.loop.sleep import READY
from trio_uring.ring.native import lib

if TYPE_CHECKING:
    from collections.abc import Callable

Event = tuple[int, int, int, int]


def events_of(*events: Event) -> bytearray:
    return bytearray().join(struct.pack("=iiii", *event) for event in events)


def wake_by(
    events: bytearray, *waiting: dict[int, Any], count: int | None = None
) -> tuple[list[Task], list[Event]]:
    """The tasks that were woken, and the events that were left."""
    woken: list[Task] = []
    left: list[Event] = []
    tables: Any = (*waiting, *({} for _ in range(4 - len(waiting))))
    number = len(events) // 16 if count is None else count
    wake(events, number, b"abcdefgh", 4, tables, READY, woken.append, lambda *event: left.append(event))
    return woken, left


def succeed(_: object) -> Abort:
    return Abort.SUCCEEDED


async def sleeping_task(nursery: trio.Nursery, abort: Callable[[Any], Abort] = succeed) -> Task:
    nursery.start_soon(wait_task_rescheduled, abort)
    await wait_all_tasks_blocked()
    (task,) = nursery.child_tasks
    return task


def test_all_that_it_works_on_was_learnt() -> None:
    assert manager._LEARNT


def test_without_the_slots_all_is_left_to_python() -> None:
    """In a process of its own, since what was learnt stays."""
    program = """
import _socket
import struct
from trio_uring._tasks import learn, start_receive, start_send, wake
from trio_uring.sockets.run_socket import Armed
from trio_uring.sockets.connection import Connection
from trio_uring.sockets.connections import Connections
from trio_uring.loop.operation import Operation

class Stranger:
    pass

stranger = Stranger()
ours = (Operation, Armed, Connection, Connections)
fileno = _socket.socket.fileno
try:
    learn(Stranger, Stranger, Stranger, Stranger, Stranger, Stranger, fileno, stranger, None, 0, 0)
except TypeError:
    pass
else:
    raise AssertionError("learnt of strangers")
assert not learn(Stranger, *ours, Stranger, fileno, stranger, None, 0, 0)
assert start_receive(stranger, 1) is None
assert start_send(stranger, b"x") is None
left = []
tables = {5: stranger}, {}, {}, {}
events = bytearray(struct.pack("=iiii", 1, 5, 1, 0))
wake(events, 1, b"", 0, tables, None, None, lambda *event: left.append(event))
assert left == [(1, 5, 1, 0)]
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_events_that_nobody_knows_are_left_in_their_order() -> None:
    events: list[Event] = [(9, 1, 2, 3), (lib.TU_READ, 7, 1, 0), (-1, 0, 0, 0), (lib.TU_RECEIVE, 5, 4, 5)]
    assert wake_by(events_of(*events)) == ([], events)


def test_objects_of_other_classes_are_left() -> None:
    kinds = (lib.TU_READ, lib.TU_WRITE, lib.TU_OPERATION, lib.TU_RECEIVE)
    events: list[Event] = [(kind, 5, 1, 3) for kind in kinds]
    assert wake_by(events_of(*events), *({5: object()} for _ in kinds)) == ([], events)


@pytest.mark.parametrize("kind", [lib.TU_READ, lib.TU_WRITE, lib.TU_OPERATION])
def test_a_task_is_woken_once(kind: int) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            operation = Operation(nothing, nothing, 5, None)
            task = await sleeping_task(nursery, operation.abort)
            operation.task = task
            tables: list[dict[int, Any]] = [{}, {}, {}]
            tables[kind - lib.TU_READ][5] = operation if kind == lib.TU_OPERATION else task
            event: Event = (kind, 5, 1, 0)
            assert wake_by(events_of(event, event), *tables) == ([task], [event])
            assert tables == [{}, {}, {}]
            with pytest.raises(AssertionError, match="woken twice"):
                wake_by(events_of((lib.TU_READ, 5, 1, 0)), {5: task})
            task._runner.runq.append(task)  # type: ignore[attr-defined]

    nothing: Any = None
    URING.run(main)


def test_who_does_not_sleep_on_an_operation_is_not_woken_by_it() -> None:
    """An exception has come between its submission and the sleep."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            operation = Operation(nothing, await sleeping_task(nursery), 5, None)
            event: Event = (lib.TU_OPERATION, 5, 1, 0)
            assert wake_by(events_of(event), {}, {}, {5: operation}) == ([], [event])
            assert operation.task is None
            nursery.cancel_scope.cancel()

    nothing: Any = None
    URING.run(main)


def test_each_event_is_processed_once_also_if_one_of_them_fails() -> None:
    seen: list[int] = []

    def other(kind: int, key: int, result: int, detail: int) -> None:
        seen.append(key)
        if key == 2:
            raise KeyError

    events = events_of((5, 1, 0, 0), (5, 2, 0, 0), (5, 3, 0, 0))
    with pytest.raises(KeyError):
        wake(events, 3, b"", 0, ({}, {}, {}, {}), READY, None, other)
    assert seen == [1, 2]
    for _ in range(2):
        wake(events, 3, b"", 0, ({}, {}, {}, {}), READY, None, other)
    assert seen == [1, 2, 3]


def test_more_events_than_there_are_are_refused() -> None:
    with pytest.raises(IndexError, match="there are no 2 events"):
        wake_by(events_of((lib.TU_READ, 1, 1, 0)), count=2)


def test_other_arguments_are_refused() -> None:
    functions: tuple[Any, ...] = (learn, start_receive, start_send, wake)
    for function in functions:
        with pytest.raises(TypeError):
            function(None)
    with pytest.raises(TypeError):
        wake(bytearray(), 0, b"", 0, ({}, {}, {}), READY, print, print)  # type: ignore[arg-type]


@needs_completions
@pytest.mark.parametrize("length", [0, -1, 1 << 31, 1 << 100, True, "1", None, 1.0])
def test_a_receive_of_a_strange_length_is_for_python(length: object) -> None:
    async def main() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        stream = await trio.testing.open_stream_to_socket_listener(listeners[0])
        peer = await listeners[0].accept()
        async with listeners[0], stream, peer:
            for _ in range(3):  # by multishot from the second one on
                await peer.send_all(b"x")
                assert await stream.receive_some() == b"x"
            assert start_receive(stream, length) is None
            assert stream.socket._uring.waiter is None  # type: ignore[attr-defined]

    URING.run(main)


def test_what_is_no_stream_of_the_run_is_for_python() -> None:
    async def main() -> None:
        near, far = trio.socket.socketpair()
        with near, far:
            stream: Any = trio.SocketStream(near)
            stranger: Any = object()
            for one in (stranger, stream):
                assert start_receive(one, 1) is None
                assert start_send(one, b"x") is None
            stream.socket._uring = stranger
            assert start_send(stream, b"x") is None
            del stream.socket._uring

    URING.run(main)
    assert start_send(object(), b"x") is None  # type: ignore[arg-type]
