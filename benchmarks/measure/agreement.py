"""Do two whole runs of the suite agree?

Compared are the medians of the ratios to the baseline, of each side and case: those of
the case's metric, and those per CPU second. Two of them agree if the larger one is at
most AGREEMENT above the smaller one.
"""

from __future__ import annotations

import math
import statistics

import attrs

from report.model import Case, Report

AGREEMENT = 0.2


@attrs.frozen
class Comparison:
    group: str
    case: str
    side: str
    metric: str
    first: float
    second: float

    @property
    def deviation(self) -> float:
        """By how much the larger one is above the smaller one: 0.2 is 20%."""
        low, high = sorted((self.first, self.second))
        if low == high:
            return 0.0
        return high / low - 1 if low else math.inf

    @property
    def agrees(self) -> bool:
        # Ratios of floats: 2.7 / 2.25 is above 1.2 by a rounding error.
        return self.deviation <= AGREEMENT or math.isclose(self.deviation, AGREEMENT, rel_tol=1e-9)


Key = tuple[str, str, str, str]


def compare(first: Report, second: Report) -> tuple[list[Comparison], list[Key]]:
    """The ratios that both runs have, and (group, case, side, metric) of those that only one has."""
    ours, theirs = _ratios(first), _ratios(second)
    both = [Comparison(*key, ours[key], theirs[key]) for key in ours if key in theirs]
    return both, [*(key for key in ours if key not in theirs), *(key for key in theirs if key not in ours)]


def _ratios(report: Report) -> dict[Key, float]:
    return {
        (case.group, case.name, side, metric): statistics.median(ratios)
        for case in report.cases
        for side in case.series
        if side != case.baseline
        for metric in compared_metrics(case)
        if (ratios := case.ratios(side, metric))
    }


def compared_metrics(case: Case) -> list[str]:
    return list(dict.fromkeys([case.metric, "per_cpu_second"]))
