"""What a checkpoint budget costs others: how late a task runs beside a greedy one.

Both are in one run of Trio: sides/servers/greedy_server.py tells what they do. The client of
the greedy one is the load generator, with one message at a time that takes the server
thousands of small echoes. The table has how much of it was echoed, and how busy the
server's CPU was: all the time, or the handler was not greedy.
"""

from __future__ import annotations

import attrs

from groups.network import BASELINE
from groups.plan import Planned, Scale
from measure.loads import measurement, start_generator
from measure.server import Server
from report.model import Case, Measurement

SIDES = (BASELINE, "trio-uring", "trio-uring-budget")
SECONDS = 2.0
"""There have to be a thousand samples for a p99."""
MESSAGE = 1 << 18


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


def _of_the_greedy(measured: Measurement) -> Measurement:
    """Without the latencies of its messages: those are nobody's here."""
    return {name: measured[name] for name in ("bytes_per_second", "server_busy", "generator_busy")}


def plan(scale: Scale) -> list[Planned]:
    case = Case("fairness", "a task beside a greedy echo", BASELINE, "p99", {})
    case.note = "The percentiles are those of how late the task ran, not of the echo"
    seconds = scale.seconds if scale.name == "smoke" else SECONDS
    return [Planned(case, {side: Beside(Server(side, "greedy"), seconds) for side in SIDES})]
