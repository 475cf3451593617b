"""The benchmark suite.

    python benchmarks [--quick | --smoke] [--rounds N] [--output DIR] [--second JSON] [GROUP ...]
    python benchmarks report RESULTS.json [--second OTHER.json] [--output FOLDER]

Runs the groups (all of them, if none is named), each side in processes of its own, the
sides of a case one right after the other, in rounds; then once more under strace, to
count system calls. Writes results.json, report.md and the charts into DIR. Ends with
an error if a side ran on another backend than its label says, or if a program failed.
With `report` it measures nothing, and writes the report of results that were kept.
README.md, beside this file, explains the method.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from groups import fairness, files, micro, network, pipes, tls
from groups.plan import SCALES, Planned, Scale, counted
from measure import machine
from measure.processes import GENERATOR_CPU, SERVER_CPU, ChildError
from report import text
from report.model import Case, Report, Series, Side
from sides.runtimes import ASYNCIO, RUNTIMES, WrongBackendError

# A group is given the scale, and a folder to work in.
GROUPS: dict[str, Callable[[Scale, Path], list[Planned]]] = {
    "micro": lambda scale, _: micro.plan(scale),
    "echo": lambda scale, _: network.echo(scale),
    "http": lambda scale, _: network.http(scale),
    "connections": lambda scale, _: network.connections(scale),
    "udp": lambda scale, _: network.udp(scale),
    "tls": lambda scale, _: tls.plan(scale),
    "pipes": lambda scale, _: pipes.plan(scale),
    "files": files.plan,
    "scale": lambda scale, _: network.scale_of_connections(scale),
    "idle": lambda scale, _: network.idle(scale),
    "fairness": lambda scale, _: fairness.plan(scale),
}

SIDES = {
    **{key: Side(runtime.label, runtime.family) for key, runtime in RUNTIMES.items()},
    **{f"{key}-protocols": Side(f"{RUNTIMES[key].label}, protocols", key) for key in ASYNCIO},
    "limit": Side("C on io_uring", "limit"),
    **files.SIDES,
}


def main() -> int:
    if sys.argv[1:2] == ["report"]:
        text.main(sys.argv[2:])
        return 0
    args = arguments()
    scale = SCALES[args.scale]
    if args.rounds:
        scale = attrs.evolve(scale, rounds=args.rounds)
    second = Report.load(args.second) if args.second else None
    args.output.mkdir(parents=True, exist_ok=True)
    results = args.output / "results.json"
    started, begun = datetime.datetime.now(datetime.timezone.utc), time.monotonic()
    with tempfile.TemporaryDirectory(dir=args.output) as scratch:
        planned = [one for group in args.group or GROUPS for one in GROUPS[group](scale, Path(scratch))]
        result = Report(
            {"date": f"{started:%Y-%m-%d %H:%M} UTC", **machine.describe(), "run": ""},
            SIDES,
            [one.case for one in planned],
            [f"{tool} is not installed: what needs it was not measured" for tool in machine.missing_tools()],
        )

        def save(rounds: int) -> None:
            minutes = (time.monotonic() - begun) / 60
            result.header["run"] = f"{scale.name}, {rounds} rounds, {minutes:.0f} minutes; {placement()}"
            result.save(results)

        try:
            for number in range(scale.rounds):
                measure(planned, number, scale.rounds)
                save(number + 1)
            if shutil.which("strace"):
                count_system_calls(planned, scale)
            save(scale.rounds)
        except WrongBackendError as error:
            results.unlink(missing_ok=True)
            print(f"Nothing is reported, since a side was not what it is called.\n{error}", file=sys.stderr)
            return 1
    text.write(result, args.output, second)
    print(f"The report is {args.output / 'report.md'}")
    return complain(result, may_miss_tools=scale.name != "smoke")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", dest="scale", action="store_const", const="quick", help="in under 10 minutes"
    )
    size.add_argument("--smoke", dest="scale", action="store_const", const="smoke", help="all once, tiny")
    parser.set_defaults(scale="full")
    parser.add_argument("--rounds", type=int, help="instead of 5, or 2 if quick")
    parser.add_argument("--output", type=Path, default=Path("benchmark-results"), metavar="DIR")
    parser.add_argument(
        "--second", type=Path, metavar="JSON", help="of another run, to compare the ratios with"
    )
    parser.add_argument("group", nargs="*", help=" ".join(GROUPS))
    args = parser.parse_args()
    if unknown := set(args.group) - set(GROUPS):
        parser.error(f"no such group: {' '.join(sorted(unknown))}; there are: {' '.join(GROUPS)}")
    return args


def measure(planned: list[Planned], number: int, rounds: int) -> None:
    """One round: the sides of a case one right after the other, in another order each time."""
    for case, jobs in ((one.case, one.jobs) for one in planned):
        begun = time.monotonic()
        order = list(jobs)[number % len(jobs) :] + list(jobs)[: number % len(jobs)] if jobs else []
        for side in reversed(order) if number % 2 else order:
            series = case.series.setdefault(side, Series())
            try:
                measured, series.seen = jobs[side].measure()
            except ChildError as error:
                measured, series.failure = {}, f"round {number + 1}: {text.without_folders(str(error))}"
            series.rounds.append(measured)
        progress(f"round {number + 1} of {rounds}", case, begun)


def count_system_calls(planned: list[Planned], scale: Scale) -> None:
    for case, jobs in ((one.case, one.jobs) for one in counted(planned, scale)):
        begun = time.monotonic()
        for side, job in jobs.items():
            try:
                case.series[side].system_calls = job.count_system_calls()
            except ChildError as error:
                case.series[side].failure = f"under strace: {text.without_folders(str(error))}"
        progress("system calls", case, begun)


def progress(what: str, case: Case, begun: float) -> None:
    print(
        f"{what}: {case.group}: {case.name} ({time.monotonic() - begun:.1f} s)", file=sys.stderr, flush=True
    )


def placement() -> str:
    if SERVER_CPU == GENERATOR_CPU:
        return "servers and load generators SHARE the only CPU"
    return f"servers on CPU {SERVER_CPU}, load generators on CPU {GENERATOR_CPU}"


def complain(result: Report, *, may_miss_tools: bool) -> int:
    """Tells on standard error what failed. The status of the process."""
    status = 0
    for case in result.cases:
        for side, series in case.series.items():
            if series.failure and series.rounds:
                print(f"{case.group}: {case.name}: {side}: {series.failure}", file=sys.stderr)
                status = 1
    for note in result.notes:
        print(note, file=sys.stderr)
    return status if may_miss_tools or not result.notes else 1


if __name__ == "__main__":
    sys.exit(main())
