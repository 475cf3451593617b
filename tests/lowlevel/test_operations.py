"""Operations of callers: cancelled, interrupted by signals, and with their descriptor closed;
what was read or written is never dropped.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from equivalence import Backend, every_backend, every_ring, io_statistics, signals_as_runs_end
from in_flight import Pipe, in_flight, is_pinned

import trio_uring
from trio_uring import RingOptions, lowlevel
from trio_uring.loop.current import current_run
from trio_uring.loop.operation import perform

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType


# Cancellation


@every_ring
def test_a_cancelled_read_has_consumed_nothing(backend: Backend, pipe: Pipe) -> None:
    async def main() -> None:
        buffer = bytearray(8)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lowlevel.read, pipe.reader, buffer)
                await in_flight(1)
                scope.cancel()
        assert scope.cancelled_caught
        os.write(pipe.writer, b"later")
        assert bytes(buffer) == bytes(8)
        assert os.read(pipe.reader, 100) == b"later"

    backend.run(main)


@every_ring
def test_a_cancelled_write_has_written_nothing(backend: Backend, pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(pipe.writer, bytes(4096))
    os.set_blocking(pipe.writer, True)

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lowlevel.write, pipe.writer, b"never")
                await in_flight(1)
                scope.cancel()
        assert scope.cancelled_caught
        os.set_blocking(pipe.reader, False)
        assert os.read(pipe.reader, filled + 100) == bytes(filled)

    backend.run(main)


@every_ring
def test_a_result_that_arrived_before_the_cancel_is_returned(backend: Backend, pipe: Pipe) -> None:
    async def main() -> None:
        buffer = bytearray(8)
        results: list[int] = []

        async def read(scope: trio.CancelScope) -> None:
            with scope:
                results.append(await lowlevel.read(pipe.reader, buffer))

        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, scope)
            await in_flight(1)
            os.write(pipe.writer, b"data")
            scope.cancel()
        if results:
            assert results == [4]
            assert bytes(buffer[:4]) == b"data"
            assert pipe.rest() == b""
        else:
            assert pipe.rest() == b"data"

    backend.run(main)


@every_ring
def test_an_operation_that_is_cancelled_before_it_was_submitted_is_no_system_call(
    backend: Backend, pipe: Pipe
) -> None:
    os.write(pipe.writer, b"stays")

    async def main() -> None:
        buffer = bytearray(8)
        for deadline in (math.inf, -math.inf):
            before = io_statistics().entered
            with trio.CancelScope(deadline=deadline) as scope:
                if deadline > 0:
                    scope.cancel()
                await lowlevel.read(pipe.reader, buffer)
            assert scope.cancelled_caught
            assert io_statistics().entered - before == 0
            assert io_statistics().operations_in_flight == 0
            assert not is_pinned(buffer)
        assert os.read(pipe.reader, 9) == b"stays"

    backend.run(main)


@every_ring
def test_an_operation_that_the_kernel_has_not_seen_is_taken_back(backend: Backend, pipe: Pipe) -> None:
    """A ring of one entry has to submit the first to take the second."""
    os.write(pipe.writer, b"stays")

    async def main() -> None:
        buffer = bytearray(8)
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                await lowlevel.read(pipe.reader, buffer)

            async def cancel() -> None:
                nursery.cancel_scope.cancel()

            # Both run in one tick, in either order: the read is withdrawn or never begun.
            nursery.start_soon(read)
            nursery.start_soon(cancel)
        assert not is_pinned(buffer)
        assert io_statistics().operations_in_flight == 0
        assert bytes(buffer) == bytes(8)
        assert os.read(pipe.reader, 9) == b"stays"

    for _ in range(20):
        backend.run(main)
        os.write(pipe.writer, b"stays")


@every_ring
def test_a_shielded_operation_goes_on(backend: Backend, pipe: Pipe) -> None:
    async def main() -> int:
        result = 0

        async def read() -> None:
            nonlocal result
            with trio.CancelScope(shield=True):
                result = await lowlevel.read(pipe.reader, bytearray(8))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await in_flight(1)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await in_flight(1)
            os.write(pipe.writer, b"abc")
        return result

    assert backend.run(main) == 3


@pytest.mark.parametrize("entries", [1, 4])
def test_more_operations_than_the_queues_hold_complete_or_are_cancelled(entries: int) -> None:
    """Both queues overflow, on submission, on cancellation and on completion."""
    ring = RingOptions(entries=entries, cq_entries=entries)
    count = 200

    async def main() -> None:
        with contextlib.ExitStack() as stack:
            pipes = [stack.enter_context(Pipe()) for _ in range(count)]
            buffers = [bytearray(4) for _ in pipes]
            async with trio.open_nursery() as nursery:
                for pipe, buffer in zip(pipes, buffers, strict=True):
                    nursery.start_soon(lowlevel.read, pipe.reader, buffer)
                await in_flight(count)
                for number, pipe in enumerate(pipes):
                    os.write(pipe.writer, number.to_bytes(4, "little"))
            assert [int.from_bytes(buffer, "little") for buffer in buffers] == list(range(count))

            async with trio.open_nursery() as nursery:
                for pipe, buffer in zip(pipes, buffers, strict=True):
                    nursery.start_soon(lowlevel.read, pipe.reader, buffer)
                await in_flight(count)
                nursery.cancel_scope.cancel()
            for number, pipe in enumerate(pipes):
                os.write(pipe.writer, b"left")
                assert int.from_bytes(buffers[number], "little") == number
                assert os.read(pipe.reader, 9) == b"left"
            assert io_statistics().operations_in_flight == 0

    Backend("", ring).run(main)


class Canceller(trio.abc.Instrument):
    """Once armed: the first to be woken of the tasks "0" and "1" cancels the other's scope."""

    def __init__(self) -> None:
        self.scopes: dict[int, trio.CancelScope] = {}
        self.armed = False

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        if self.armed and task.name in ("0", "1"):
            self.armed = False
            self.scopes[1 - int(task.name)].cancel()


@every_ring
def test_an_instrument_cancels_what_has_completed_and_the_result_is_kept(backend: Backend) -> None:
    """Both results came with one tick; the first task to be woken has the other cancelled."""
    canceller = Canceller()
    reads: dict[int, bytes] = {}

    async def read(number: int, pipe: Pipe) -> None:
        buffer = bytearray(4)
        with trio.CancelScope() as canceller.scopes[number]:
            assert await lowlevel.read(pipe.reader, buffer) == 4
            reads[number] = bytes(buffer)

    async def main() -> None:
        with Pipe() as first, Pipe() as second:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, 0, first, name="0")
                nursery.start_soon(read, 1, second, name="1")
                await in_flight(2)
                os.write(first.writer, b"0000")
                os.write(second.writer, b"1111")
                canceller.armed = True
            for number, pipe in enumerate((first, second)):
                if number not in reads:
                    reads[number] = pipe.rest()

    backend.run(main, instruments=[canceller])
    assert reads == {0: b"0000", 1: b"1111"}


@every_backend
def test_an_instrument_cancels_a_wait_whose_event_has_come(backend: Backend) -> None:
    """The same for readiness: the run goes on, and so does the descriptor."""
    canceller = Canceller()

    async def wait(number: int, pipe: Pipe) -> None:
        with trio.CancelScope() as canceller.scopes[number]:
            await trio.lowlevel.wait_readable(pipe.reader)

    async def main() -> None:
        with Pipe() as first, Pipe() as second:
            for _ in range(3):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wait, 0, first, name="0")
                    nursery.start_soon(wait, 1, second, name="1")
                    await trio.testing.wait_all_tasks_blocked()
                    await trio.sleep(0)
                    os.write(first.writer, b"0000")
                    os.write(second.writer, b"1111")
                    canceller.armed = True
                for pipe in (first, second):
                    await trio.lowlevel.wait_readable(pipe.reader)
                    assert len(os.read(pipe.reader, 9)) == 4

    backend.run(main, instruments=[canceller])


# Signals


def test_ctrl_c_ends_a_read_that_consumed_nothing(pipe: Pipe) -> None:
    async def main() -> None:
        buffer = bytearray(8)
        async with trio.open_nursery() as nursery:

            async def interrupt() -> None:
                await in_flight(1)
                signal.raise_signal(signal.SIGINT)

            nursery.start_soon(interrupt)
            try:
                await lowlevel.read(pipe.reader, buffer)
            except KeyboardInterrupt:
                assert not is_pinned(buffer)
                assert io_statistics().operations_in_flight == 0
                raise

    with pytest.raises(KeyboardInterrupt):
        trio_uring.run(main, strict_exception_groups=False)
    os.write(pipe.writer, b"later")
    assert os.read(pipe.reader, 9) == b"later"


def test_ctrl_c_at_any_line_leaves_no_operation_that_nobody_knows(pipe: Pipe) -> None:
    """An operation that the kernel has and the manager does not would write into freed memory."""
    code = perform.__code__
    line = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal line
        if frame.f_code is code or (
            frame.f_back and frame.f_back.f_code is code and "operation" in frame.f_code.co_filename
        ):
            line += 1
            if line == wanted:
                signal.raise_signal(signal.SIGINT)
            return trace
        return None

    async def main() -> None:
        await trio.sleep(0)
        run = current_run()
        assert run is not None
        sys.settrace(trace)
        try:
            await lowlevel.read(pipe.reader, bytearray(5))
        finally:
            sys.settrace(None)
            assert len(run.operations) == io_statistics().operations_in_flight == 0

    interrupted = 0
    for wanted in range(1, 40):
        line = 0
        os.write(pipe.writer, b"abcde")
        try:
            trio_uring.run(main)
        except KeyboardInterrupt:
            interrupted += 1
        pipe.rest()
        os.set_blocking(pipe.reader, True)
        if line < wanted:
            break
    assert interrupted > 5
    assert line < wanted


@signals_as_runs_end
@every_ring
def test_signals_disturb_no_operation(backend: Backend, tmp_path: Path) -> None:
    alarms = 0

    def count(*_: object) -> None:
        nonlocal alarms
        alarms += 1

    async def main() -> None:
        with open(tmp_path / "file", "w+b", buffering=0) as file, Pipe() as pipe:
            number = 0
            while number < 500 or alarms < 20:
                data = number.to_bytes(8, "little")
                buffer = bytearray(8)
                assert await lowlevel.write(file, data, 8 * number) == 8
                assert await lowlevel.read(file, buffer, 8 * number) == 8
                assert buffer == data
                assert await lowlevel.write(pipe.writer, data) == 8
                assert (
                    await lowlevel.readv(pipe.reader, [memoryview(buffer)[:3], memoryview(buffer)[3:]]) == 8
                )
                if number % 50 == 0:
                    await lowlevel.fsync(file)
                number += 1

    before = signal.signal(signal.SIGALRM, count)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        backend.run(main)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Closing


def test_a_pipe_that_is_closed_while_it_is_read_stays_open_for_that(pipe: Pipe) -> None:
    """The kernel holds the file, not its number."""

    async def main() -> None:
        buffer = bytearray(4)
        reader = os.dup(pipe.reader)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lowlevel.read, reader, buffer)
            await in_flight(1)
            os.close(reader)
            await in_flight(1)
            os.write(pipe.writer, b"data")
        assert buffer == b"data"
        with pytest.raises(OSError, match="Bad file descriptor"):
            await lowlevel.read(reader, buffer)

    trio_uring.run(main)
