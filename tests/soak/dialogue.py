"""A child's half of what `measure.processes.Child` says: lines of JSON, each answered by one."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


async def questions() -> AsyncGenerator[str, None]:
    """Of standard input, until that ends. Each one has to be answered before the next."""
    data = b""
    async with trio.lowlevel.FdStream(os.dup(0)) as stream:
        async for more in stream:
            data += more
            if data.endswith(b"\n"):
                yield json.loads(data)["ask"]
                data = b""


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)
