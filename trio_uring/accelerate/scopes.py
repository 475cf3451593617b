"""Cancel scopes, which nurseries have as well, with fewer calls.

Two things make a scope expensive in Trio. ``_might_change_registered_deadline`` is a generator, run twice for
each scope as a context manager, to find out that a scope without a deadline still has none. And a new scope's
status asks all below it whether they are cancelled now, although there is nothing below it yet.

What is here finds out the same, and where something has changed does what Trio does, in the same order.
"""

from __future__ import annotations

import contextlib
import inspect
from math import inf
from typing import Any, Final

from trio.lowlevel import enable_ki_protection

from ..loop.trio_internals import Replaced, context, is_trios_own, trio_run


class _DeadlineChange:
    """A context manager: what it encloses may change the deadline that a scope has among the run's."""

    __slots__ = ("_scope",)

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        pass

    @enable_ki_protection
    def __exit__(self, *_: object) -> None:
        scope = self._scope
        old = scope._registered_deadline
        new = inf if scope._cancel_status is None or scope._cancel_called else scope._deadline
        if old != new:
            _register(scope, old, new)


@enable_ki_protection
def _register(scope: Any, old: float, new: float) -> None:
    """Puts a scope's deadline in the place of its old one among the run's."""
    scope._registered_deadline = new
    runner = context.runner
    deadlines = runner.deadlines
    before = deadlines.next_deadline() if runner.is_guest else inf
    if old != inf:
        deadlines.remove(old, scope)
    if new != inf:
        deadlines.add(new, scope)
    if runner.is_guest and deadlines.next_deadline() != before:
        runner.force_guest_tick_asap()


def _might_change_registered_deadline(scope: Any) -> _DeadlineChange:
    """See `_DeadlineChange`."""
    return _DeadlineChange(scope)


def _attach_to_parent(status: Any) -> None:
    """Puts a new status below its parent, and finds out whether it is cancelled, unless it cannot be."""
    parent = status._parent
    if parent is None:
        return
    parent._children.add(status)
    scope = status._scope
    is_new = scope._has_been_entered and scope._cancel_status is None  # its deadline was looked at already
    if not is_new or scope._cancel_called or parent.effectively_cancelled:
        status.recalculate()


def _own_generators() -> dict[str, Any]:
    """Trio's own ``_might_change_registered_deadline``, if nobody has replaced it: a function of contextlib's
    around one of Trio's."""
    found: Any = vars(_CancelScope).get(_DEADLINE) if _CancelScope else None
    is_own = getattr(found, "__globals__", None) is vars(contextlib) and is_trios_own(inspect.unwrap(found))
    return {_DEADLINE: found} if is_own else {}


_CancelScope: Final = getattr(trio_run, "CancelScope", None)
_CancelStatus: Final = getattr(trio_run, "CancelStatus", None)
_DEADLINE: Final = "_might_change_registered_deadline"
REPLACEMENTS: Final = (
    Replaced(_CancelScope, {_DEADLINE: _might_change_registered_deadline}, _own_generators()),
    Replaced(_CancelStatus, {"__attrs_post_init__": _attach_to_parent}, {}),
)
