"""Serving on asyncio until the suite ends it: see control.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from sides.runtimes import asyncio_backend
from sides.servers.control import STDIN, answer, tell


async def serve_on_asyncio(port: int, serve: Callable[[], Coroutine[Any, Any, object]]) -> None:
    serving = asyncio.ensure_future(serve())
    questions = asyncio.ensure_future(_answer_questions(port))
    done, _ = await asyncio.wait({serving, questions}, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    unfinished = asyncio.all_tasks() - {asyncio.current_task()}
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*unfinished, return_exceptions=True)


async def _answer_questions(port: int) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def readable() -> None:
        if not answer(lambda: {"backend": asyncio_backend()}):
            loop.remove_reader(STDIN)
            ended.set_result(None)

    loop.add_reader(STDIN, readable)
    tell(port=port, backend=asyncio_backend())
    await ended
