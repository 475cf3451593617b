"""``python -m trio_uring doctor``: what it prints of `trio_uring.capabilities`.

The exit status is 0 if a run would use io_uring, and 1 if it would not, whether it
would then fail or use epoll.

With ``--json`` it prints one object, whose keys stay: those of `Capabilities`
(``usable``, ``reason``, ``remedy``, ``errno``, ``fallback``, ``kernel``,
``liburing_built``, ``liburing_loaded``, ``liburing_path``, ``python``, ``trio``,
``trio_uring``, ``entries``, ``cq_entries``, ``locked_memory``, ``locked_by_ring``,
``locked_by_buffers``, ``knows_reschedule``, ``wrapped``), and ``setup_flags``, ``features`` and
``operations``, lists of objects with the keys of a row (``name``, ``state``,
``since``, ``gain``, ``reason``, ``remedy``). ``errno`` and ``locked_memory`` may be null;
what does not apply is an empty string, or 0. ``wrapped`` is a list of names.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs

from .capability import Capabilities, Capability, capabilities

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def report(*, as_json: bool) -> tuple[str, int]:
    """The report, and the exit status."""
    found = capabilities()
    text = json.dumps(attrs.asdict(found), indent=2) if as_json else "\n".join(_lines(found))
    return text, 0 if found.usable else 1


def _lines(found: Capabilities) -> Iterator[str]:
    yield f"trio-uring  {found.trio_uring}"
    yield f"kernel      {found.kernel}"
    yield f"liburing    {found.liburing_loaded}, built against {found.liburing_built} ({found.liburing_path})"
    yield f"Python      {found.python}"
    yield f"Trio        {found.trio}"
    yield f"memory      {_memory(found)}"
    yield f"wake-ups    {_wake_ups(found)}"
    if found.wrapped:
        yield f"wrapped     by others, and so slower: {', '.join(found.wrapped)}"
    yield ""
    yield from _verdict(found)
    for title, rows in (
        ("Set-up flags", found.setup_flags),
        ("Features", found.features),
        ("Operations", found.operations),
    ):
        yield ""
        yield title
        yield from _table(rows, found.remedy)


def _verdict(found: Capabilities) -> Iterator[str]:
    if found.usable:
        yield f"A run uses io_uring: {found.entries} submissions, {found.cq_entries} completions."
        return
    if found.fallback == "epoll":
        yield "A run uses epoll, not io_uring, since the fallback is epoll."
    else:
        yield "A run fails: io_uring cannot be used here."
    yield f"  What is in the way: {found.reason}."
    yield f"  What to do: {found.remedy}."


def _memory(found: Capabilities) -> str:
    ring, buffers, limit = found.locked_by_ring, found.locked_by_buffers, found.locked_memory
    taken = f"a ring takes {ring} bytes, and {buffers} for its stream sockets"
    if limit is None:
        return f"{taken}; this process may lock any number"
    return (
        f"{taken}; the processes of this user may lock {limit} together, so {limit // ring} rings fit, "
        f"{limit // (ring + buffers)} of them with stream sockets, if this kernel counts them"
    )


def _wake_ups(found: Capabilities) -> str:
    if found.knows_reschedule:
        return "fast"
    return "by Trio's reschedule, which is called for each task: it is not the one that trio-uring knows"


def _table(rows: Iterable[Capability], told: str) -> Iterator[str]:
    """A line for each row. The remedy ``told`` above the tables is not told again."""
    for row in rows:
        text = row.gain
        if row.reason:
            text += f": {row.reason}"
        if row.remedy and row.remedy != told:
            text += f". {row.remedy}"
        yield f"  {row.name:<14} {row.state:<10} {text}"
