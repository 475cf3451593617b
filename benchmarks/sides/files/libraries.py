"""The asynchronous libraries: how each opens, seeks, stats and starts tasks.

Threads, queues and kernel interfaces are as each library sets them up by itself: no
pool is made larger or smaller. Trio and anyio allow 40 worker threads, asyncio's
executor, which aiofiles uses, has 4 more than CPUs.

aiofile reads and writes through caio, which chooses a kernel interface; it opens and
closes files in the executor, and synchronises a file with the disk (fdatasync) when it
closes one that it wrote. Where caio chooses io_uring with a kernel thread that polls for
submissions, that thread's CPU time counts, but few system calls are left to be counted.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from operator import methodcaller
from typing import Any

import attrs

from sides.runtimes import asyncio_backend, run_asyncio, run_trio, trio_backend

Main = Callable[[], Coroutine[Any, Any, None]]
Tasks = Sequence[Callable[[], Coroutine[Any, Any, None]]]

_CLOSE = methodcaller("close")
_ACLOSE = methodcaller("aclose")
_FLUSH = methodcaller("flush")


async def _seek_and_read(file: Any, offset: int, size: int) -> bytes:
    await file.seek(offset)
    data: bytes = await file.read(size)
    return data


@attrs.frozen
class Library:
    run: Callable[[Main], None]
    backend: Callable[[], str]
    """To be called in the running loop."""
    run_tasks: Callable[[Tasks], Awaitable[None]]
    open: Callable[..., Awaitable[Any]]
    """Takes what the built-in does."""
    close: Callable[[Any], Awaitable[None]]
    stat: Callable[[str], Awaitable[os.stat_result]]
    unbuffered: Mapping[str, Any] = {"buffering": 0}
    """What ``open`` takes so that a read of a block asks for nothing more."""
    read_at: Callable[[Any, int, int], Awaitable[bytes]] = _seek_and_read
    flush: Callable[[Any], Awaitable[None]] = _FLUSH
    """Has the kernel have what was written."""


def library(side: str) -> Library:
    return _LIBRARIES[side]()


def _trio(runtime: str, *, without_threads: bool = False) -> Library:
    import trio

    import trio_uring

    package: Any = trio_uring if without_threads else trio

    async def run_tasks(tasks: Tasks) -> None:
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)

    async def stat(path: str) -> os.stat_result:
        found: os.stat_result = await package.Path(path).stat()
        return found

    return Library(partial(run_trio, runtime), trio_backend, run_tasks, package.open_file, _ACLOSE, stat)


def _anyio() -> Library:
    import anyio

    async def run_tasks(tasks: Tasks) -> None:
        async with anyio.create_task_group() as group:
            for task in tasks:
                group.start_soon(task)

    async def stat(path: str) -> os.stat_result:
        return await anyio.Path(path).stat()

    return Library(anyio.run, asyncio_backend, run_tasks, anyio.open_file, _ACLOSE, stat)


async def _gather(tasks: Tasks) -> None:
    import asyncio

    await asyncio.gather(*(task() for task in tasks))


def _aiofiles() -> Library:
    import aiofiles.os

    return Library(
        partial(run_asyncio, "asyncio"), asyncio_backend, _gather, aiofiles.open, _CLOSE, aiofiles.os.stat
    )


def _aiofile() -> Library:
    import aiofile
    import caio

    def backend() -> str:
        return f"{asyncio_backend()}; caio {caio.__version__}, {caio.AsyncioContext.__module__}"

    async def open_file(path: str, mode: str, **options: Any) -> Any:
        return await aiofile.async_open(path, mode, **options)

    async def read_at(file: Any, offset: int, size: int) -> bytes:
        file.seek(offset)
        data: bytes = await file.read(size)
        return data

    async def stat(path: str) -> os.stat_result:
        raise NotImplementedError("aiofile has no stat")

    async def flush(file: Any) -> None:
        """Its own synchronises as well, and nothing is buffered."""

    # It has no buffer of its own when it reads by size.
    return Library(
        partial(run_asyncio, "asyncio"),
        backend,
        _gather,
        open_file,
        _CLOSE,
        stat,
        unbuffered={},
        read_at=read_at,
        flush=flush,
    )


_LIBRARIES: dict[str, Callable[[], Library]] = {
    "trio-epoll": partial(_trio, "trio-epoll"),
    "trio-uring": partial(_trio, "trio-uring"),
    "trio-uring-files": partial(_trio, "trio-uring", without_threads=True),
    "trio-uring-budget-files": partial(_trio, "trio-uring-budget", without_threads=True),
    "anyio": _anyio,
    "aiofiles": _aiofiles,
    "aiofile": _aiofile,
}
