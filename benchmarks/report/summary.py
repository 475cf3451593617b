"""The report's "in brief": what the numbers say, in sentences that are computed and nothing else.

- A side is *better* or *worse* than another one in a case if all of the rounds, and
  ENOUGH_ROUNDS at least, say so; otherwise the case is undecided.
- An *advantage* is a ratio turned so that more than 1 is better: throughput as it is,
  times, CPU and memory the other way round.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator

import attrs

from measure.agreement import compared_metrics
from report import readable
from report.model import METRICS, Case, Report

OURS = "trio-uring"
"""The family whose sides are compared with all others."""
THEIRS = "trio-epoll"
ENOUGH_ROUNDS = 3


@attrs.frozen
class Standing:
    """How a side did against another one in a case, by the case's metric."""

    case: Case
    advantages: list[float]
    """One for each round that both have."""

    @property
    def median(self) -> float:
        return statistics.median(self.advantages)

    @property
    def better(self) -> bool:
        return len(self.advantages) >= ENOUGH_ROUNDS and min(self.advantages) > 1

    @property
    def worse(self) -> bool:
        return len(self.advantages) >= ENOUGH_ROUNDS and max(self.advantages) < 1

    def __str__(self) -> str:
        return f"{readable.ratio(self.advantages)} in {self.case.group}: {self.case.name}"


def standings(report: Report, side: str, other: str) -> list[Standing]:
    return [
        Standing(case, advantages)
        for case in report.cases
        if side in case.series and other in case.series
        if (advantages := case.advantages(side, against=other))
    ]


def sides_of(report: Report, family: str) -> list[str]:
    return [key for key, side in report.sides.items() if side.family == family]


def in_brief(report: Report) -> Iterator[str]:
    """Lines of Markdown."""
    for side in sides_of(report, OURS):
        others = [other for other in report.sides if report.sides[other].family != OURS]
        found = {other: one for other in others if (one := standings(report, side, other))}
        if found:
            yield from _against(report, side, found)
    for sentence in itertools.chain(
        *(find(report) for find in (_without_ratio, _limits, _generator, _failures))
    ):
        yield f"- {sentence}"


def _against(report: Report, side: str, found: dict[str, list[Standing]]) -> Iterator[str]:
    label = report.sides[side].label
    yield f"**{label}** against each other side, by the first number of each case; above 1, it is better:"
    yield ""
    yield "| against | cases | better in | worse in | undecided | best | worst |"
    yield "| --- | ---: | ---: | ---: | ---: | --- | --- |"
    for other, cases in found.items():
        better, worse = sum(one.better for one in cases), sum(one.worse for one in cases)
        counts = (len(cases), better, worse, len(cases) - better - worse)
        ends = (max(cases, key=lambda one: one.median), min(cases, key=lambda one: one.median))
        yield f"| {' | '.join(map(str, (report.sides[other].label, *counts, *ends)))} |"
    yield ""
    for other, cases in found.items():
        if report.sides[other].family != "limit" and any(one.median < 1 for one in cases):
            yield f"- Below {report.sides[other].label} by the median: {'; '.join(_below(cases))}."
    yield ""


def _below(cases: list[Standing]) -> Iterator[str]:
    """For each group: "echo, all 9 (0.52-0.61)", "micro, 2 of 13 (0.85 in cancelled wait, ...)"."""
    for group in dict.fromkeys(one.case.group for one in cases):
        members = [one for one in cases if one.case.group == group]
        below = [one for one in members if one.median < 1]
        if len(below) == len(members) > 1:
            medians = [one.median for one in below]
            yield f"{group}, all {len(below)} ({readable.times(min(medians))}-{readable.times(max(medians))})"
        elif below:
            names = " | ".join(f"{readable.times(one.median)} in {one.case.name}" for one in below)
            yield f"{group}, {len(below)} of {len(members)} ({names})"


def _without_ratio(report: Report) -> Iterator[str]:
    for case in report.cases:
        zero = [
            report.sides[side].label
            for side, one in case.series.items()
            if one.values(case.metric) and not any(one.values(case.metric))
        ]
        if zero:
            yield (
                f"{case.group}: {case.name}: {METRICS[case.metric].title} is 0 for {'; '.join(zero)}, "
                "and counts in no ratio above."
            )


def _limits(report: Report) -> Iterator[str]:
    """Where what is there as the limit is not one."""
    for limit in sides_of(report, "limit"):
        for case in report.cases:
            for metric in compared_metrics(case) if limit in case.series else ():
                above = [
                    f"{report.sides[side].label} ({readable.ratio(advantages)})"
                    for side in case.series
                    if report.sides[side].family != "limit"
                    if (advantages := case.advantages(side, metric, limit))
                    if statistics.median(advantages) > 1
                ]
                if above:
                    yield (
                        f"{case.group}: {case.name}: **the limit is not one here**. Above "
                        f"{report.sides[limit].label} ({METRICS[metric].title}): {'; '.join(above)}."
                    )


def _generator(report: Report) -> Iterator[str]:
    limited = sum(one.limited_by_generator() > 0 for case in report.cases for one in case.series.values())
    if limited:
        yield (
            f"In {limited} series the load generator had no CPU to spare in some of the rounds: they are "
            "marked, and their throughput is a lower bound."
        )


def _failures(report: Report) -> Iterator[str]:
    failed = [side for case in report.cases for side, one in case.series.items() if one.failure]
    if failed:
        labels = "; ".join(report.sides[side].label for side in dict.fromkeys(failed))
        yield f"Failed, or skipped, in some case: {labels}. The sections say where and why."
