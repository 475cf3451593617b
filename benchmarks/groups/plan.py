"""What a group of benchmarks hands to the suite: its cases, with a job for each side.

The suite calls each job once a round, the sides of a case one right after the other,
in an order that changes from round to round.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeVar

import attrs

from report.model import Case, Measurement

T = TypeVar("T")


@attrs.frozen
class Scale:
    """How much is measured."""

    name: Literal["full", "quick", "smoke"]
    rounds: int
    seconds: float
    """Of one measurement of a server under load."""
    warmup: float
    counted: Literal["all", "some", "none"]
    """Whose system calls: everyone's, or those of two sides of the first case of each group, since
    a single one may take 100 ms under strace."""

    def choose(self, full: T, quick: T, smoke: T) -> T:
        """An amount of work: files, bytes, connections."""
        return {"full": full, "quick": quick, "smoke": smoke}[self.name]


SCALES = {
    "full": Scale("full", 5, 0.5, 0.1, "all"),
    "quick": Scale("quick", 2, 0.4, 0.1, "none"),
    "smoke": Scale("smoke", 1, 0.2, 0.01, "some"),
}


class Job(Protocol):
    def measure(self) -> tuple[Measurement, str]:
        """One round, in fresh processes: what was measured, and the backend that was seen.

        Raises WrongBackendError or ChildError.
        """

    def count_system_calls(self) -> dict[str, float]:
        """For each operation, by name; empty where that says nothing."""


@attrs.frozen
class Planned:
    case: Case
    """Its series are made by the suite, one for each job; a side that cannot do the case
    is in ``series`` already, with its failure."""
    jobs: dict[str, Job]
    """By the side's key."""


def counted(planned: list[Planned], scale: Scale) -> list[Planned]:
    """Those whose system calls are to be counted."""
    if scale.counted == "all":
        return planned
    first = {one.case.group: one for one in reversed(planned)} if scale.counted == "some" else {}
    return [Planned(one.case, dict(list(one.jobs.items())[:2])) for one in reversed(first.values())]
