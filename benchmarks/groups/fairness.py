"""What a checkpoint budget costs others: how late a task runs beside greedy ones.

All are in one run of Trio.

- One greedy task: sides/servers/greedy_server.py tells what it does. Its client is the load
  generator, with one message at a time that takes the server thousands of small echoes. The
  table has how much of it was echoed, and how busy the server's CPU was: all the time, or the
  handler was not greedy.
- Many that read from the page cache: sides/crowd.py tells what they do. On epoll threads read for
  them, 40 at a time, so that there is little that others wait for; the table has what it costs.
"""

from __future__ import annotations

import sys

import attrs

from groups.network import BASELINE
from groups.plan import Planned, Scale
from measure.loads import measurement, start_generator
from measure.processes import SERVER_CPU, Child
from measure.server import Server
from report.model import Case, Measurement
from sides.runtimes import seen

SIDES = (BASELINE, "trio-uring", "trio-uring-budget")
SECONDS = 2.0
"""There have to be a thousand samples for a p99."""
MESSAGE = 1 << 18
TASKS = 2000


@attrs.frozen
class Beside:
    server: Server
    seconds: float

    def measure(self) -> tuple[Measurement, str]:
        options = ("echo", "--size", str(MESSAGE), "--connections", "1")
        with self.server.start() as server:
            self.server.seen(server.pid, server.ready)
            with start_generator(server, options, self.seconds, 0) as generator:
                answer = generator.ask()
                late = server.ask()["late"]
            measured = {**_of_the_greedy(measurement(answer)), **late}
            return measured, self.server.seen_after_load(server.pid, server.ask())

    def count_system_calls(self) -> dict[str, float]:
        return {}


@attrs.frozen
class InCrowd:
    runtime: str
    tasks: int
    seconds: float

    def measure(self) -> tuple[Measurement, str]:
        command = (sys.executable, "-m", "sides.crowd", self.runtime, str(self.tasks))
        with Child(command, cpu=SERVER_CPU) as child:
            measured: Measurement = child.ask({"seconds": self.seconds})
            return measured, seen(self.runtime, child.ready["backend"], child.pid)

    def count_system_calls(self) -> dict[str, float]:
        return {}


def _of_the_greedy(measured: Measurement) -> Measurement:
    """Without the latencies of its messages: those are nobody's here."""
    return {name: measured[name] for name in ("bytes_per_second", "server_busy", "generator_busy")}


def plan(scale: Scale) -> list[Planned]:
    seconds = scale.seconds if scale.name == "smoke" else SECONDS
    greedy = Case("fairness", "a task beside a greedy echo", BASELINE, "p99", {})
    greedy.note = "The percentiles are those of how late the task ran, not of the echo"
    tasks = scale.choose(TASKS, TASKS, 50)
    crowd = Case("fairness", f"tasks beside {tasks:,} that read a cached file", BASELINE, "p99", {})
    crowd.note = (
        "The percentiles are those of how late the others ran, the throughput that of 4 KiB reads. "
        "Trio on epoll reads in worker threads, so its loop has little to do"
    )
    return [
        Planned(greedy, {side: Beside(Server(side, "greedy"), seconds) for side in SIDES}),
        Planned(crowd, {side: InCrowd(side, tasks, 2 * seconds) for side in SIDES}),
    ]
