"""Operations of callers, cancelled at random moments: no byte is lost, doubled or changed.

Numbered bytes go through pipes; readers and writers are cancelled before, while and after
the kernel answers, signals arrive, and the queues are too short for all of it. The file
that is written beside them holds what the positions say.
"""

from __future__ import annotations

import gc
import os
import random
import signal
from typing import TYPE_CHECKING

import pytest
import trio
from equivalence import descriptors_so_far, open_descriptors, signals_as_runs_end
from turns import RINGS, SEED, Turns, watchdog

import trio_uring
from trio_uring import RingOptions, lowlevel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

ROUND = 25  # transfers each way, in each of the pipes of one run
PIPES = 12
PATTERN = random.Random(1).randbytes(4093)  # a prime: no chunk size divides it


def expected(start: int, size: int) -> bytes:
    turns = 2 + size // len(PATTERN)
    start %= len(PATTERN)
    return (PATTERN * turns)[start : start + size]


class Transfers:
    """What went through a pipe, counted on both sides by results alone."""

    def __init__(self, choices: random.Random) -> None:
        self.choices = choices
        self.written = 0
        self.read = 0
        self.cancelled = 0
        self.ended = False

    async def disturbed(self, operation: Callable[[], Awaitable[int]]) -> int | None:
        """The result, or None if it was cancelled at a moment of chance."""
        kind = self.choices.randrange(6)
        if kind == 0:
            with trio.move_on_after(0):
                return await operation()
        elif kind == 1:
            with trio.move_on_after(self.choices.random() / 2000):
                return await operation()
        elif kind == 2:
            result = None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.cancel_soon, nursery.cancel_scope)
                result = await operation()
                nursery.cancel_scope.cancel()
            if result is not None:
                return result
        else:
            return await operation()
        self.cancelled += 1
        return None

    async def cancel_soon(self, scope: trio.CancelScope) -> None:
        for _ in range(self.choices.randrange(4)):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async def write_all(self, fd: int) -> None:
        for _ in range(ROUND):
            data = expected(self.written, self.choices.choice((1, 7, 4096, 70_000)))
            if self.choices.random() < 0.5:
                middle = self.choices.randrange(len(data) + 1)
                done = await self.disturbed(
                    lambda data=data, middle=middle: lowlevel.writev(fd, [data[:middle], data[middle:]])
                )
            else:
                done = await self.disturbed(lambda data=data: lowlevel.write(fd, data))
            self.written += done or 0
        self.ended = True
        os.close(fd)

    async def read_all(self, fd: int) -> None:
        while True:
            buffer = bytearray(self.choices.choice((1, 13, 4096, 100_000)))
            before = bytes(buffer)
            if self.choices.random() < 0.5:
                view = memoryview(buffer)
                middle = self.choices.randrange(len(buffer) + 1)
                done = await self.disturbed(
                    lambda view=view, middle=middle: lowlevel.readv(fd, [view[:middle], view[middle:]])
                )
                view.release()
            else:
                done = await self.disturbed(lambda buffer=buffer: lowlevel.read(fd, buffer))
            if done is None:
                assert buffer == before
                continue
            if not done:
                break
            assert buffer[:done] == expected(self.read, done)
            self.read += done
            buffer.append(0)  # nothing holds it any longer
        os.close(fd)
        assert self.ended
        assert self.read == self.written


async def rewrite_a_file(path: Path, choices: random.Random, transfers: Transfers) -> None:
    """Writes that are cancelled have happened or not: what is read back is old or new."""
    fd = await lowlevel.openat(path, os.O_RDWR | os.O_CREAT, 0o600)
    size = 20_000
    contents = [bytes(size)]
    await lowlevel.write(fd, contents[0], 0)
    for _ in range(ROUND // 3):
        data = choices.randbytes(1) * size
        done = await transfers.disturbed(lambda data=data: lowlevel.write(fd, data, 0))
        contents = [data] if done == size else [*contents, data]
        buffer = bytearray(size)
        if await transfers.disturbed(lambda buffer=buffer: lowlevel.read(fd, buffer, 0)) is not None:
            assert any(buffer == content for content in contents)
            contents = [bytes(buffer)]
        if choices.random() < 0.1:
            await transfers.disturbed(lambda: fsync(fd))
    await lowlevel.close(fd)


async def fsync(fd: int) -> int:
    await lowlevel.fsync(fd)
    return 0


async def stress(choices: random.Random, path: Path) -> int:
    transfers = [Transfers(choices) for _ in range(PIPES)]
    async with trio.open_nursery() as nursery:
        for number, each in enumerate(transfers):
            reader, writer = os.pipe()
            nursery.start_soon(each.read_all, reader)
            nursery.start_soon(each.write_all, writer)
            if number % 4 == 0:
                nursery.start_soon(rewrite_a_file, path / str(number), choices, each)
        nursery.start_soon(collect_garbage, transfers)
    statistics: object = trio.lowlevel.current_statistics().io_statistics
    assert isinstance(statistics, trio_uring.UringStatistics)
    assert statistics.operations_in_flight == 0
    return sum(each.cancelled for each in transfers)


async def collect_garbage(transfers: list[Transfers]) -> None:
    while not all(each.ended for each in transfers):
        gc.collect()
        await trio.sleep(0.01)


@signals_as_runs_end
@pytest.mark.parametrize("ring", RINGS.values(), ids=RINGS)
def test_no_byte_is_lost_doubled_or_changed(ring: RingOptions, tmp_path: Path) -> None:
    choices = random.Random(SEED)
    before = descriptors_so_far()
    handler = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
    turns = Turns(1 / len(RINGS))
    try:
        for _ in turns:
            with watchdog():
                turns.happened += trio_uring.run(stress, choices, tmp_path, ring=ring)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert open_descriptors() == before
