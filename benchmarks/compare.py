"""Both sides of micro.py, interleaved: the ratios of io_uring to epoll.

    python benchmarks/compare.py [--rounds N] [--scale X] [BENCHMARK ...]

Each round runs every benchmark on both sides in fresh processes, one right after
the other, the order changing from round to round. The ratio is computed round by
round, so that what changes between rounds (another load, another clock speed)
cancels out. Its median is what to quote, its range says how much to believe it.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import pyperf
import trio
from micro import BENCHMARKS, SIDES

import trio_uring

MICRO = Path(__file__).with_name("micro.py")


def measure(side: str, name: str, scale: float) -> float:
    """The time of one benchmark in a process of its own, in seconds: the fastest of the
    values that it measures one after the other, since whatever else runs only adds."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "result.json")
        command = [sys.executable, str(MICRO), "--side", side, "--scale", str(scale), "--quiet"]
        subprocess.run([*command, "-o", str(output), name], check=True, stdout=subprocess.DEVNULL)
        return float(min(pyperf.BenchmarkSuite.load(str(output)).get_benchmark(name).get_values()))


def rounds(names: list[str], count: int, scale: float) -> dict[str, dict[str, list[float]]]:
    times: dict[str, dict[str, list[float]]] = {name: {side: [] for side in SIDES} for name in names}
    for number in range(count):
        for name in names:
            for side in SIDES if number % 2 else reversed(SIDES):
                times[name][side].append(measure(side, name, scale))
    return times


def readable(seconds: float) -> str:
    return f"{seconds * 1e9:,.0f} ns" if seconds < 1e-5 else f"{seconds * 1e6:,.1f} us"


def report(times: dict[str, dict[str, list[float]]]) -> list[str]:
    lines = [
        "| step | epoll | io_uring | io_uring / epoll | range | aim |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, sides in times.items():
        ratios = [uring / epoll for epoll, uring in zip(sides["epoll"], sides["io_uring"], strict=True)]
        aim = BENCHMARKS[name].at_most
        cells = [
            name,
            *(readable(statistics.median(sides[side])) for side in SIDES),
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f} - {max(ratios):.2f}",
            "" if aim is None else f"<= {aim}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0, help="loops of each benchmark, times this")
    parser.add_argument("benchmark", nargs="*", metavar="BENCHMARK", help="; ".join(BENCHMARKS))
    args = parser.parse_args()
    if unknown := set(args.benchmark) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")

    print(f"Linux {platform.release()}, {os.cpu_count()} CPUs, CPython {platform.python_version()}, ", end="")
    print(f"Trio {trio.__version__}, {args.rounds} rounds")
    print(f"io_uring: {', '.join(trio_uring.run(_flags))}\n")
    times = rounds(args.benchmark or list(BENCHMARKS), args.rounds, args.scale)
    print("\n".join(report(times)))


async def _flags() -> tuple[str, ...]:
    statistics = trio.lowlevel.current_statistics().io_statistics
    assert isinstance(statistics, trio_uring.UringStatistics)
    return statistics.flags


if __name__ == "__main__":
    main()
