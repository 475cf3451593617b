"""The mixed workload of tests/faults/, with nothing injected: each of its parts alone, all together on
rings of several shapes, and all together as a guest of asyncio.

Run as a program, it does that and tells of each scenario on standard output, and whatever is not as it
should be is a traceback. A scenario that takes too long ends the program, with the stacks of its tasks.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from findings import Result

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import outcome
    from work import Work

    from trio_uring import RingOptions

    Part = Callable[[Work], Awaitable[None]]

_FAULTS: Final = Path(__file__).resolve().parents[2] / "faults"
_PATIENCE: Final = 300
"""Seconds for one scenario, which takes some."""


def check() -> Iterator[Result]:
    """Runs this file as a program, and counts what it tells."""
    done = subprocess.run(
        [sys.executable, __file__],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{_FAULTS}:{Path(__file__).resolve().parents[1]}"},
    )
    lines = done.stdout.splitlines()
    said = [line for line in lines if line.startswith("ended ")]
    started = [line for line in lines if line.startswith("start ")]
    checked = sum(int(line.rsplit(" ", 1)[1]) for line in said)
    figures = f"{len(said)} of {len(started)} scenarios, {checked:,} bytes checked"
    fine = done.returncode == 0 and lines[-1:] == ["all"] and len(said) == len(started)
    yield Result("mixed workload", "passed" if fine else "failed", figures, "" if fine else done.stderr)


def main() -> int:
    # Here, since `check` can do without them.
    import work_on_streams
    from child import PARTS, Watchdog, mix, rings
    from work import Work

    import trio_uring

    kept = work_on_streams.Kept()
    together = partial(mix, parts=PARTS, kept=kept)
    parts = (*PARTS, work_on_streams.slowly, signals)
    scenarios: list[tuple[str, Callable[[Work], object]]] = [
        *((part.__name__, partial(run, part, trio_uring.RingOptions())) for part in parts),
        *((f"all, {ring}", partial(run, together, ring)) for ring in rings()),
        ("guest of asyncio", partial(guest, together)),
    ]
    failed = 0
    for name, call in scenarios:
        print("start", name, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            work = Work(random.randrange(1 << 32), Path(folder), frozenset())
            try:
                with Watchdog(_PATIENCE):
                    call(work)
            except BaseException:
                failed += 1
                print(f"in {name}:", file=sys.stderr)
                traceback.print_exc()
            else:
                print("ended", name, work.checked, flush=True)
    print("all")
    return 1 if failed else 0


async def signals(work: Work) -> None:
    """Each one that comes while the run waits wakes it."""
    import trio

    with trio.open_signal_receiver(signal.SIGUSR1) as receiver:
        for _ in range(20):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert await receiver.__anext__() == signal.SIGUSR1
    work.checked += 20


def run(async_fn: Part, ring: RingOptions, work: Work) -> None:
    import trio_uring

    trio_uring.run(partial(async_fn, work), ring=ring)


def guest(async_fn: Part, work: Work) -> None:
    import trio_uring

    async def host() -> outcome.Outcome[None]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[outcome.Outcome[None]] = loop.create_future()
        trio_uring.start_guest_run(
            async_fn,
            work,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        return await done

    asyncio.run(host()).unwrap()


if __name__ == "__main__":
    sys.exit(main())
