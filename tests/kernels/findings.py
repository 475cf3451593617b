"""What was found out about a kernel, for whoever runs the guest and for the programs in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    from typing_extensions import Self

Outcome = Literal["passed", "failed", "cut", "skipped"]


@attrs.frozen
class Result:
    """Of one check in one guest."""

    check: str
    outcome: Outcome
    """``"cut"``: what was done passed, and the time was over before the rest."""
    figures: str
    """How much was done, in one line; or why nothing was."""
    details: str = ""
    """What is wrong, if something is."""

    def to_line(self) -> str:
        return json.dumps(attrs.asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Self:
        return cls(**json.loads(line))
