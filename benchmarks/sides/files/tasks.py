"""The works with an asynchronous library, whose differences are in libraries.py.

Tasks take small files from one iterator, each the next.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter
from typing import Any

from sides.files.contents import BLOCK, block, check, chunk
from sides.files.libraries import Library
from sides.files.work import LINES_BETWEEN_LOOKS, READ_BLOCKS, Kind, Record, Work

Run = Callable[[], Awaitable[None]]


@asynccontextmanager
async def random_reads(library: Library, work: Work, record: Record) -> AsyncIterator[Run]:
    read_at = library.read_at if work.kind == "random" else library.pread
    files = [await library.open(work.path, "rb", **library.unbuffered) for _ in range(work.tasks)]

    async def task(file: Any, choose: Callable[[], float]) -> None:
        while (start := perf_counter()) < record.deadline or len(record.latencies) < work.least:
            number = int(choose() * work.count)
            data = await read_at(file, number * BLOCK, BLOCK)
            record.latencies.append(perf_counter() - start)
            check(data, number, BLOCK)

    async def run() -> None:
        tasks = [partial(task, file, random.Random(seed).random) for seed, file in enumerate(files)]
        await library.run_tasks(tasks)

    yield run
    for file in files:
        await library.close(file)


@asynccontextmanager
async def small_files(library: Library, work: Work, record: Record) -> AsyncIterator[Run]:
    operation = _OPERATIONS[work.kind]

    async def task(numbers: Iterator[int]) -> None:
        for number in numbers:
            start = perf_counter()
            if start > record.deadline and len(record.latencies) >= work.least:
                return
            await operation(library, work.small_file(number), number)
            record.latencies.append(perf_counter() - start)

    async def run() -> None:
        numbers = iter(range(work.count))
        await library.run_tasks([partial(task, numbers)] * work.tasks)

    yield run


async def _read(library: Library, path: str, number: int) -> None:
    file = await library.open(path, "rb")
    try:
        check(await file.read(), number, BLOCK)
    finally:
        await library.close(file)


async def _read_by_path(library: Library, path: str, number: int) -> None:
    check(await library.read_bytes(path), number, BLOCK)


async def _write(library: Library, path: str, number: int) -> None:
    file = await library.open(path, "xb")
    try:
        await file.write(block(number))
    finally:
        await library.close(file)


async def _write_by_path(library: Library, path: str, number: int) -> None:
    await library.write_bytes(path, block(number))


async def _stat(library: Library, path: str, _: int) -> None:
    assert (await library.stat(path)).st_size == BLOCK


async def _exists(library: Library, path: str, _: int) -> None:
    assert await library.exists(path)


_OPERATIONS: dict[Kind, Callable[[Library, str, int], Awaitable[None]]] = {
    "small-read": _read,
    "path-read": _read_by_path,
    "small-write": _write,
    "path-write": _write_by_path,
    "small-stat": _stat,
    "small-exists": _exists,
}


@asynccontextmanager
async def tree(library: Library, work: Work, record: Record) -> AsyncIterator[Run]:
    async def run() -> None:
        while perf_counter() < record.deadline or record.operations < work.least:
            record.operations += await library.entries(work.path)

    yield run


@asynccontextmanager
async def sequential_read(library: Library, work: Work, record: Record) -> AsyncIterator[Run]:
    file = await library.open(work.path, "rb")

    async def run() -> None:
        while (perf_counter() < record.deadline or record.operations < work.least) and (
            data := await file.read(work.size)
        ):
            check(data, record.operations * (work.size // BLOCK), work.size)
            record.operations += 1

    yield run
    await library.close(file)


@asynccontextmanager
async def sequential_write(library: Library, work: Work, record: Record) -> AsyncIterator[Run]:
    data = chunk(work.size)
    file = await library.open(work.path, "wb")

    async def run() -> None:
        while (
            perf_counter() < record.deadline or record.operations < work.least
        ) and record.operations < work.count:
            await file.write(data)
            record.operations += 1
        await library.flush(file)

    yield run
    await library.close(file)


@asynccontextmanager
async def lines(library: Library, work: Work, record: Record) -> AsyncIterator[Run]:
    file = await library.open(work.path, "r", encoding="utf-8")

    async def run() -> None:
        async for line in file:
            record.operations += 1
            record.characters += len(line)
            if not record.operations % LINES_BETWEEN_LOOKS and perf_counter() > record.deadline:
                return

    yield run
    await library.close(file)


WORKS = {
    **dict.fromkeys(READ_BLOCKS, random_reads),
    **dict.fromkeys(_OPERATIONS, small_files),
    "tree": tree,
    "sequential-read": sequential_read,
    "sequential-write": sequential_write,
    "lines": lines,
}
