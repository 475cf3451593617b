"""Random programs (Hypothesis) of nurseries, scopes, deadlines, shields, cancellations, crashes, channels,
locks, generators, instruments and Ctrl-C: who ran when, what was raised, from where and how deep, is the same
with `RingOptions.accelerate` as with Trio's loop.

TRIO_URING_ORACLE_EXAMPLES: that many programs, chosen at random, instead of the same few.
"""

from __future__ import annotations

import contextvars
import re
import signal
import traceback
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from random_programs import programs_of
from trio._core import _run as trio_run

import trio_uring
from trio_uring import RingOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

Action: TypeAlias = "tuple[Any, ...]"
variable: ContextVar[int] = ContextVar("variable", default=0)


class CrashError(Exception):
    pass


class Interrupt(BaseException):
    pass


# The actions of a task: a name, and its arguments. What has a body has it last.

times = st.sampled_from([0, 1, 2, 5, 50])
simple = st.one_of(
    st.tuples(
        st.sampled_from(
            [
                "checkpoint",
                "checkpoint_if_cancelled",
                "cancel_shielded_checkpoint",
                "foreign",
                "wait_long",
                "crash",
                "interrupt",
                "stop_iteration",
                "set",
                "wait",
                "signal",
                "effective_deadline",
                "return",
                "wake_with_error",
                "wake_itself",
                "send",
                "receive",
                "lock",
                "park",
                "unpark",
                "instrument",
                "ctrl_c",
                "protected_ctrl_c",
            ]
        )
    ),
    st.tuples(st.just("sleep"), times),
    st.tuples(st.sampled_from(["cancel", "shield", "unshield"]), st.integers(0, 3)),
    st.tuples(st.sampled_from(["deadline", "relative_deadline"]), st.integers(0, 3), times),
    st.tuples(st.just("cancelled?"), st.integers(0, 3)),
)


def compound(body: st.SearchStrategy[list[Action]]) -> st.SearchStrategy[Action]:
    return st.one_of(
        st.tuples(st.just("scope"), st.booleans(), body),
        st.tuples(st.sampled_from(["move_on_after", "fail_after"]), times, body),
        st.tuples(st.just("nursery"), st.lists(body, max_size=3), body),
        st.tuples(
            st.sampled_from(["start", "try", "finally", "repeat", "misnest", "generator", "held"]), body
        ),
        st.tuples(st.just("system_task"), body),
    )


bodies = st.recursive(
    st.lists(simple, max_size=4),
    lambda inner: st.lists(st.one_of(simple, compound(inner)), max_size=4),
    max_leaves=25,
)


@attrs.define
class Program:
    """Runs a tree of actions, and notes what is seen."""

    seen: list[object] = attrs.Factory(list)
    scopes: list[trio.CancelScope] = attrs.Factory(list)
    event: trio.Event = attrs.Factory(trio.Event)
    lock: trio.Lock = attrs.Factory(trio.Lock)
    lot: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    channel: Any = attrs.Factory(lambda: trio.open_memory_channel[str](1))
    tasks: int = 0

    def note(self, who: str, what: str, *details: object) -> None:
        self.seen.append((who, what, trio.current_time(), variable.get(), *details))

    def scope(self, number: int) -> trio.CancelScope | None:
        return self.scopes[number % len(self.scopes)] if self.scopes else None

    async def task(
        self, body: Sequence[Action], task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
    ) -> tuple[str]:
        self.tasks += 1
        who = f"task {self.tasks}"
        variable.set(self.tasks)
        self.note(who, "begins", trio.lowlevel.current_task().name)
        try:
            await self.do(who, body[:1])
            task_status.started(who)
            await self.do(who, body[1:])
        except BaseException as error:
            self.note(who, "raises", shape(error))
            raise
        task = trio.lowlevel.current_task()
        self.note(who, "ends", task._cancel_points, task._schedule_points)
        return (who,)

    async def do(self, who: str, body: Sequence[Action]) -> None:
        for action in body:
            self.note(who, action[0])
            if action[0] == "return":
                return
            try:
                await getattr(self, f"do_{action[0].rstrip('?')}")(who, *action[1:])
            except BaseException as error:
                self.note(who, "sees", type(error).__name__)
                raise

    async def do_checkpoint(self, who: str) -> None:
        await trio.lowlevel.checkpoint()

    async def do_checkpoint_if_cancelled(self, who: str) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()

    async def do_cancel_shielded_checkpoint(self, who: str) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def do_foreign(self, who: str) -> None:
        await Foreign()

    async def do_wait_long(self, who: str) -> None:
        """Longer than the program, unless it is in a shielded scope: then until the clock jumps."""
        await trio.sleep(1000)

    async def do_crash(self, who: str) -> None:
        raise CrashError(who)

    async def do_interrupt(self, who: str) -> None:
        raise Interrupt(who)

    async def do_stop_iteration(self, who: str) -> None:
        raise StopAsyncIteration(who)

    async def do_set(self, who: str) -> None:
        variable.set(variable.get() + 100)

    async def do_wait(self, who: str) -> None:
        with trio.move_on_after(1000):
            await self.event.wait()

    async def do_signal(self, who: str) -> None:
        self.event.set()
        self.event = trio.Event()

    async def do_effective_deadline(self, who: str) -> None:
        self.note(who, "deadline", trio.current_effective_deadline())

    async def do_wake_with_error(self, who: str) -> None:
        """A task that is rescheduled with an error while it sleeps."""
        task = trio.lowlevel.current_task()

        def wake() -> None:
            trio.lowlevel.reschedule(task, trio_run.Error(CrashError("woken")))

        trio.lowlevel.current_trio_token().run_sync_soon(wake)
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    async def do_wake_itself(self, who: str) -> None:
        trio.lowlevel.reschedule(trio.lowlevel.current_task(), trio_run.Value("woken"))
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    async def do_send(self, who: str) -> None:
        with trio.move_on_after(3):
            await self.channel[0].send(who)

    async def do_receive(self, who: str) -> None:
        with trio.move_on_after(3):
            self.note(who, "receives", await self.channel[1].receive())

    async def do_lock(self, who: str) -> None:
        with trio.fail_after(4):
            async with self.lock:
                await trio.lowlevel.checkpoint()

    async def do_park(self, who: str) -> None:
        with trio.move_on_after(6):
            await self.lot.park()

    async def do_unpark(self, who: str) -> None:
        self.lot.unpark_all()

    async def do_instrument(self, who: str) -> None:
        """Comes now, and goes with the third step that it sees."""
        trio.lowlevel.add_instrument(Watcher(self))

    async def do_ctrl_c(self, who: str) -> None:
        signal.raise_signal(signal.SIGINT)

    @trio.lowlevel.enable_ki_protection
    async def do_protected_ctrl_c(self, who: str) -> None:
        signal.raise_signal(signal.SIGINT)
        self.note(who, "goes on")
        await trio.lowlevel.checkpoint()

    async def do_relative_deadline(self, who: str, number: int, seconds: float) -> None:
        if scope := self.scope(number):
            scope.relative_deadline = seconds

    async def do_sleep(self, who: str, seconds: float) -> None:
        await trio.sleep(seconds)

    async def do_cancel(self, who: str, number: int) -> None:
        if scope := self.scope(number):
            scope.cancel()

    async def do_shield(self, who: str, number: int) -> None:
        if scope := self.scope(number):
            scope.shield = True

    async def do_unshield(self, who: str, number: int) -> None:
        if scope := self.scope(number):
            scope.shield = False

    async def do_deadline(self, who: str, number: int, seconds: float) -> None:
        if scope := self.scope(number):
            scope.deadline = trio.current_time() + seconds

    async def do_cancelled(self, who: str, number: int) -> None:
        if scope := self.scope(number):
            self.note(who, "scope", scope.cancel_called, scope.cancelled_caught, repr(scope)[-9:])

    async def do_scope(self, who: str, shield: bool, body: list[Action]) -> None:
        with trio.CancelScope(shield=shield) as scope:
            await self.within(who, scope, body)

    async def do_move_on_after(self, who: str, seconds: float, body: list[Action]) -> None:
        with trio.move_on_after(seconds) as scope:
            await self.within(who, scope, body)
        self.note(who, "after", scope.cancelled_caught)

    async def do_fail_after(self, who: str, seconds: float, body: list[Action]) -> None:
        with trio.fail_after(seconds) as scope:
            await self.within(who, scope, body)

    async def within(self, who: str, scope: trio.CancelScope, body: list[Action]) -> None:
        self.scopes.append(scope)
        try:
            await self.do(who, body)
        finally:
            self.scopes.remove(scope)

    async def do_nursery(self, who: str, children: list[list[Action]], body: list[Action]) -> None:
        async with trio.open_nursery() as nursery:
            for child in children:
                nursery.start_soon(self.task, child)
            await self.within(who, nursery.cancel_scope, body)

    async def do_start(self, who: str, body: list[Action]) -> None:
        async with trio.open_nursery() as nursery:
            self.note(who, "started", await nursery.start(self.task, body))

    async def do_try(self, who: str, body: list[Action]) -> None:
        try:
            await self.do(who, body)
        except (Exception, Interrupt) as error:
            self.note(who, "catches", shape(error))

    async def do_finally(self, who: str, body: list[Action]) -> None:
        try:
            await self.do(who, body)
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            self.note(who, "finally")

    async def do_repeat(self, who: str, body: list[Action]) -> None:
        for _ in range(3):
            await self.do(who, body)

    async def do_misnest(self, who: str, body: list[Action]) -> None:
        """Leaves the outer one of two scopes first."""
        outer, inner = trio.CancelScope(), trio.CancelScope()
        outer.__enter__()
        inner.__enter__()
        try:
            await self.within(who, outer, body)
        finally:
            for scope in (outer, inner):
                try:
                    scope.__exit__(None, None, None)
                except RuntimeError as error:
                    self.note(who, "misnests", shape(error))

    async def do_generator(self, who: str, body: list[Action]) -> None:
        """An asynchronous generator that is not run to its end: the run finalises it."""

        async def generate() -> AsyncIterator[int]:
            try:
                for number in range(3):
                    await self.do(who, body)
                    yield number
            finally:
                self.note(who, "finalises")
                await trio.lowlevel.cancel_shielded_checkpoint()

        async for number in generate():
            self.note(who, "is given", number)
            if number:
                break

    async def do_held(self, who: str, body: list[Action]) -> None:
        if self.lock.statistics().owner is not trio.lowlevel.current_task():
            with trio.move_on_after(7):
                async with self.lock:
                    await self.do(who, body)

    async def do_system_task(self, who: str, body: list[Action]) -> None:
        """What it raises is an internal error of Trio's."""
        context = contextvars.copy_context()
        context.run(variable.set, 1000)
        trio.lowlevel.spawn_system_task(self.task, body, context=context)


@attrs.define(eq=False)
class Watcher(trio.abc.Instrument):
    program: Program
    steps: int = 0

    def see(self, what: str, task: trio.lowlevel.Task) -> None:
        self.program.seen.append((what, task.name, self.steps))

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        self.see("is scheduled", task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.see("before", task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.see("after", task)
        self.steps += 1
        if self.steps == 3:
            trio.lowlevel.remove_instrument(self)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.see("exits", task)


class Foreign:
    """What another framework's coroutine yields."""

    def __await__(self) -> Any:
        yield "something that Trio does not know"


def shape(error: BaseException | None) -> object:
    """An exception's type and text, the frames of its traceback, its context, and what it is a group of."""
    if error is None:
        return None
    frames = [
        (Path(frame.filename).name, frame.name, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.name != "finish_step"
    ]
    inner = [shape(one) for one in getattr(error, "exceptions", ())]
    context = error.__context__
    text = re.sub("0x[0-9a-f]+", "0x", str(error))
    return type(error).__name__, text, frames, type(context).__name__, inner, getattr(error, "__notes__", 0)


def run(body: list[Action], seed: int, *, accelerate: bool) -> tuple[list[object], object]:
    """What is seen of a program, and how it ends. Trio's random number generator begins with ``seed``."""
    trio_run._r.seed(seed)
    program: Program | None = None
    backends: list[bool] = []

    async def main() -> None:
        nonlocal program
        program = Program()
        backends.append(trio.lowlevel.current_statistics().io_statistics.accelerated)
        with trio.move_on_after(100):
            await program.task(body)

    end: object = None
    try:
        trio_uring.run(
            main,
            ring=RingOptions(accelerate=accelerate),
            clock=trio.testing.MockClock(autojump_threshold=0),
        )
    except BaseException as error:
        end = shape(error)
    assert backends == [accelerate]
    assert program is not None
    return program.seen, end


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@programs_of(300)
@given(body=bodies, seed=st.integers(0, 3))
def test_a_program_is_seen_to_do_the_same(body: list[Action], seed: int) -> None:
    assert run(body, seed, accelerate=True) == run(body, seed, accelerate=False)


def test_the_programs_see_much() -> None:
    """A check of the test itself: crashes, cancellations and groups are among what is noted."""
    body: list[Action] = [
        ("try", [("nursery", [[("crash",)], [("wait_long",)]], [("sleep", 5)])]),
        ("move_on_after", 1, [("wait_long",)]),
    ]
    seen, end = run(body, 0, accelerate=True)
    text = repr(seen)
    assert end is None
    for expected in (
        "ExceptionGroup",
        "CrashError",
        "Cancelled",
        "do_crash",
        "('task 1', 'after', 1.0, 1, True)",
    ):
        assert expected in text
