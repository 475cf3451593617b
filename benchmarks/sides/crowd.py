"""Tasks that read a file whose pages are cached, and beside them others that want to run now and then.

    python -m sides.crowd RUNTIME TASKS

Says what it runs on, {"backend": ...}. Then, for each line {"seconds": ...} on standard input,
it does that for so long, and tells how often a block was read and how late the others ran:
they are `Bystander`s, of which there are some, so that there are enough samples.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from itertools import cycle
from typing import Any

import trio

from measure.processes import cpu_seconds
from sides.runtimes import TRIO_URING, run_trio, trio_backend
from sides.servers.bystander import Bystander
from sides.servers.start import raise_open_files

BLOCK = 4096
BLOCKS = 64
BYSTANDERS = 20


class Reader:
    def __init__(self, file: Any) -> None:
        self.file = file
        self.reads = 0

    async def run(self) -> None:
        for number in cycle(range(BLOCKS)):
            await self.file.seek(number * BLOCK)
            await self.file.read(BLOCK)
            self.reads += 1


async def measured(readers: list[Reader], seconds: float) -> dict[str, Any]:
    bystander = Bystander()
    began = [reader.reads for reader in readers]
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for reader in readers:
                nursery.start_soon(reader.run)
            for _ in range(BYSTANDERS):
                nursery.start_soon(bystander.run)
            start, cpu = time.perf_counter(), cpu_seconds(os.getpid())
    passed, cpu = time.perf_counter() - start, cpu_seconds(os.getpid()) - cpu
    reads = sum(reader.reads for reader in readers) - sum(began)
    return {"rate": reads / passed, "server_busy": cpu / passed, **bystander.late_by()}


async def serve(path: str, runtime: str, tasks: int) -> None:
    opener: Any = trio.open_file
    if runtime in TRIO_URING:
        import trio_uring

        opener = trio_uring.open_file
    async with AsyncExitStack() as stack:
        readers = []
        for _ in range(tasks):
            readers.append(Reader(await stack.enter_async_context(await opener(path, "rb", 0))))
        print(json.dumps({"backend": trio_backend()}), flush=True)
        # Nothing else runs between measurements, so to block here holds nobody up.
        for line in sys.stdin:
            print(json.dumps(await measured(readers, json.loads(line)["seconds"])), flush=True)


def main(runtime: str, tasks: int) -> None:
    raise_open_files()
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(BLOCKS * BLOCK))
        file.flush()
        run_trio(runtime, partial(serve, file.name, runtime, tasks))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
