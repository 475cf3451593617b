"""Serving on Trio until the suite ends it: see control.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from runtimes import trio_backend

from servers.control import STDIN, answer, tell


async def serve_on_trio(port: int, serve: Callable[[], Awaitable[object]]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        tell(port=port, backend=trio_backend())
        while True:
            await trio.lowlevel.wait_readable(STDIN)
            if not answer(trio_backend):
                break
        nursery.cancel_scope.cancel()
