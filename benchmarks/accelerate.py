"""What single steps of a Trio program cost with and without ``RingOptions(accelerate=True)``: the table
of docs/accelerate.md.

    python benchmarks/accelerate.py [--rounds N]

Each round measures both sides, one right after the other, in processes of their own, and computes the
ratios: the medians of these are what to quote. A run that is not on io_uring, or whose steps are not
made by whom they should, fails.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import trio

import trio_uring

MANY = 50
"""Tasks that are ready at once."""
LOOPS = 4000


async def checkpoint_alone() -> None:
    for _ in range(LOOPS):
        await trio.lowlevel.checkpoint()


async def checkpoint_of_many() -> None:
    async def yields() -> None:
        for _ in range(LOOPS // MANY):
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(MANY):
            nursery.start_soon(yields)


async def hand_over() -> None:
    send, receive = trio.open_memory_channel[None](0)

    async def sends() -> None:
        async with send:
            for _ in range(LOOPS):
                await send.send(None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sends)
        async for _ in receive:
            pass


async def cancel_scope() -> None:
    for _ in range(LOOPS):
        with trio.CancelScope():
            pass


async def move_on_after() -> None:
    for _ in range(LOOPS):
        with trio.move_on_after(10):
            pass


async def fail_after() -> None:
    for _ in range(LOOPS):
        with trio.fail_after(10):
            pass


async def empty_nursery() -> None:
    for _ in range(LOOPS):
        async with trio.open_nursery():
            pass


async def nursery_with_a_child() -> None:
    for _ in range(LOOPS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)


STEPS: dict[str, Callable[[], Awaitable[None]]] = {
    "a checkpoint, of a task that is alone": checkpoint_alone,
    f"a checkpoint, of one of {MANY} tasks": checkpoint_of_many,
    "a hand-over by a channel without a buffer": hand_over,
    "a cancel scope": cancel_scope,
    "`move_on_after`": move_on_after,
    "`fail_after`": fail_after,
    "an empty nursery": empty_nursery,
    "a nursery with a child that yields once": nursery_with_a_child,
}


async def measure(*, accelerate: bool) -> dict[str, float]:
    """Seconds for each of the steps, by their names."""
    seen = trio.lowlevel.current_statistics().io_statistics
    assert isinstance(seen, trio_uring.UringStatistics), f"this run is on {seen.backend}"
    assert seen.accelerated is accelerate, "the log tells why steps are not made by C"
    taken = {}
    for name, step in STEPS.items():
        await step()
        start = time.perf_counter()
        await step()
        taken[name] = (time.perf_counter() - start) / LOOPS
    return taken


def child(side: str) -> None:
    accelerate = side == "with"

    async def main() -> None:
        print(json.dumps(await measure(accelerate=accelerate)))

    trio_uring.run(main, ring=trio_uring.RingOptions(accelerate=accelerate))


def in_a_process(side: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--child", side], stdout=subprocess.PIPE, check=True, text=True
    )
    taken: dict[str, float] = json.loads(done.stdout)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    rounds = []
    for number in range(parser.parse_args().rounds):
        sides = ("with", "without") if number % 2 else ("without", "with")
        rounds.append({side: in_a_process(side) for side in sides})
    print(f"| CPython {platform.python_version()}, Trio {trio.__version__} | without | with | ratio |")
    print("| --- | ---: | ---: | ---: |")
    for name in STEPS:
        without, with_it, ratio = (
            statistics.median(values)
            for values in zip(
                *(
                    (one["without"][name], one["with"][name], one["without"][name] / one["with"][name])
                    for one in rounds
                ),
                strict=True,
            )
        )
        print(f"| {name} | {without * 1e6:.2f} us | {with_it * 1e6:.2f} us | {ratio:.2f} |")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--child", side]:
            child(side)
        case _:
            main()
