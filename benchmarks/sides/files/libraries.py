"""The asynchronous libraries: how each opens, seeks, stats and starts tasks.

Threads, queues and kernel interfaces are as each library sets them up by itself: no
pool is made larger or smaller. Trio and anyio allow 40 worker threads, asyncio's
executor, which aiofiles uses, has 4 more than CPUs.

Where a library has no call for something it is not measured in it (groups/files.py names what
that is); but programs on Trio and anyio have os.pread, in a worker thread.

aiofile reads and writes through caio, which chooses a kernel interface; it opens and
closes files in the executor, and synchronises a file with the disk (fdatasync) when it
closes one that it wrote. Where caio chooses io_uring with a kernel thread that polls for
submissions, that thread's CPU time counts, but few system calls are left to be counted.

turbofile and asyncfiles too choose an interface. turbofile reads what is in the page cache without
one. asyncfiles hands each write to the kernel; a file of its that was opened is closed by leaving
its context, and it reads text as UTF-8 only.

blazio's files are those of its own event loop. Each of them has a buffer, of 64 KiB.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from operator import methodcaller
from typing import Any

import attrs

from sides.packages import installed
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


async def _absent(*_: object) -> Any:
    raise NotImplementedError("the library has no such call")


async def _nothing(_: object) -> None:
    """To flush what is not buffered."""


@attrs.frozen(kw_only=True)
class Library:
    run: Callable[[Main], None]
    backend: Callable[[], str]
    """To be called in the running loop."""
    run_tasks: Callable[[Tasks], Awaitable[None]]
    open: Callable[..., Awaitable[Any]]
    """Takes what the built-in does."""
    close: Callable[[Any], Awaitable[None]]
    unbuffered: Mapping[str, Any] = {"buffering": 0}
    """What ``open`` takes so that a read of a block asks for nothing more."""
    read_at: Callable[[Any, int, int], Awaitable[bytes]] = _seek_and_read
    pread: Callable[[Any, int, int], Awaitable[bytes]] = _absent
    flush: Callable[[Any], Awaitable[None]] = _FLUSH
    """Has the kernel have what was written."""
    read_bytes: Callable[[str], Awaitable[bytes]] = _absent
    write_bytes: Callable[[str, bytes], Awaitable[object]] = _absent
    stat: Callable[[str], Awaitable[os.stat_result]] = _absent
    exists: Callable[[str], Awaitable[bool]] = _absent
    entries: Callable[[str], Awaitable[int]] = _absent
    """How many a tree of directories has."""


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

    async def pread_in_thread(file: Any, offset: int, size: int) -> bytes:
        return await trio.to_thread.run_sync(os.pread, file.fileno(), size, offset)

    async def pread(file: Any, offset: int, size: int) -> bytes:
        data: bytes = await file.pread(size, offset)
        return data

    async def stat(path: str) -> os.stat_result:
        found: os.stat_result = await package.Path(path).stat()
        return found

    async def entries(path: str) -> int:
        return sum(1 for _ in await package.Path(path).rglob("*"))

    return Library(
        run=partial(run_trio, runtime),
        backend=trio_backend,
        run_tasks=run_tasks,
        open=package.open_file,
        close=_ACLOSE,
        pread=pread if without_threads else pread_in_thread,
        read_bytes=lambda path: package.Path(path).read_bytes(),
        write_bytes=lambda path, data: package.Path(path).write_bytes(data),
        stat=stat,
        exists=lambda path: package.Path(path).exists(),
        entries=entries,
    )


def _anyio() -> Library:
    import anyio
    import anyio.to_thread

    async def run_tasks(tasks: Tasks) -> None:
        async with anyio.create_task_group() as group:
            for task in tasks:
                group.start_soon(task)

    async def pread(file: Any, offset: int, size: int) -> bytes:
        return await anyio.to_thread.run_sync(os.pread, file.wrapped.fileno(), size, offset)

    async def stat(path: str) -> os.stat_result:
        return await anyio.Path(path).stat()

    async def entries(path: str) -> int:
        found = 0
        async for _ in anyio.Path(path).rglob("*"):
            found += 1
        return found

    return Library(
        run=anyio.run,
        backend=asyncio_backend,
        run_tasks=run_tasks,
        open=anyio.open_file,
        close=_ACLOSE,
        pread=pread,
        read_bytes=lambda path: anyio.Path(path).read_bytes(),
        write_bytes=lambda path, data: anyio.Path(path).write_bytes(data),
        stat=stat,
        exists=lambda path: anyio.Path(path).exists(),
        entries=entries,
    )


async def _gather(tasks: Tasks) -> None:
    import asyncio

    await asyncio.gather(*(task() for task in tasks))


_on_asyncio = partial(
    Library, run=partial(run_asyncio, "asyncio"), backend=asyncio_backend, run_tasks=_gather, close=_CLOSE
)


def _aiofiles() -> Library:
    import aiofiles.os

    return _on_asyncio(open=aiofiles.open, stat=aiofiles.os.stat, exists=aiofiles.os.path.exists)


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

    async def pread(file: Any, offset: int, size: int) -> bytes:
        data: bytes = await file.file.read_bytes(size, offset)
        return data

    # It has no buffer of its own when it reads by size, and its own flush synchronises as well.
    return _on_asyncio(
        backend=backend, open=open_file, unbuffered={}, read_at=read_at, pread=pread, flush=_nothing
    )


def _turbofile() -> Library:
    import turbofile
    from turbofile import _turbofile as native

    def backend() -> str:
        return f"{asyncio_backend()}; turbofile {installed('turbofile')}, {native.backend_name()}"

    async def pread(file: Any, offset: int, size: int) -> bytes:
        data: bytes = await file.read_at(offset, size)
        return data

    return _on_asyncio(
        backend=backend,
        open=turbofile.open,
        pread=pread,
        read_bytes=turbofile.read_bytes,
        write_bytes=turbofile.write_bytes,
    )


def _asyncfiles() -> Library:
    import asyncfiles
    from asyncfiles.backend import resolve_backend

    package: Any = asyncfiles

    def backend() -> str:
        return f"{asyncio_backend()}; asyncfiles {package.__version__}, {resolve_backend('auto')}"

    async def open_file(path: str, mode: str, encoding: str = "utf-8") -> Any:
        assert encoding == "utf-8"
        return await package.open(path, mode).__aenter__()

    async def close(file: Any) -> None:
        await file.__aexit__(None, None, None)

    async def read_at(file: Any, offset: int, size: int) -> bytes:
        file.seek(offset)
        data: bytes = await file.read(size)
        return data

    return _on_asyncio(
        backend=backend, open=open_file, close=close, unbuffered={}, read_at=read_at, flush=_nothing
    )


def _blazio() -> Library:
    import blazio

    async def pread(file: Any, offset: int, size: int) -> bytes:
        data: bytes = await file.pread(size, offset)
        return data

    return _on_asyncio(run=partial(run_asyncio, "blazio"), open=blazio.open, unbuffered={}, pread=pread)


_LIBRARIES: dict[str, Callable[[], Library]] = {
    "trio-epoll": partial(_trio, "trio-epoll"),
    "trio-uring": partial(_trio, "trio-uring"),
    "trio-uring-files": partial(_trio, "trio-uring", without_threads=True),
    "trio-uring-budget-files": partial(_trio, "trio-uring-budget", without_threads=True),
    "anyio": _anyio,
    "aiofiles": _aiofiles,
    "aiofile": _aiofile,
    "turbofile": _turbofile,
    "asyncfiles": _asyncfiles,
    "blazio": _blazio,
}
