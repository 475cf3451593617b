"""A program that asks a server for a small page again and again, by httpx over TLS.

    python -m sides.clients.httpx_client --runtime RUNTIME --port PORT --authority FILE

Says what it runs on, {"backend": ...}. Then, for each line {"seconds": ..., "tasks": ..., "least": ...}
on standard input, as many tasks send requests for so long, and until each has made its least; and
it tells what they did. All of them use one client, as httpx's documentation advises, which keeps its
connections: the first of a task's replies is not counted, since its connection is made for it.
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import sys
import time
from array import array
from functools import partial

import anyio
import httpx

from measure.percentiles import percentiles
from measure.processes import cpu_seconds, memory
from sides.runtimes import ON_ASYNCIO, TRIO, asyncio_backend, run_asyncio, run_trio, trio_backend
from sides.servers.http import BODY
from sides.servers.start import HOST


class ReplyError(Exception):
    """A reply is not what the server has to say."""


async def _request(client: httpx.AsyncClient, url: str) -> None:
    reply = await client.get(url)
    if reply.status_code != 200 or reply.content != BODY:
        raise ReplyError(f"{reply.status_code}, {reply.content!r}")


async def _measured(
    client: httpx.AsyncClient, url: str, seconds: float, tasks: int, least: int
) -> dict[str, float]:
    async with anyio.create_task_group() as group:
        for _ in range(tasks):
            group.start_soon(_request, client, url)
    latencies = array("d")
    cpu, begun = cpu_seconds(os.getpid()), time.perf_counter()
    deadline = begun + seconds

    async def ask() -> None:
        made = 0
        while (start := time.perf_counter()) < deadline or made < least:
            await _request(client, url)
            latencies.append(time.perf_counter() - start)
            made += 1

    async with anyio.create_task_group() as group:
        for _ in range(tasks):
            group.start_soon(ask)
    return {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": cpu_seconds(os.getpid()) - cpu,
        "peak_rss": memory(os.getpid(), "VmHWM"),
        "requests": len(latencies),
        **percentiles(latencies),
    }


async def answer(runtime: str, port: int, authority: str) -> None:
    backend = trio_backend if runtime in TRIO else asyncio_backend
    context = ssl.create_default_context(cafile=authority)
    async with httpx.AsyncClient(verify=context) as client:
        _say({"backend": backend()})
        # Nothing else runs between two of them, so to block here holds nobody up.
        for line in sys.stdin:
            _say(await _measured(client, f"https://{HOST}:{port}/", **json.loads(line)))


def _say(what: dict[str, str] | dict[str, float]) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runtime", choices=[*TRIO, *ON_ASYNCIO], required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--authority", required=True)
    options = parser.parse_args()
    run = run_trio if options.runtime in TRIO else run_asyncio
    run(options.runtime, partial(answer, options.runtime, options.port, options.authority))


if __name__ == "__main__":
    main()
