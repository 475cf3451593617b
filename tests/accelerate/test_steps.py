"""What a program can see of the steps of its tasks is the same with `RingOptions.accelerate` as without."""

from __future__ import annotations

import contextvars
import gc
import logging
import signal
import sys
import threading
import traceback
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import outcome
import pytest
import trio
import trio.testing
from trio._core import _run as trio_run

import trio_uring
from trio_uring import RingOptions
from trio_uring.accelerate import known

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

FAST = RingOptions(accelerate=True)
SLOW = RingOptions(accelerate=False)
ORIGINALS = {
    (owner, name): vars(owner)[name]
    for owner, name in (
        (trio_run, "unrolled_run"),
        (trio_run.CancelScope, "_might_change_registered_deadline"),
        (trio_run.CancelStatus, "__attrs_post_init__"),
    )
}
both = pytest.mark.parametrize("ring", [FAST, SLOW], ids=["by C", "by Trio"])


@pytest.fixture(autouse=True)
def _trio_is_given_back() -> Iterator[None]:
    yield
    assert {(owner, name): vars(owner)[name] for owner, name in ORIGINALS} == ORIGINALS


async def accelerated() -> bool:
    return trio.lowlevel.current_statistics().io_statistics.accelerated


def same(async_fn: Callable[[], Awaitable[object]], **arguments: Any) -> object:
    """What a program returns, which is the same however its steps are made."""
    trio_run._r.seed(0)
    slow = trio_uring.run(async_fn, ring=SLOW, **arguments)
    trio_run._r.seed(0)
    assert trio_uring.run(async_fn, ring=FAST, **arguments) == slow
    return slow


# Who has it


def test_only_who_asks_for_it_has_it() -> None:
    assert trio_uring.run(accelerated, ring=FAST)
    assert not trio_uring.run(accelerated, ring=SLOW)
    assert not trio_uring.run(accelerated)
    with trio_uring.installed(FAST):
        assert trio.run(accelerated)


def test_a_run_beside_it_that_has_not_asked_makes_its_steps_as_trio_does() -> None:
    async def main() -> tuple[bool, bool]:
        return await accelerated(), await trio.to_thread.run_sync(trio_uring.run, accelerated)

    assert trio_uring.run(main, ring=FAST) == (True, False)


def test_a_guest_run_has_not_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    import asyncio

    async def host() -> object:
        done = asyncio.get_running_loop().create_future()
        trio_uring.start_guest_run(
            accelerated,
            ring=FAST,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=done.set_result,
        )
        return (await done).unwrap()

    with caplog.at_level(logging.WARNING, "trio_uring"):
        assert asyncio.run(host()) is False
    assert (
        "accelerate has no effect, Trio makes the steps of tasks itself: this is a guest run" in caplog.text
    )


def test_a_trio_that_is_not_known_keeps_its_own_and_all_say_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(known, "KNOWN", {"0.28.0": "another text"})
    with caplog.at_level(logging.WARNING, "trio_uring"):
        assert not trio_uring.run(accelerated, ring=FAST)
    why = f"Trio {trio.__version__} is not one of those that are known (0.28.0), or was changed"
    assert why in caplog.text
    found = trio_uring.capabilities()
    assert (found.accelerated, found.not_accelerated) == (False, why)


def test_a_trio_without_its_source_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_digest", lambda: None)
    assert not trio_uring.run(accelerated, ring=FAST)
    assert "is not at hand" in trio_uring.capabilities().not_accelerated


def test_somebodys_reschedule_is_called_for_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    original = trio_run.Runner.reschedule
    calls: list[object] = []

    def reschedule(self: Any, task: Any, *args: Any) -> None:
        calls.append(task)
        original(self, task, *args)

    monkeypatch.setattr(trio_run.Runner, "reschedule", reschedule)
    assert not trio_uring.run(accelerated, ring=FAST)
    assert calls


def test_somebodys_loop_is_called_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def unrolled_run(*args: Any, **kwargs: Any) -> Any:
        calls.append("called")
        return ORIGINALS[trio_run, "unrolled_run"](*args, **kwargs)

    async def main() -> tuple[bool, tuple[str, ...]]:
        return await accelerated(), trio.lowlevel.current_statistics().io_statistics.wrapped

    calls: list[str] = []
    monkeypatch.setattr(trio_run, "unrolled_run", unrolled_run)
    assert trio_uring.run(main, ring=FAST) == (False, ("trio._core._run.unrolled_run",))
    assert calls == ["called"]
    assert trio_run.unrolled_run is unrolled_run  # type: ignore[comparison-overlap]
    monkeypatch.undo()


@pytest.mark.parametrize("command", ["--accelerate", "TRIO_URING_ACCELERATE"])
def test_a_program_is_given_it_from_outside(command: str) -> None:
    from child_process import run_python

    program = (
        "import trio\n"
        "async def main():\n"
        "    print(trio.lowlevel.current_statistics().io_statistics.accelerated)\n"
        "trio.run(main)"
    )
    before = f"import os; os.environ['{command}'] = '1'; command = []"
    if command.startswith("--"):
        before = f"command = ['{command}']"
    answer = run_python(
        f"{before}\nimport subprocess, sys\nprogram = {program!r}\n"
        "subprocess.run([sys.executable, '-m', 'trio_uring', *command, '-c', program], check=True)"
    )
    assert answer.stdout.split() == ["True"]


# What the steps show


@pytest.mark.parametrize("value", [None, (1, 2), (), ValueError("a value"), StopIteration(3)], ids=repr)
def test_whatever_a_task_returns_is_returned(value: object) -> None:
    async def main() -> object:
        await trio.lowlevel.checkpoint()
        return value

    assert trio_uring.run(main, ring=FAST) is value


def test_an_exception_keeps_its_context_in_a_run_that_is_made_while_another_is_handled() -> None:
    async def child() -> None:
        await trio.lowlevel.checkpoint()
        try:
            raise IndexError
        except IndexError:
            raise ValueError from None

    async def main() -> list[type]:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
        except BaseExceptionGroup as group:
            return [type(error.__context__) for error in group.exceptions]
        return []

    try:
        raise KeyError
    except KeyError:
        assert same(main) == [IndexError]


class Shim:
    """What greenback puts in the place of a task's coroutine."""

    def __init__(self, coroutine: Any, sent: list[str]) -> None:
        self.coroutine = coroutine
        self.sent = sent

    def send(self, value: object) -> object:
        self.sent.append("sent")
        return self.coroutine.send(value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.coroutine, name)


@pytest.mark.parametrize(
    "then", [trio.lowlevel.checkpoint, lambda: trio.sleep(0.001)], ids=["yield", "sleep"]
)
def test_a_task_may_get_another_coroutine_in_its_step(then: Callable[[], Awaitable[None]]) -> None:
    async def main() -> list[str]:
        sent: list[str] = []
        await trio.lowlevel.checkpoint()
        task = trio.lowlevel.current_task()
        original, task.coro = task.coro, Shim(task.coro, sent)  # type: ignore[assignment]
        await then()
        await then()
        task.coro = original
        await then()
        return sent

    assert same(main) == ["sent", "sent"]


class Recorder(trio.abc.Instrument):
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.seen.append(("spawned", task.name))

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        self.seen.append(("scheduled", task.name))

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.seen.append(("before", task.name))

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.seen.append(("after", task.name))

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.seen.append(("exited", task.name))


@pytest.mark.parametrize("ends", ["returns", "raises", "yields", "sleeps"])
def test_an_instrument_that_comes_and_goes_within_a_step_sees_the_same(ends: str) -> None:
    recorder = Recorder()

    async def child() -> None:
        await trio.lowlevel.checkpoint()
        trio.lowlevel.add_instrument(recorder)
        if ends == "raises":
            raise ValueError
        if ends == "yields":
            await trio.lowlevel.checkpoint()
        if ends == "sleeps":
            await trio.sleep(0.001)

    async def main() -> list[tuple[str, str]]:
        recorder.seen.clear()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
                nursery.start_soon(trio.lowlevel.checkpoint)
        except BaseExceptionGroup:
            pass
        await trio.lowlevel.checkpoint()
        trio.lowlevel.remove_instrument(recorder)
        await trio.lowlevel.checkpoint()
        return [one for one in recorder.seen if "init" not in one[1] and "SystemTask" not in one[1]]

    assert ("after", f"{__name__}.{child.__qualname__}") in same(main)  # type: ignore[operator]


def test_a_task_that_is_rescheduled_in_its_step_sleeps_not_and_an_instrument_may_come_then() -> None:
    async def main() -> list[object]:
        recorder = Recorder()
        woken: list[object] = []
        for instruments in ([], [recorder]):
            await trio.lowlevel.checkpoint()
            for instrument in instruments:
                trio.lowlevel.add_instrument(instrument)
            trio.lowlevel.reschedule(trio.lowlevel.current_task(), outcome.Value("woken"))
            woken.append(await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED))
        return woken

    assert same(main) == ["woken", "woken"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_task_that_is_rescheduled_in_its_step_must_not_yield() -> None:
    async def main() -> None:
        await trio.lowlevel.checkpoint()
        trio.lowlevel.reschedule(trio.lowlevel.current_task())
        await trio.lowlevel.cancel_shielded_checkpoint()

    for ring in (SLOW, FAST):
        with pytest.raises(trio.TrioInternalError) as caught:
            trio_uring.run(main, ring=ring)
        where = traceback.extract_tb(caught.value.__cause__.__traceback__)[-1]  # type: ignore[union-attr]
        assert (type(caught.value.__cause__), where.name) == (AssertionError, "reschedule")
        del caught
        gc.collect()  # what the crash has left


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["coro", "context", "_schedule_points", "runq"])
def test_what_is_deleted_of_a_task_or_its_runner_is_an_error_and_no_crash(name: str) -> None:
    from child_process import run_python

    program = (
        "import trio, trio_uring\n"
        "async def main():\n"
        "    await trio.lowlevel.checkpoint()\n"
        "    task = trio.lowlevel.current_task()\n"
        f"    delattr(task._runner if {name!r} == 'runq' else task, {name!r})\n"
        "    await trio.lowlevel.cancel_shielded_checkpoint()\n"
        "try:\n"
        "    trio_uring.run(main, ring=trio_uring.RingOptions(accelerate=True))\n"
        "except (trio.TrioInternalError, AttributeError):\n"
        "    print('an error', flush=True)\n"
    )
    assert "an error" in run_python(program).stdout


def frames() -> list[str]:
    frame: Any = sys._getframe(1)
    found = []
    while frame is not None and frame.f_code.co_name != "run":
        found.append(f"{frame.f_code.co_filename}:{frame.f_code.co_name}:{frame.f_lineno}")
        frame = frame.f_back
    return found


def test_a_task_is_called_by_trios_loop_and_by_nothing_else() -> None:
    async def main() -> list[str]:
        await trio.lowlevel.checkpoint()
        return frames()

    seen = same(main)
    assert isinstance(seen, list)
    assert seen[-1].startswith(f"{trio_run.__file__}:unrolled_run:")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_error_of_trios_own_comes_by_the_same_frames_with_their_source() -> None:
    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.lowlevel.wait_task_rescheduled(lambda _: None)  # type: ignore[arg-type, return-value]

    shown = []
    for ring in (SLOW, FAST):
        with pytest.raises(trio.TrioInternalError, match="abort function must return Abort enum") as caught:
            trio_uring.run(main, ring=ring)
        frames = traceback.extract_tb(caught.value.__traceback__)
        shown.append([frame.name for frame in frames if frame.filename == trio_run.__file__ and frame.line])
        del caught
        gc.collect()  # what the crash has left
    assert shown[0] == shown[1]
    assert shown[0][-3:] == ["unrolled_run", "_attempt_delivery_of_any_pending_cancel", "_attempt_abort"]


def test_context_variables_are_those_of_the_task() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")

    async def child(name: str) -> list[str]:
        seen = [variable.get()]
        variable.set(name)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            seen.append(variable.get())
        everything.append((name, seen))
        return seen

    everything: list[tuple[str, list[str]]] = []

    async def main() -> object:
        everything.clear()
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(child, name)
        return sorted(everything), variable.get()

    assert same(main) == ([(name, ["outside", *3 * name]) for name in "abc"], "outside")
    assert variable.get() == "outside"


@both
def test_ctrl_c_in_a_task_raises_there(ring: RingOptions) -> None:
    async def main() -> None:
        await trio.lowlevel.checkpoint()
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it goes on")

    with pytest.raises(KeyboardInterrupt):
        trio_uring.run(main, ring=ring)


@both
def test_ctrl_c_in_protected_code_is_delivered_to_the_main_task_at_a_checkpoint(ring: RingOptions) -> None:
    seen: list[str] = []

    @trio.lowlevel.enable_ki_protection
    async def child() -> None:
        await trio.lowlevel.checkpoint()
        signal.raise_signal(signal.SIGINT)
        seen.append("goes on")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            try:
                await trio.sleep_forever()
            except KeyboardInterrupt:
                seen.append("main")
                raise

    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)):
        trio_uring.run(main, ring=ring)
    assert seen == ["goes on", "main"]


@both
def test_ctrl_c_that_has_come_before_is_delivered_when_the_main_task_sleeps(ring: RingOptions) -> None:
    @trio.lowlevel.enable_ki_protection
    async def main() -> None:
        signal.raise_signal(signal.SIGINT)
        for _ in range(5):  # the run has tried to deliver it by then
            await trio.lowlevel.cancel_shielded_checkpoint()
        with trio.move_on_after(5), pytest.raises(KeyboardInterrupt):
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)

    try:
        trio_uring.run(main, ring=ring)
    except KeyboardInterrupt:
        pytest.fail("it came at the end of the run only")


@both
def test_a_signals_handler_runs_while_tasks_only_yield(ring: RingOptions) -> None:
    async def main() -> None:
        while not handled:
            await trio.lowlevel.cancel_shielded_checkpoint()

    handled: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: handled.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        trio_uring.run(main, ring=ring)
    finally:
        signal.signal(signal.SIGALRM, before)


@both
def test_a_thread_gets_its_turn_while_tasks_only_yield(ring: RingOptions) -> None:
    async def main() -> None:
        thread.start()
        while not done:
            await trio.lowlevel.cancel_shielded_checkpoint()

    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(1))
    trio_uring.run(main, ring=ring)
    thread.join()


# What is left of a step


class Local:
    pass


def test_what_a_task_had_is_gone_when_it_is_over() -> None:
    references: list[weakref.ref[Local]] = []

    async def child(ends: str) -> Local | None:
        local = Local()
        references.append(weakref.ref(local))
        await trio.lowlevel.checkpoint()
        if ends == "raises":
            raise ValueError
        return local

    async def main() -> list[bool]:
        references.clear()
        for ends in ("returns", "raises"):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(child, ends)
            except BaseExceptionGroup:
                pass
        await trio.lowlevel.checkpoint()
        return [reference() is None for reference in references]

    gc.collect()
    with mock.patch.object(gc, "isenabled"):
        gc.disable()
        try:
            assert same(main) == [True, True]
        finally:
            gc.enable()


def test_steps_leave_no_references_behind() -> None:
    async def child() -> None:
        for _ in range(100):
            await trio.lowlevel.checkpoint()
            await trio.sleep(0)
            with trio.move_on_after(0):
                await trio.sleep_forever()

    async def main() -> int:
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(child)
        gc.collect()
        before = [sys.getrefcount(one) for one in shared]
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(child)
        gc.collect()
        return max(abs(sys.getrefcount(one) - count) for one, count in zip(shared, before, strict=True))

    from trio._core import _traps

    from trio_uring.loop.checkpoints import READY

    shared = [
        READY,
        _traps.CancelShieldedCheckpoint,
        _traps.WaitTaskRescheduled,
        trio_run.Task,
        child.__code__,
    ]
    assert trio_uring.run(main, ring=FAST) < 20  # of 1,500 steps of each kind


# Who looks on


Seen = list[tuple[object, ...]]


@contextmanager
def traced(seen: Seen) -> Iterator[None]:
    def trace(frame: Any, event: str, _: object) -> Any:
        if frame.f_code.co_filename != __file__:
            return None
        seen.append((event, frame.f_code.co_name, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@contextmanager
def profiled(seen: Seen) -> Iterator[None]:
    def profile(frame: Any, event: str, _: object) -> None:
        if frame.f_code.co_filename == __file__:
            seen.append((event, frame.f_code.co_name, frame.f_lineno))

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


@contextmanager
def monitored(seen: Seen) -> Iterator[None]:
    monitoring: Any = getattr(sys, "monitoring", None)
    if monitoring is None:
        pytest.skip("sys.monitoring came with CPython 3.12")
    events = monitoring.events
    watched = {
        name: getattr(events, name)
        for name in ("PY_START", "PY_RESUME", "PY_RETURN", "PY_YIELD", "PY_UNWIND", "PY_THROW", "RAISE")
    }

    def watch(name: str) -> Callable[..., None]:
        def see(code: Any, *_: object) -> None:
            if code.co_filename == __file__:
                seen.append((name, code.co_name))

        return see

    monitoring.use_tool_id(monitoring.PROFILER_ID, __name__)
    for name, event in watched.items():
        monitoring.register_callback(monitoring.PROFILER_ID, event, watch(name))
    monitoring.set_events(monitoring.PROFILER_ID, sum(watched.values()))
    try:
        yield
    finally:
        monitoring.set_events(monitoring.PROFILER_ID, 0)
        monitoring.free_tool_id(monitoring.PROFILER_ID)


@pytest.mark.parametrize("watched", [traced, profiled, monitored])
def test_who_looks_on_sees_the_same_of_a_program(watched: Callable[[Seen], Any]) -> None:
    async def child() -> None:
        await trio.lowlevel.checkpoint()
        with trio.CancelScope(), trio.move_on_after(0):
            await trio.sleep(1)
        raise ValueError

    async def main() -> Seen:
        seen: Seen = []
        with watched(seen):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(child)
                    nursery.start_soon(trio.sleep, 0)
            except BaseExceptionGroup:
                pass
        return seen

    seen = same(main)
    assert isinstance(seen, list)
    assert len({one[1] for one in seen}) > 1


def test_a_collection_at_each_allocation_changes_nothing() -> None:
    async def main() -> int:
        threshold = gc.get_threshold()
        gc.set_threshold(1)
        try:
            return await work()
        finally:
            gc.set_threshold(*threshold)

    async def work() -> int:
        send, receive = trio.open_memory_channel[int](0)
        total = 0

        async def produce() -> None:
            async with send:
                for number in range(20):
                    await send.send(number)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            with trio.move_on_after(60):
                async for number in receive:
                    total += number
        return total

    assert same(main) == sum(range(20))
