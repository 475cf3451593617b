"""What a run of the suite is made of, and the file that keeps it.

- A *side* is what is compared: Trio on epoll, uvloop, a C program.
- A *case* is one piece of work that several sides do: a message size, a number of
  connections. One side is its baseline.
- A *series* is one side of one case: a measurement for each round, what was seen at
  work while it was measured, and a failure's text where there is none.
- A *measurement* maps the names of METRICS to numbers. What could not be measured, or
  not from enough samples, is left out.

Ratios are computed round by round against the case's baseline, so that what changes
between rounds (another load, another clock speed) cancels out.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import attrs

Measurement = dict[str, float]

FORMAT = 1
"""Of the JSON file; a reader refuses another one."""


@attrs.frozen
class Metric:
    title: str
    unit: str
    """"/s" is a plain number, "" a share; "s", "B" and "B/s" are written with a prefix."""
    more_is_better: bool


METRICS = {
    "rate": Metric("throughput", "/s", True),
    "per_cpu_second": Metric("per CPU second", "/s", True),
    "bytes_per_second": Metric("throughput", "B/s", True),
    "seconds": Metric("time", "s", False),
    "p50": Metric("p50", "s", False),
    "p99": Metric("p99", "s", False),
    "p99.9": Metric("p99.9", "s", False),
    "peak_rss": Metric("peak RSS", "B", False),
    "bytes_each": Metric("memory for each", "B", False),
    "cpu": Metric("CPU for each", "s", False),
    "cpu_share": Metric("CPU while idle", "", False),
    "iowait_share": Metric("I/O wait while idle", "", False),
    "lost_share": Metric("lost", "", False),
    "server_busy": Metric("server's CPU", "", False),
    "generator_busy": Metric("load generator's CPU", "", False),
}


@attrs.frozen
class Side:
    label: str
    """What readers see: "Trio, io_uring"."""
    family: str
    """A key of style.COLOURS: the same runtime has one colour everywhere."""


@attrs.define
class Series:
    rounds: list[Measurement] = attrs.field(factory=list)
    """In the order in which they were run. One that failed is empty, so that those after it
    still stand beside the same round of the other sides."""
    seen: str = ""
    """The backend that was at work, as sides/runtimes.py saw it; the last round's, since each is checked."""
    system_calls: dict[str, float] = attrs.field(factory=dict)
    """For each operation, by name; from a pass of its own, in which the server is slowed down."""
    failure: str = ""
    """Why there are no rounds: what is missing, what the side does not support, what broke."""

    def values(self, metric: str) -> list[float]:
        return [one[metric] for one in self.rounds if metric in one]

    def median(self, metric: str) -> float | None:
        values = self.values(metric)
        return statistics.median(values) if values else None

    def limited_by_generator(self) -> int:
        """In how many rounds the load generator had no CPU to spare and the server did:
        its throughput is then a lower bound."""
        return sum(
            one.get("generator_busy", 0.0) > GENERATOR_LIMIT and one.get("server_busy", 1.0) < GENERATOR_LIMIT
            for one in self.rounds
        )


GENERATOR_LIMIT = 0.95


@attrs.define
class Case:
    group: str
    name: str
    baseline: str
    """A key of ``series``."""
    metric: str
    """The key of METRICS by which the sides are compared."""
    series: dict[str, Series]
    """By the side's key, in the order of the report."""
    parameters: dict[str, float] = attrs.field(factory=dict)
    """What a chart draws the case over: {"connections": 50, "size": 64}."""
    note: str = ""
    """What a reader has to know of it: a limit of the machine."""

    def ratios(self, side: str, metric: str | None = None, against: str | None = None) -> list[float]:
        """Of each round that both sides have: the side's value / the other's, which is the
        baseline unless it is named."""
        metric = metric or self.metric
        others = self.series[against or self.baseline].rounds
        pairs = zip(self.series[side].rounds, others, strict=False)
        return [ours[metric] / base[metric] for ours, base in pairs if base.get(metric) and metric in ours]

    def advantages(self, side: str, metric: str | None = None, against: str | None = None) -> list[float]:
        """The ratios, turned so that more than 1 is better for the side. Of nothing there is none."""
        more_is_better = METRICS[metric or self.metric].more_is_better
        ratios = [ratio for ratio in self.ratios(side, metric, against) if ratio]
        return ratios if more_is_better else [1 / ratio for ratio in ratios]


@attrs.define
class Report:
    header: dict[str, str]
    """Machine, kernel, versions, how the run was made; in the order of the report."""
    sides: dict[str, Side]
    cases: list[Case]
    notes: list[str] = attrs.field(factory=list)
    """What a reader has to know: a tool that is missing, a limit of the machine."""

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"format": FORMAT, **attrs.asdict(self)}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Report:
        data = json.loads(path.read_text())
        if data.pop("format") != FORMAT:
            raise ValueError(f"{path} was written by another version of this suite")
        data["sides"] = {key: Side(**side) for key, side in data["sides"].items()}
        for case in data["cases"]:
            case["series"] = {key: Series(**series) for key, series in case["series"].items()}
        data["cases"] = [Case(**case) for case in data["cases"]]
        return cls(**data)
