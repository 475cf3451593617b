"""native/python: that its functions refuse what they were not made for, and do nothing then."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import URING, needs_completions
from trio.lowlevel import Abort, Task, wait_task_rescheduled
from trio.testing import wait_all_tasks_blocked

import trio_uring
from trio_uring import RingOptions, _tasks
from trio_uring._tasks import (
    begin_attempt,
    begin_sendmsg,
    begin_sendto,
    capsule_of,
    is_resolved,
    learn,
    learn_run,
    learn_sockets,
    sleeps_on,
    spend,
    start_reading,
    start_receive,
    start_send,
    wake,
)
from trio_uring.loop import manager
from trio_uring.loop.operation import Operation
from trio_uring.loop.run import Run
from trio_uring.loop.trio_internals import RUNNER_ATTRIBUTES, STATUS_ATTRIBUTES, TASK_ATTRIBUTES
from trio_uring.ring.native import ffi, lib
from trio_uring.ring.opening import open_ring
from trio_uring.sockets.connection import Connection
from trio_uring.sockets.registry import RunSockets
from trio_uring.sockets.run_socket import RunSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Event = tuple[int, int, int, bool, int]
"""Its kind, key and result, whether more will come, and the number of its buffer."""
KINDS = range(1, lib.TU_KINDS)


@contextmanager
def run_with(*events: Event) -> Iterator[tuple[Run, list[Event]]]:
    """A run whose last tick has brought these events, and the list of those that are left to Python."""
    made = manager.UringManager(open_ring(RingOptions()), RunSockets)
    left: list[Event] = []
    try:
        for kind in KINDS:
            made.register(kind, {}, lambda *event, kind=kind: left.append((kind, *event)))
        memory = lib.tu_events(made.core)
        for index, (kind, key, result, more, buffer) in enumerate(events):
            event = memory[index]
            event.kind, event.key, event.result, event.more, event.buffer = kind, key, result, more, buffer
        yield made, left
    finally:
        made.close()
        made.close_interrupt()


def wake_by(tables: dict[int, dict[int, Any]], *events: Event) -> tuple[list[Task], list[Event]]:
    """The tasks that were woken, and the events that were left."""
    woken: list[Task] = []
    with run_with(*events) as (run, left):
        for kind, table in tables.items():
            handler = run.handlers[kind]
            assert handler is not None
            run.register(kind, table, handler)
        wake(run, len(events), woken.append)
    return woken, left


def succeed(_: object) -> Abort:
    return Abort.SUCCEEDED


async def sleeping_task(nursery: trio.Nursery, abort: Callable[[Any], Abort] = succeed) -> Task:
    nursery.start_soon(wait_task_rescheduled, abort)
    await wait_all_tasks_blocked()
    (task,) = nursery.child_tasks
    return task


def test_all_that_it_works_on_was_learnt() -> None:
    assert manager.KNOWS_TASKS


def test_each_class_lists_the_attributes_that_c_uses() -> None:
    assert _tasks.attributes_used() == {
        "task": TASK_ATTRIBUTES,
        "runner": RUNNER_ATTRIBUTES,
        "cancel status": STATUS_ATTRIBUTES,
        "run": Run.USED_BY_C,
        "operation": Operation.USED_BY_C,
        "socket": RunSocket.USED_BY_C,
        "connection": Connection.USED_BY_C,
    }


def test_a_class_with_other_attributes_is_not_learnt() -> None:
    with pytest.raises(TypeError, match="has not the attributes that C uses of a run"):
        learn("run", Run, Run.USED_BY_C[1:])
    with pytest.raises(TypeError, match="has not the attributes that C uses of a stranger"):
        learn("stranger", Run, Run.USED_BY_C)


def test_without_the_attributes_all_is_left_to_python() -> None:
    """In a process of its own, since what was learnt stays."""
    program = """
from trio_uring._tasks import *

class Stranger:
    pass

TRIOS = ("task", "runner", "cancel status")

for name, used in attributes_used().items():
    try:
        learnt = learn(name, Stranger, used)
    except TypeError:
        learnt = name not in TRIOS
    assert learnt == (name not in TRIOS), name
stranger = Stranger()
assert start_receive(stranger, 1) is None
assert start_send(stranger, b"x") is None
assert start_reading(stranger, stranger, 5) is False
assert begin_attempt(stranger, ()) is None
assert begin_sendto(stranger, (b"x", ("127.0.0.1", 9))) is None
assert begin_sendmsg(stranger, ()) is None
assert not is_resolved(stranger, ("127.0.0.1", 9))
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("arguments", [(), (print, None, []), (print, object(), []), (print, None, ())])
def test_a_batch_without_a_runner_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match="run_batch"):
        _tasks.run_batch(*arguments)


def test_a_core_that_was_not_opened_is_refused() -> None:
    with pytest.raises(ValueError, match="a core that was opened"):
        capsule_of(ffi.buffer(ffi.new("tu_core *")))
    with pytest.raises(ValueError, match="a core that was opened"):
        capsule_of(b"core")


def test_events_that_nobody_waits_for_are_left_in_their_order() -> None:
    events: list[Event] = [(lib.TU_ACCEPT, 1, 2, True, -1), (lib.TU_READ, 7, 1, False, -1)]
    events.append((lib.TU_RECEIVE, 5, 4, True, 0))
    assert wake_by({}, *events) == ([], events)


def test_an_event_of_no_kind_is_an_error() -> None:
    with run_with((9, 1, 2, False, -1)) as (run, left):
        with pytest.raises(SystemError, match="no handler for events of kind 9"):
            wake(run, 1, None)
        assert left == []
        lib.tu_events(run.core)[0].kind = lib.TU_NOTHING


def test_objects_of_other_classes_are_left() -> None:
    events: list[Event] = [(kind, 5, 1, True, -1) for kind in KINDS]
    assert wake_by({kind: {5: object()} for kind in KINDS}, *events) == ([], events)


@pytest.mark.parametrize("kind", [lib.TU_READ, lib.TU_WRITE, lib.TU_OPERATION])
def test_a_task_is_woken_once(kind: int) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            operation = Operation(nothing, nothing, 5, None)
            task = await sleeping_task(nursery, operation.abort)
            operation.task = task
            tables = {kind: {5: operation if kind == lib.TU_OPERATION else task}}
            event: Event = (kind, 5, 1, False, -1)
            assert wake_by(tables, event, event) == ([task], [event])
            assert tables == {kind: {}}
            with pytest.raises(AssertionError, match="woken twice"):
                wake_by({lib.TU_READ: {5: task}}, (lib.TU_READ, 5, 1, False, -1))
            task._runner.runq.append(task)  # type: ignore[attr-defined]

    nothing: Any = None
    URING.run(main)


def test_who_does_not_sleep_on_an_operation_is_not_woken_by_it() -> None:
    """An exception has come between its submission and the sleep."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            operation = Operation(nothing, await sleeping_task(nursery), 5, None)
            event: Event = (lib.TU_OPERATION, 5, 1, False, -1)
            assert wake_by({lib.TU_OPERATION: {5: operation}}, event) == ([], [event])
            assert operation.task is None
            nursery.cancel_scope.cancel()

    nothing: Any = None
    URING.run(main)


def test_each_event_is_processed_once_also_if_one_of_them_fails() -> None:
    seen: list[int] = []

    def handler(key: int, _result: int, _more: bool, _buffer: int) -> None:
        seen.append(key)
        if key == 2:
            raise KeyError

    events = [(lib.TU_ACCEPT, key, 0, False, -1) for key in (1, 2, 3)]
    with run_with(*events) as (run, _):
        run.register(lib.TU_ACCEPT, {}, handler)
        with pytest.raises(KeyError):
            wake(run, 3, None)
        assert seen == [1, 2]
        for _ in range(2):
            wake(run, 3, None)
        assert seen == [1, 2, 3]


def test_more_events_than_there_can_be_are_refused() -> None:
    with run_with() as (run, _), pytest.raises(IndexError, match="there are no 100000 events"):
        wake(run, 100000, None)


def test_other_arguments_are_refused() -> None:
    functions: tuple[Any, ...] = (
        learn,
        learn_run,
        learn_sockets,
        capsule_of,
        start_reading,
        start_receive,
        start_send,
        wake,
        begin_attempt,
        begin_sendto,
        begin_sendmsg,
        is_resolved,
        spend,
    )
    for function in functions:
        with pytest.raises(TypeError):
            function(None)
    nobody: Any = object()
    with pytest.raises(TypeError, match="is no run"):
        wake(nobody, 0, None)


def test_a_task_that_was_never_made_sleeps_on_nothing() -> None:
    nobody = Task.__new__(Task)
    assert not sleeps_on(nobody, None)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):  # of its repr, in the message
        wake_by({lib.TU_READ: {5: nobody}}, (lib.TU_READ, 5, 1, False, -1))


def test_in_a_subinterpreter_the_core_is_refused() -> None:
    """What native/python has learnt is the process's."""
    interpreters = pytest.importorskip(
        "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    )
    program = """
import trio
import trio_uring
try:
    trio_uring.run(trio.sleep, 0)
except trio_uring.UringUnavailableError as error:
    assert "main interpreter" in str(error) or "subinterpreter" in str(error), error
else:
    raise AssertionError("it ran")
"""
    # Up to 3.12 an isolated one cannot even import Trio, which starts a process to find pthread.
    made = interpreters.create(**({} if sys.version_info >= (3, 13) else {"isolated": False}))
    try:
        failed = interpreters.run_string(made, program)
    finally:
        interpreters.destroy(made)
    assert failed is None, failed


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


def test_a_wait_that_cannot_begin_is_for_python(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        task: Any = trio.lowlevel.current_task()
        run: Any = task._runner.io_manager
        for fd in (-1, 1 << 31, 1 << 100, True, "1", None, 1.0):
            assert start_reading(run, task, fd) is False  # type: ignore[arg-type]
        assert start_reading(run, object(), pipe[0]) is False  # type: ignore[arg-type]
        assert start_reading(object(), task, pipe[0]) is False  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.wait_readable, pipe[0])
            await wait_all_tasks_blocked()
            readers = dict(run.readers)
            assert start_reading(run, task, pipe[0]) is False
            assert (run.readers, task.custom_sleep_data) == (readers, None)
            nursery.cancel_scope.cancel()

    URING.run(main)


def test_a_wait_is_left_to_python_if_the_queue_is_full(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        task: Any = trio.lowlevel.current_task()
        run: Any = task._runner.io_manager
        slot = lib.tu_poll_add(run.core, pipe[1], lib.TU_READ)
        assert start_reading(run, task, pipe[0]) is False
        assert not run.readers
        lib.tu_poll_cancel(run.core, slot, 0)
        assert start_reading(run, task, pipe[0]) is True
        assert run.readers == {pipe[0]: task}
        run.notify_closing(pipe[0])
        task._next_send_fn = task._next_send = None
        run._runner.runq.clear()

    trio_uring.run(main, ring=RingOptions(entries=1, cq_entries=2))
