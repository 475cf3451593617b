"""A program that sends a message and receives it back, again and again, by pipes.

    python -m sides.pipes RUNTIME WORK

WORK is "tasks", where another task of the program has the other ends, or "child", where a process has them
for its standard streams: cat(1). Says what it runs on, {"backend": ...}. Then, for each line
{"seconds": ..., "size": ..., "least": ...} on standard input, it does that for so long, and until it has made
its least, and tells what it did. What the child costs is not counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from measure.processes import cpu_seconds, memory
from sides.runtimes import TRIO, asyncio_backend, run_asyncio, run_trio, trio_backend

if TYPE_CHECKING:
    import asyncio

MOST = 65536
ECHO = "cat"

Ends: TypeAlias = "tuple[Callable[[bytes], Awaitable[object]], Callable[[], Awaitable[Any]]]"
"""To send to whoever echoes, and to receive from him."""


class ReplyError(Exception):
    """What came back is not what was sent."""


async def _measured(ends: Ends, seconds: float, size: int, least: int) -> dict[str, float]:
    send, receive = ends
    message = os.urandom(size)
    cpu, begun = cpu_seconds(os.getpid()), time.perf_counter()
    messages = 0
    while messages < least or time.perf_counter() < begun + seconds:
        await send(message)
        reply = await receive()
        while len(reply) < size:
            reply += await receive()
        if reply != message:
            raise ReplyError(f"{len(reply)} bytes for {size}")
        messages += 1
    return {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": cpu_seconds(os.getpid()) - cpu,
        "peak_rss": memory(os.getpid(), "VmHWM"),
        "messages": messages,
    }


async def _answer(ends: Ends, backend: str) -> None:
    _say({"backend": backend})
    # Nothing else runs between two of them, so to block here holds nobody up.
    for line in sys.stdin:
        _say(await _measured(ends, **json.loads(line)))


def _say(what: dict[str, str] | dict[str, float]) -> None:
    print(json.dumps(what), flush=True)


# Trio


@asynccontextmanager
async def _trio_tasks() -> AsyncIterator[Ends]:
    import trio

    (far, there), (back, answers) = (map(trio.lowlevel.FdStream, os.pipe()) for _ in range(2))

    async def echo() -> None:
        while data := await far.receive_some():
            await answers.send_all(data)

    async with far, there, back, answers, trio.open_nursery() as nursery:
        nursery.start_soon(echo)
        yield there.send_all, back.receive_some
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _trio_child() -> AsyncIterator[Ends]:
    import trio

    process = await trio.lowlevel.open_process([ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    async with process.stdin, process.stdout:
        yield process.stdin.send_all, process.stdout.receive_some
    await process.wait()


# asyncio


@asynccontextmanager
async def _asyncio_tasks() -> AsyncIterator[Ends]:
    import asyncio

    (far, there), (back, answers) = [await _asyncio_pipe() for _ in range(2)]

    async def echo() -> None:
        while data := await far.read(MOST):
            answers.write(data)
            await answers.drain()

    async def send(data: bytes) -> None:
        there.write(data)
        await there.drain()

    echoing = asyncio.get_running_loop().create_task(echo())
    yield send, lambda: back.read(MOST)
    there.close()
    await echoing
    answers.close()


async def _asyncio_pipe() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    import asyncio

    def protocol(stream: asyncio.StreamReader) -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(stream)

    loop = asyncio.get_running_loop()
    reader, writer = os.pipe()
    stream = asyncio.StreamReader()
    await loop.connect_read_pipe(partial(protocol, stream), os.fdopen(reader, "rb", 0))
    transport, drained = await loop.connect_write_pipe(
        partial(protocol, asyncio.StreamReader()), os.fdopen(writer, "wb", 0)
    )
    return stream, asyncio.StreamWriter(transport, drained, None, loop)


@asynccontextmanager
async def _asyncio_child() -> AsyncIterator[Ends]:
    import asyncio

    process = await asyncio.create_subprocess_exec(ECHO, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    there, back = process.stdin, process.stdout
    assert there is not None
    assert back is not None

    async def send(data: bytes) -> None:
        there.write(data)
        await there.drain()

    yield send, lambda: back.read(MOST)
    there.close()
    await process.wait()


def main(runtime: str, work: str) -> None:
    is_trio = runtime in TRIO
    connected = {
        "tasks": _trio_tasks if is_trio else _asyncio_tasks,
        "child": _trio_child if is_trio else _asyncio_child,
    }[work]

    async def run() -> None:
        async with connected() as ends:
            await _answer(ends, trio_backend() if is_trio else asyncio_backend())

    (run_trio if is_trio else run_asyncio)(runtime, run)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
