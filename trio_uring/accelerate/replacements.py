"""The names of Trio that are replaced while a run makes its steps by C, in one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import scopes, steps
from .known import is_known

if TYPE_CHECKING:
    from ..loop.trio_internals import Replaced


def table() -> tuple[Replaced, ...]:
    """The rows. Scopes are those of a Trio that is known only."""
    return (*steps.REPLACEMENTS, *(scopes.REPLACEMENTS if is_known() else ()))
