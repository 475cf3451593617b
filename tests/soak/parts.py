"""What the server does by itself, beside its clients: the workload of tests/faults, and what that has not."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from typing import TYPE_CHECKING

import trio
import work_on_files
import work_on_streams
import work_on_the_rest
from work import Work

import trio_uring

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    Part = Callable[[Work], Awaitable[None]]

SIZE = 30_000


async def temporary(work: Work) -> None:
    async with trio_uring.TemporaryDirectory(dir=work.folder) as folder:
        async with trio_uring.NamedTemporaryFile(dir=folder) as file:
            await file.write(work.expected(0, SIZE))
            await file.flush()
            work.check(await trio_uring.Path(str(file.name)).read_bytes(), 0)
        async with trio_uring.TemporaryFile(dir=folder) as unnamed:
            await unnamed.write(work.expected(0, SIZE))
            await unnamed.seek(SIZE // 2)
            work.check(await unnamed.read(), SIZE // 2)
    async with trio_uring.SpooledTemporaryFile(max_size=SIZE // 2, dir=work.folder) as spooled:
        for start in range(0, SIZE, SIZE // 5):
            await spooled.write(work.expected(start, SIZE // 5))
        await spooled.seek(0)
        data = await spooled.read()
        assert len(data) == SIZE
        work.check(data, 0)


async def signals(work: Work) -> None:
    """One at a time: of two that are alike the kernel may keep one."""
    with trio.open_signal_receiver(signal.SIGUSR1) as arriving:
        for _ in range(5):
            await trio.sleep(work.choices.choice((0, 0.001)))
            os.kill(os.getpid(), signal.SIGUSR1)
            assert await arriving.__anext__() == signal.SIGUSR1


_CANCELLABLE: Sequence[Part] = (
    *work_on_streams.PARTS,
    *work_on_files.PARTS,
    *work_on_the_rest.PARTS,
    temporary,
)


async def cancelled(work: Work) -> None:
    """Another part, cancelled anywhere."""
    with trio.move_on_after(work.choices.uniform(0, 0.05)):
        await work.choices.choice(_CANCELLABLE)(work)


PARTS: Sequence[Part] = (*_CANCELLABLE, work_on_streams.slowly, signals, cancelled)


class Rounds:
    """Each round of a part has a folder and choices of its own."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.checked = 0
        self._folder = folder
        self._seeds = itertools.count(seed)

    async def play(self, part: Part) -> None:
        seed = next(self._seeds)
        folder = self._folder / f"round {seed}"
        folder.mkdir()
        try:
            work = Work(seed, folder, frozenset())
            await part(work)
            self.checked += work.checked
        finally:
            shutil.rmtree(folder)
