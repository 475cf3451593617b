"""Messages there and back by pipes: between two tasks, and with a child by its standard streams.

sides/pipes.py tells what a side does.
"""

from __future__ import annotations

import sys

import attrs

from groups.network import BASELINE
from groups.plan import Planned, Scale
from measure.processes import SERVER_CPU, Child
from report.model import Case, Measurement, Series
from sides.packages import missing
from sides.runtimes import ASYNCIO, seen

SIDES = (BASELINE, "trio-uring", "trio-uring-budget", *ASYNCIO, "blazio")
SIZE = 64
LEAST = 3
"""Messages, however slow a side is."""
WORK = {
    "tasks": "ping-pong between two tasks",
    "child": "echo by a child's standard streams",
}


@attrs.frozen
class Exchange:
    runtime: str
    work: str
    seconds: float

    def measure(self) -> tuple[Measurement, str]:
        command = (sys.executable, "-m", "sides.pipes", self.runtime, self.work)
        with Child(command, cpu=SERVER_CPU) as child:
            answer = child.ask({"seconds": self.seconds, "size": SIZE, "least": LEAST})
            text = seen(self.runtime, child.ready["backend"], child.pid)
        return {
            "rate": answer["messages"] / answer["seconds"],
            "per_cpu_second": answer["messages"] / answer["cpu_seconds"],
            "peak_rss": answer["peak_rss"],
        }, text

    def count_system_calls(self) -> dict[str, float]:
        """None: a program prepares and measures in one go."""
        return {}


def plan(scale: Scale) -> list[Planned]:
    planned = []
    for work, name in WORK.items():
        case = Case("pipes", f"{name}, {SIZE} B", BASELINE, "per_cpu_second", {})
        case.series = {side: Series(failure=reason) for side in SIDES if (reason := missing(side))}
        able = [side for side in SIDES if side not in case.series]
        planned.append(Planned(case, {side: Exchange(side, work, scale.seconds) for side in able}))
    return planned
