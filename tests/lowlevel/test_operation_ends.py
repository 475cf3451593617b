"""Operations that are in flight when their run ends, crashes, is abandoned or forked: the kernel
is waited for, and nothing is left.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from child_process import output_of
from equivalence import Backend, every_ring, io_statistics
from in_flight import Pipe, in_flight, is_pinned

import trio_uring
from trio_uring import RingOptions, lowlevel
from trio_uring.loop import operation

if TYPE_CHECKING:
    from pathlib import Path


class CrashingClock(trio.abc.Clock):
    """Ends a run at once: no task is cancelled, none runs again."""

    crashes = False

    def start_clock(self) -> None: ...

    def current_time(self) -> float:
        return time.monotonic()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        if self.crashes:
            raise KeyError("crash")
        return deadline - time.monotonic()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of tasks that never end
@every_ring
def test_a_crashed_run_waits_for_the_kernel_and_leaves_nothing(
    backend: Backend, pipe: Pipe, same_descriptors: None
) -> None:
    buffer = bytearray(8)
    clock = CrashingClock()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(lowlevel.read, pipe.reader, buffer)
            await in_flight(10)
            clock.crashes = True

    with pytest.raises(trio.TrioInternalError):
        trio_uring.run(main, ring=backend.ring, clock=clock)
    os.write(pipe.writer, b"12345678")
    assert bytes(buffer) == bytes(8)
    assert os.read(pipe.reader, 9) == b"12345678"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of tasks that never end
@pytest.mark.parametrize("receiving", [False, True], ids=["alone", "with a receive to be waited for"])
def test_a_crash_closes_what_is_opened_meanwhile(
    tmp_path: Path, same_descriptors: None, receiving: bool
) -> None:
    """Nobody is left to hear of the descriptors."""
    clock = CrashingClock()
    started = 0
    ends = socket.socketpair()
    before = len(os.listdir("/proc/self/fd"))

    async def open_file(number: int) -> None:
        nonlocal started
        started += 1
        if started == 50:
            while len(os.listdir("/proc/self/fd")) < before + 48:
                pass
            clock.crashes = True
        # Creating is left to a worker of the kernel's.
        await lowlevel.openat(tmp_path / f"{number}", os.O_RDWR | os.O_CREAT)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            if receiving:
                nursery.start_soon(trio.socket.from_stdlib_socket(ends[0]).recv, 1)
                await in_flight(1)
            for number in range(50):
                nursery.start_soon(open_file, number)

    # With one entry, each submission sends the one before it on its way.
    with pytest.raises(trio.TrioInternalError):
        trio_uring.run(main, ring=RingOptions(entries=1, cq_entries=64), clock=clock)
    for end in ends:
        end.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of tasks that never end
def test_a_crash_closes_what_was_opened_for_a_task_that_has_not_heard_of_it(same_descriptors: None) -> None:
    class Clock(CrashingClock):
        def current_time(self) -> float:
            """Trio asks for it between the events of a tick and the tasks that they wake."""
            if self.crashes and not io_statistics().operations_in_flight:
                raise KeyError("crash")
            return time.monotonic()

        def deadline_to_sleep_time(self, deadline: float) -> float:
            return deadline - time.monotonic()

    clock = Clock()

    async def main() -> None:
        clock.crashes = True
        await lowlevel.openat("/", os.O_RDONLY)

    with pytest.raises(trio.TrioInternalError):
        trio_uring.run(main, clock=clock)


@pytest.mark.parametrize("waits", ["blocked", "yielding"])
@pytest.mark.parametrize("why", ["it was thrown away", "it did not fall asleep"])
def test_a_descriptor_whose_task_is_gone_is_closed_when_it_comes(
    why: str, waits: str, tmp_path: Path, same_descriptors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        opening = lowlevel.openat(tmp_path / "new", os.O_WRONLY | os.O_CREAT)
        if why == "it was thrown away":
            opening.send(None)
            opening.close()
        else:
            monkeypatch.setattr(operation, "sleep", interrupt)
            with pytest.raises(InterruptedError):
                await opening
            monkeypatch.undo()
        while io_statistics().operations_in_flight:
            await (trio.testing.wait_all_tasks_blocked if waits == "blocked" else trio.lowlevel.checkpoint)()
        assert (tmp_path / "new").exists()

    def interrupt(_: object) -> None:
        """As a signal handler may that raises."""
        raise InterruptedError

    trio_uring.run(main)


def test_a_system_task_may_have_an_operation_in_flight_at_the_end(pipe: Pipe, same_descriptors: None) -> None:
    buffer = bytearray(8)

    async def read() -> None:
        await lowlevel.read(pipe.reader, buffer)

    async def main() -> None:
        trio.lowlevel.spawn_system_task(read)
        await in_flight(1)

    trio_uring.run(main)
    assert not is_pinned(buffer)
    os.write(pipe.writer, b"later")
    assert os.read(pipe.reader, 9) == b"later"


ABANDON = """
import gc, os, queue, threading, warnings, trio, trio.testing, trio_uring
from trio_uring import lowlevel
warnings.simplefilter("ignore")
todo = queue.SimpleQueue()
reader, writer = os.pipe()
buffer = bytearray(8)
blocked = []
before = sorted(os.listdir("/proc/self/fd"))

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lowlevel.read, reader, buffer)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0)
        blocked.append(True)
        await trio.sleep_forever()

def start():
    trio_uring.start_guest_run(main, run_sync_soon_threadsafe=todo.put, done_callback=print)
    while not blocked:
        todo.get(timeout=30)()

def abandon():
    while not todo.empty():
        todo.get()

def collect():
    for _ in range(5):
        gc.collect()
"""


@pytest.mark.parametrize("where", ["owner", "other thread"])
def test_an_abandoned_guest_run_writes_into_no_freed_memory(where: str) -> None:
    said = output_of(
        ABANDON
        + f"""
start()
abandon()
if {where!r} == "owner":
    collect()
else:
    thread = threading.Thread(target=collect)
    thread.start()
    thread.join()
try:
    buffer.append(0)
except BufferError:
    print("pinned")
else:
    buffer.pop()
    print("free")
    os.write(writer, b"12345678")
    assert bytes(buffer) == bytes(8)
    assert os.read(reader, 9) == b"12345678"
""",
    )
    assert said in ("pinned\n", "free\n")
    print(where, said)


# Fork

FORK = """
import os, sys, warnings, trio, trio.testing, trio_uring
from trio_uring import lowlevel
warnings.simplefilter("ignore")
reader, writer = os.pipe()
buffer = bytearray(4)
child = None

async def main():
    global child
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lowlevel.read, reader, buffer)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0)
        child = os.fork()
        if child == 0:
            {leave}
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(writer, b"data")
    return status
"""


@pytest.mark.parametrize(
    "leave",
    ["os._exit(7)", "nursery.cancel_scope.cancel(); return 7", "raise SystemExit(7)"],
)
def test_after_a_fork_the_parents_operation_completes_and_the_child_does_not_hang(leave: str) -> None:
    said = output_of(
        FORK.format(leave=leave)
        + """
try:
    status = trio_uring.run(main)
except BaseException as error:
    while hasattr(error, "exceptions"):
        error, = error.exceptions
    status = error.code
if child == 0:
    os._exit(status)
print(status, bytes(buffer))
""",
        timeout=60,
    )
    assert said == "7 b'data'\n"
