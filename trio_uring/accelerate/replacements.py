"""The names of Trio that are replaced while a run makes its steps by C, in one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import scopes, steps
from .known import why_unknown

if TYPE_CHECKING:
    from ..loop.trio_internals import Replaced


def table() -> tuple[Replaced, ...]:
    """The rows; none if this Trio is not known."""
    return () if why_unknown() else (*steps.REPLACEMENTS, *scopes.REPLACEMENTS)
