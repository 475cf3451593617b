"""`run`, `install`, `uninstall`, `installed`: which run is on io_uring, what it passes on to
Trio, and that nothing of it is left afterwards."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import resource
import signal
import socket
import sys
import threading
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
import trio.testing
from child_process import run_python
from trio._core import _run as trio_run

import trio_uring
from trio_uring.loop.trio_internals import SocketType
from trio_uring.session import io_manager, replacement
from trio_uring.session.replacement import Holder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

ORIGINALS = (trio_run.TheIOManager, trio_run.setup_runner)
STREAM = dict(vars(trio.SocketStream))

both = pytest.mark.parametrize("run", [trio.run, trio_uring.run], ids=["epoll", "io_uring"])


@pytest.fixture(autouse=True)
def _trio_is_as_it_was() -> Iterator[None]:
    gc.collect()
    before = open_descriptors()
    yield
    assert (trio_run.TheIOManager, trio_run.setup_runner) == ORIGINALS
    assert dict(vars(trio.SocketStream)) == STREAM
    gc.collect()
    assert open_descriptors() == before


def open_descriptors() -> set[str]:
    """The open descriptors, each with what it is. The one that lists them is closed again."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{number}: {os.readlink(f'/proc/self/fd/{number}')}")
    return {entry for entry in found if "/proc/" not in entry}


async def backend() -> str:
    return trio.lowlevel.current_statistics().io_statistics.backend


# What a run passes on


@both
def test_run_returns_what_the_function_returns(run: Callable[..., Any]) -> None:
    async def main(*args: object) -> object:
        await trio.lowlevel.checkpoint()
        return args

    result = object()
    assert run(main, result, 2) == (result, 2)


def fails() -> None:
    raise KeyError("user's")


async def main_that_fails() -> None:
    await trio.lowlevel.checkpoint()
    fails()


def test_an_error_has_the_traceback_that_it_has_on_trio_run_but_for_our_one_frame() -> None:
    def names(run: Callable[..., object]) -> list[str]:
        with pytest.raises(KeyError, match="user's") as raised:
            run(main_that_fails)
        assert raised.value.__cause__ is None
        assert raised.value.__context__ is None
        return [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]

    on_epoll = names(trio.run)
    assert on_epoll == ["names", "run", "main_that_fails", "fails"]
    assert names(trio_uring.run) == ["names", "run", *on_epoll[1:]]


@both
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_an_exception_that_is_no_error_comes_out_as_it_is(
    run: Callable[..., Any], error: BaseException
) -> None:
    async def main() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    with pytest.raises(type(error)) as raised:
        run(main)
    assert raised.value is error


@both
@pytest.mark.parametrize(
    ("function", "message"), [(print, "Trio expected an async function"), (7, "7|callable|async")]
)
def test_what_is_no_async_function_is_trios_type_error(
    run: Callable[..., Any], function: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        run(function)


@both
def test_an_unknown_argument_is_a_type_error(run: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="clocks"):
        run(backend, clocks=None)


@both
def test_the_clock_is_passed_on(run: Callable[..., Any]) -> None:
    async def main() -> float:
        before = trio.current_time()
        await trio.sleep(1_000_000)
        return trio.current_time() - before

    assert run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == 1_000_000


@both
def test_the_instruments_are_passed_on(run: Callable[..., Any]) -> None:
    class Recorder(trio.abc.Instrument):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def before_run(self) -> None:
            self.seen.append("before_run")

        def before_io_wait(self, timeout: float) -> None:
            self.seen.append("io")

        def after_io_wait(self, timeout: float) -> None:
            self.seen.append("io")

        def after_run(self) -> None:
            self.seen.append("after_run")

    recorder = Recorder()
    run(trio.sleep, 0, instruments=[recorder])
    assert recorder.seen[0] == "before_run"
    assert recorder.seen[-1] == "after_run"
    assert recorder.seen.count("io") >= 2


@both
@pytest.mark.parametrize("strict", [True, False])
def test_strict_exception_groups_is_passed_on(run: Callable[..., Any], strict: bool) -> None:
    async def main() -> None:
        async with trio.open_nursery():
            raise KeyError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trio.TrioDeprecationWarning)
        with pytest.raises(BaseException) as raised:  # noqa: PT011
            run(main, strict_exception_groups=strict)
    assert isinstance(raised.value, KeyError) is not strict


@both
@pytest.mark.parametrize("restrict", [True, False])
def test_keyboard_interrupts_are_restricted_to_checkpoints_when_asked(
    run: Callable[..., Any], restrict: bool
) -> None:
    seen: list[str] = []

    async def main() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            seen.append("went on")
        except KeyboardInterrupt:
            seen.append("at once")
        else:
            with pytest.raises(KeyboardInterrupt):
                await trio.lowlevel.checkpoint()

    run(main, restrict_keyboard_interrupt_to_checkpoints=restrict)
    assert seen == ["went on" if restrict else "at once"]


# The statistics


def test_the_statistics_tell_the_truth() -> None:
    async def main() -> None:
        def now() -> trio_uring.UringStatistics:
            statistics = trio.lowlevel.current_statistics().io_statistics
            assert isinstance(statistics, trio_uring.UringStatistics)
            return statistics

        left, right = socket.socketpair()
        left.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                left.send(b"x" * 65536)
        with left, right:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.wait_readable, left)
                nursery.start_soon(trio.lowlevel.wait_writable, left)
                await trio.testing.wait_all_tasks_blocked()
                waiting = now()
                assert waiting.backend == "io_uring"
                assert (waiting.tasks_waiting_read, waiting.tasks_waiting_write) == (2, 1)
                assert waiting.operations_in_flight == 2
                for _ in range(1000):
                    await trio.lowlevel.checkpoint()
                idle = now()
                assert idle.entered - waiting.entered <= 1
                assert 999 <= idle.skipped - waiting.skipped <= 1000
                nursery.cancel_scope.cancel()
            assert (now().tasks_waiting_read, now().tasks_waiting_write) == (1, 0)
            assert now().operations_in_flight == 0
            assert now().entered > idle.entered

    trio_uring.run(main)


# Runs inside and beside each other


def test_a_run_inside_a_run_is_trios_error_and_disturbs_neither_this_run_nor_the_next() -> None:
    async def main() -> str:
        for ring in (None, trio_uring.RingOptions(entries=8)):
            with pytest.raises(RuntimeError, match=r"Attempted to call run\(\) from inside a run\(\)"):
                trio_uring.run(backend, ring=ring)
        with trio.move_on_after(0.001):
            await trio.sleep_forever()
        await trio.to_thread.run_sync(lambda: None)
        return await backend()

    assert trio_uring.run(main) == "io_uring"
    assert trio.run(main) == "epoll"
    assert trio.run(backend) == "epoll"


def test_a_request_that_comes_to_nothing_is_not_the_next_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread's run keeps Trio's names replaced meanwhile."""

    def instruments_that_fail() -> Iterator[trio.abc.Instrument]:
        raise KeyError
        yield

    async def fail_to_start() -> None:
        def in_thread() -> str:
            with pytest.raises(KeyError):
                trio_uring.run(backend, instruments=instruments_that_fail())  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                trio_uring.run(backend, clocks=None)  # type: ignore[call-arg]
            with monkeypatch.context() as patch:
                patch.setattr(trio_uring.session.runs, "check_trio", instruments_that_fail().__next__)
                with pytest.raises(KeyError):
                    trio_uring.run(backend)
            return trio.run(backend)

        assert await trio.to_thread.run_sync(in_thread) == "epoll"

    trio_uring.run(fail_to_start)


def test_a_run_that_is_being_set_up_while_another_thread_installs_is_on_epoll_as_a_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trio looks ``setup_runner`` up before that, and ``TheIOManager`` after."""
    clock = trio_run.SystemClock

    def install_elsewhere() -> object:
        with ThreadPoolExecutor() as pool:
            pool.submit(trio_uring.install).result()
        return clock()

    monkeypatch.setattr(trio_run, "SystemClock", install_elsewhere)
    try:
        assert trio.run(backend) == "epoll"
        assert trio.run(backend) == "io_uring"
    finally:
        trio_uring.uninstall()


class InterruptedDict(dict[int, int]):
    """Ctrl-C arrives once: just before a holder comes, or just after the last one has gone,
    which is the run's caller's. (The manager's own is protected.)"""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = at

    def __setitem__(self, number: int, thread: int) -> None:
        self.interrupt("coming")
        super().__setitem__(number, thread)

    def pop(self, *arguments: Any) -> Any:
        found = super().pop(*arguments)
        if not self:
            self.interrupt("leaving")
        return found

    def interrupt(self, where: str) -> None:
        if where == self.at:
            self.at = ""
            raise KeyboardInterrupt


@pytest.mark.parametrize("at", ["coming", "leaving"])
def test_an_interrupt_while_names_are_replaced_leaves_later_runs_alone(
    monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    monkeypatch.setattr(io_manager.names, "_holders", InterruptedDict(at))
    with pytest.raises(KeyboardInterrupt):
        trio_uring.run(trio.sleep, 0)
    assert trio.run(backend) == "epoll"
    assert trio_uring.run(backend) == "io_uring"
    assert trio.run(backend) == "epoll"


def test_a_holder_that_is_collected_at_any_line_of_anothers_release_disturbs_nothing() -> None:
    left = 0

    def in_frame(frame: Any, event: str, _: object) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if not left:
                sys.settrace(None)
                Holder(io_manager.names, 0, frozenset()).release()  # as its finaliser does
        return in_frame

    def in_any(frame: Any, *_: object) -> Any:
        return in_frame if frame.f_code.co_filename == replacement.__file__ else None

    for number in itertools.count(1):
        holder = io_manager.names.acquire()
        left = number
        before = sys.gettrace()
        sys.settrace(in_any)
        try:
            holder.release()
        finally:
            sys.settrace(before)
        assert "_uring_excluded" not in vars(SocketType)
        if left > 0:  # it has no such line
            break
    assert number > 100


def test_threads_run_on_what_each_asks_for() -> None:
    barrier = threading.Barrier(6)

    def in_thread(number: int) -> None:
        run, expected = [(trio.run, "epoll"), (trio_uring.run, "io_uring")][number % 2]

        async def main() -> None:
            assert await backend() == expected
            await trio.to_thread.run_sync(barrier.wait)
            left, right = trio.socket.socketpair()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(left.send, b"x")
                assert await right.recv(1) == b"x"
            left.close()
            right.close()

        for _ in range(20):
            run(main)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(in_thread, range(6)))


def test_a_plain_run_beside_ours_in_another_thread_is_on_epoll_and_the_other_way_round() -> None:
    async def beside(run: Callable[..., str]) -> tuple[str, str]:
        return await backend(), await trio.to_thread.run_sync(run, backend)

    assert trio_uring.run(beside, trio.run) == ("io_uring", "epoll")
    assert trio.run(beside, trio_uring.run) == ("epoll", "io_uring")


# What is left after a run


async def crash() -> None:
    await trio.lowlevel.checkpoint()
    trio_run.GLOBAL_RUN_CONTEXT.runner.runq.append("not a task")  # type: ignore[arg-type]
    await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)


async def cancel_main() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await trio.sleep_forever()


async def waits_and_ends_by(error: BaseException) -> None:
    left, right = socket.socketpair()
    with left, right:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.wait_readable, left)
            await trio.testing.wait_all_tasks_blocked()
            raise error


# On epoll, too, a crashed run's tasks are left to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("main", "ends_in"),
    [
        (backend, None),
        (cancel_main, None),
        (crash, trio.TrioInternalError),
        (lambda: waits_and_ends_by(KeyError()), BaseException),
        (lambda: waits_and_ends_by(KeyboardInterrupt()), BaseException),
        (lambda: waits_and_ends_by(SystemExit()), BaseException),
    ],
    ids=["returns", "cancelled", "crashes", "KeyError", "KeyboardInterrupt", "SystemExit"],
)
def test_fifty_runs_leave_no_descriptor(
    main: Callable[[], Awaitable[object]], ends_in: type[BaseException] | None
) -> None:
    before = open_descriptors()
    for _ in range(50):
        with pytest.raises(ends_in) if ends_in else contextlib.nullcontext():
            trio_uring.run(main)
    gc.collect()
    assert open_descriptors() == before


# On epoll, too, a crashed run's tasks are left to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("crashes", [False, True], ids=["returns", "crashes"])
def test_runs_that_receive_leave_no_memory_mapped(crashes: bool) -> None:
    """Nor does a receive that is pending at the end keep the buffers that it may be written to."""
    ring = trio_uring.RingOptions(buffers=1024, buffer_size=65536)
    left, right = socket.socketpair()

    async def main() -> None:
        sock = trio.socket.from_stdlib_socket(left.dup())
        right.send(b"x")
        assert await sock.recv(1) == b"x"
        if crashes:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sock.recv, 1)
                await trio.testing.wait_all_tasks_blocked()
                await crash()
        sock.close()

    before = mapped()
    for _ in range(5):
        with pytest.raises(trio.TrioInternalError) if crashes else contextlib.nullcontext():
            trio_uring.run(main, ring=ring)
        gc.collect()
    assert mapped() - before < 2 * ring.buffers * ring.buffer_size
    left.close()
    right.close()


def mapped() -> int:
    """Bytes of memory that are mapped, whether used or not."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def test_a_run_that_trio_cannot_set_up_leaves_nothing_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socketpair() -> None:
        raise OSError("no socket pair")

    before = open_descriptors()
    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socketpair", no_socketpair)
            with pytest.raises(OSError, match="no socket pair"):
                trio_uring.run(backend)
        assert (trio_run.TheIOManager, trio_run.setup_runner) == ORIGINALS
    gc.collect()
    assert open_descriptors() == before


# install, uninstall, installed


def flags() -> tuple[str, ...]:
    async def main() -> tuple[str, ...]:
        return trio.lowlevel.current_statistics().io_statistics.flags

    return trio.run(main)


def without(name: str) -> trio_uring.RingOptions:
    return trio_uring.RingOptions(features={name: False})


@pytest.fixture
def _uninstalled_afterwards() -> Iterator[None]:
    yield
    trio_uring.uninstall()


@pytest.mark.usefixtures("_uninstalled_afterwards")
class TestInstall:
    def test_every_later_run_is_on_io_uring_also_another_librarys(self) -> None:
        trio_uring.install()
        assert trio.run(backend) == "io_uring"
        assert anyio.run(backend, backend="trio") == "io_uring"
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(trio.run, backend).result() == "io_uring"
        trio_uring.uninstall()
        assert trio.run(backend) == "epoll"
        assert anyio.run(backend, backend="trio") == "epoll"

    def test_installing_twice_replaces_the_options_and_one_uninstall_undoes_it(self) -> None:
        trio_uring.install(without("cqsize"))
        assert "cqsize" not in flags()
        trio_uring.install(without("r_disabled"))
        assert "cqsize" in flags()
        assert "r_disabled" not in flags()
        trio_uring.uninstall()
        assert trio.run(backend) == "epoll"

    def test_uninstall_without_install_does_nothing(self) -> None:
        trio_uring.uninstall()
        trio_uring.uninstall()
        assert trio.run(backend) == "epoll"
        assert trio_uring.run(backend) == "io_uring"

    def test_run_uses_the_installed_options_unless_it_has_its_own(self) -> None:
        async def main() -> tuple[str, ...]:
            return trio.lowlevel.current_statistics().io_statistics.flags

        trio_uring.install(without("cqsize"))
        assert "cqsize" not in trio_uring.run(main)
        assert "cqsize" in trio_uring.run(main, ring=trio_uring.RingOptions())
        assert "cqsize" not in flags()

    def test_installed_nests_and_restores_what_was_before_also_after_an_error(self) -> None:
        with trio_uring.installed(without("cqsize")):
            with contextlib.suppress(KeyError), trio_uring.installed(without("r_disabled")):
                assert "r_disabled" not in flags()
                assert "cqsize" in flags()
                raise KeyError
            assert "r_disabled" in flags()
            assert "cqsize" not in flags()
        assert trio.run(backend) == "epoll"

    def test_installed_is_a_decorator_too(self) -> None:
        @trio_uring.installed()
        def program() -> str:
            return trio.run(backend)

        assert program() == program() == "io_uring"
        assert trio.run(backend) == "epoll"

    def test_a_run_during_which_it_is_uninstalled_finishes_on_io_uring(self) -> None:
        async def main() -> str:
            trio_uring.uninstall()
            assert await trio.to_thread.run_sync(trio.run, backend) == "epoll"
            with trio.move_on_after(0.001):
                await trio.sleep_forever()
            return await backend()

        trio_uring.install()
        assert trio.run(main) == "io_uring"
        assert trio.run(backend) == "epoll"

    def test_a_run_during_which_it_is_installed_finishes_on_epoll(self) -> None:
        async def main() -> str:
            trio_uring.install()
            assert await trio.to_thread.run_sync(trio.run, backend) == "io_uring"
            with trio.move_on_after(0.001):
                await trio.sleep_forever()
            return await backend()

        assert trio.run(main) == "epoll"
        assert trio.run(backend) == "io_uring"

    def test_refused_options_leave_installed_what_was(self) -> None:
        trio_uring.install(without("cqsize"))
        with pytest.raises(TypeError):
            trio_uring.install("epoll")  # type: ignore[arg-type]
        assert "cqsize" not in flags()


# Ctrl-C, to a process of its own

INTERRUPTED = """
import os, signal, socket, sys, threading, time, trio, trio_uring

async def blocked():
    left, right = socket.socketpair()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.wait_readable, left)
            await trio.testing.wait_all_tasks_blocked()
            interrupt()
            await trio.lowlevel.wait_readable(right)
    finally:
        print("cleaned up")

async def asleep():
    try:
        interrupt()
        await trio.sleep_forever()
    finally:
        print("cleaned up")

async def computing():
    await trio.lowlevel.checkpoint()
    try:
        interrupt()
        while True:
            pass
    finally:
        print("cleaned up")

class WhenItSleeps(trio.abc.Instrument):
    armed = False
    def before_io_wait(self, timeout):
        if self.armed and timeout > 1:
            self.armed = False
            process.stdin.close()

def interrupt():
    # From another process, once this one is in its blocking wait or computes.
    if sys.argv[2] == "computing":
        process.stdin.close()
    else:
        instrument.armed = True

import subprocess, trio.testing
process = subprocess.Popen(
    ["sh", "-c", f"read line; kill -INT {os.getpid()}"], stdin=subprocess.PIPE, start_new_session=True
)
instrument = WhenItSleeps()
run = {"epoll": trio.run, "io_uring": trio_uring.run}[sys.argv[1]]
try:
    run(globals()[sys.argv[2]], instruments=[instrument])
except BaseException as error:
    while isinstance(error, BaseExceptionGroup):
        print(type(error).__name__)
        [error] = error.exceptions
    print(type(error).__name__)
    process.wait()
    raise
"""


@pytest.mark.parametrize("when", ["blocked", "asleep", "computing"])
def test_ctrl_c_ends_a_run_as_on_epoll(when: str) -> None:
    def ends(on: str) -> tuple[int, str, str]:
        program = f"import sys; sys.argv = ['', {on!r}, {when!r}]\n" + INTERRUPTED
        if not hasattr(__builtins__, "BaseExceptionGroup"):
            program = "try: BaseExceptionGroup\nexcept NameError: from exceptiongroup import *\n" + program
        done = run_python(program)
        return done.returncode, done.stdout, done.stderr.splitlines()[-1]

    on_epoll = ends("epoll")
    assert on_epoll[0] in (-signal.SIGINT, 1)  # 1: in a group
    assert on_epoll[1].startswith("cleaned up")
    assert on_epoll[1].endswith("KeyboardInterrupt\n")
    assert ends("io_uring") == on_epoll
