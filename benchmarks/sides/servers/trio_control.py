"""Serving on Trio until the suite ends it: see control.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from sides.runtimes import trio_backend, trio_multishots
from sides.servers.control import STDIN, answer, tell


async def serve_on_trio(
    port: int, serve: Callable[[], Awaitable[object]], count: Callable[[], dict[str, object]] = dict
) -> None:
    """``count`` tells what a server counts beside what all do."""

    def facts() -> dict[str, object]:
        return {"backend": trio_backend(), "multishots": trio_multishots(), **count()}

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        tell(port=port, backend=trio_backend())
        while True:
            await trio.lowlevel.wait_readable(STDIN)
            if not answer(facts):
                break
        nursery.cancel_scope.cancel()
