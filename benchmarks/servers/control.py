"""The server's talk with the suite, in the loop that serves.

The first line on standard output tells the port and the backend; each line on standard
input asks for the backend again; at its end the server ends with status 0 and drops its
connections. The running loop is asked each time, and no thread waits for the question.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import trio
from runtimes import asyncio_backend, trio_backend

STDIN = 0


async def serve_on_trio(port: int, serve: Callable[[], Awaitable[object]]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        _tell(port=port, backend=trio_backend())
        while True:
            await trio.lowlevel.wait_readable(STDIN)
            if not _answer(trio_backend):
                break
        nursery.cancel_scope.cancel()


async def serve_on_asyncio(port: int, serve: Callable[[], Coroutine[Any, Any, object]]) -> None:
    serving = asyncio.ensure_future(serve())
    questions = asyncio.ensure_future(_answer_on_asyncio(port))
    done, _ = await asyncio.wait({serving, questions}, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    unfinished = asyncio.all_tasks() - {asyncio.current_task()}
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*unfinished, return_exceptions=True)


async def _answer_on_asyncio(port: int) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def readable() -> None:
        if not _answer(asyncio_backend):
            loop.remove_reader(STDIN)
            ended.set_result(None)

    loop.add_reader(STDIN, readable)
    _tell(port=port, backend=asyncio_backend())
    await ended


def _answer(backend: Callable[[], str]) -> bool:
    """Answers each line that has come; false at the end of standard input."""
    questions = os.read(STDIN, 4096)
    for _ in range(questions.count(b"\n")):
        _tell(backend=backend())
    return bool(questions)


def _tell(**answer: object) -> None:
    json.dump(answer, sys.stdout)
    print(flush=True)
