"""``python -m trio_uring doctor``: the report that it makes of `trio_uring.capabilities`.

The exit status is 0 if a run would use io_uring; 1 if it would not, whether it would then
fail or use epoll, or if the environment is wrong, which standard error tells; and 2 for a
command line that makes no sense.

With ``--json`` it prints one object, whose keys stay: those of `Capabilities`
(``usable``, ``reason``, ``remedy``, ``errno``, ``fallback``, ``kernel``,
``liburing_built``, ``liburing_loaded``, ``liburing_path``, ``liburing_inside``, ``python``,
``trio``, ``trio_uring``, ``entries``, ``cq_entries``, ``locked_memory``, ``locked_by_ring``,
``locked_by_buffers``, ``open_files``, ``open_files_hard``, ``opened_by_run``, ``options``,
``start_file``, ``knows_reschedule``, ``accelerated``, ``not_accelerated``, ``wrapped``), and
``setup_flags``, ``features`` and ``operations``, lists of objects with the keys of a row
(``name``, ``state``, ``since``, ``gain``, ``reason``, ``remedy``). ``errno`` and
``locked_memory`` may be null; what does not apply is an empty string, or 0. ``wrapped`` is a
list of names, ``options`` an object of those that are not as by default.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import attrs

from .capabilities import Capabilities, Capability, capabilities

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator


def report(*, as_json: bool) -> tuple[str, int]:
    """The text of the report, and the exit status."""
    found = capabilities()
    text = json.dumps(attrs.asdict(found), indent=2) if as_json else "\n".join(_lines(found))
    return text, 0 if found.usable else 1


def _lines(found: Capabilities) -> Iterator[str]:
    yield f"trio-uring  {found.trio_uring}"
    yield f"kernel      {found.kernel}"
    yield f"liburing    {_liburing(found)}"
    yield f"Python      {found.python}"
    yield f"Trio        {found.trio}"
    yield f"options     {_options(found)}"
    yield f"memory      {_memory(found)}"
    yield f"open files  {_open_files(found)}"
    yield f"children    {_children(found)}"
    yield f"wake-ups    {_wake_ups(found)}"
    yield f"steps       {_steps(found)}"
    if found.wrapped:
        yield f"wrapped     by others, and so slower: {', '.join(found.wrapped)}"
    yield ""
    yield from _verdict(found)
    yield ""
    tables = {
        "Set-up flags": found.setup_flags,
        "Features": found.features,
        "Operations": found.operations,
    }
    if reason := _reason_of_all(tables.values()):
        counted = [f"{len(rows)} {title.lower()}" for title, rows in tables.items()]
        yield f"Nothing can be said of {', '.join(counted[:-1])} and {counted[-1]}: {reason}."
        return
    yield from _LEGEND
    for title, rows in tables.items():
        yield ""
        yield title
        yield from _table(rows, found.remedy)


_LEGEND: Final = (
    "used: a run that starts now works with it.  available: the kernel has it, and no run here needs it.",
    "off: it is not used, for the reason that is told.  missing: the kernel lacks it, or refuses it.",
)


def _reason_of_all(tables: Collection[Iterable[Capability]]) -> str:
    """The reason why everything is missing, if everything is, and for the same reason; else empty."""
    reasons = {row.reason if row.state == "missing" else "" for rows in tables for row in rows}
    return reasons.pop() if len(reasons) == 1 else ""


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


def _liburing(found: Capabilities) -> str:
    if found.liburing_inside:
        return f"{found.liburing_loaded}, inside the core ({found.liburing_path})"
    return f"{found.liburing_loaded}, built against {found.liburing_built} ({found.liburing_path})"


def _memory(found: Capabilities) -> str:
    ring, buffers, limit = found.locked_by_ring, found.locked_by_buffers, found.locked_memory
    taken = f"a ring takes {ring} bytes, and {buffers} for its stream sockets"
    if limit is None:
        return f"{taken}; this process may lock any number"
    return (
        f"{taken}; the processes of this user may lock {limit} together, so {limit // ring} rings fit, "
        f"{limit // (ring + buffers)} of them with stream sockets, if this kernel counts them"
    )


def _options(found: Capabilities) -> str:
    return ", ".join(f"{name}={value}" for name, value in found.options.items()) or "all by default"


def _open_files(found: Capabilities) -> str:
    own, soft, hard = found.opened_by_run, found.open_files, found.open_files_hard
    text = f"a run takes {own}; this process may have {soft} open together"
    text += f", so {max(0, soft - own - 3)} connections and files at most beside one run"
    return text + (f"; it may raise that to {hard} (ulimit -n)" if hard != soft else "")


def _children(found: Capabilities) -> str:
    if found.start_file:
        return f"Python processes that a program starts are taken along, by {found.start_file}"
    return (
        "Python processes that a program starts stay on epoll: no folder that they read as they start "
        "has trio_uring.pth. Install trio-uring with pip, for this Python"
    )


def _wake_ups(found: Capabilities) -> str:
    if found.knows_reschedule:
        return "fast"
    return "by Trio's reschedule, which is called for each task: it is not the one that trio-uring knows"


def _steps(found: Capabilities) -> str:
    if found.accelerated:
        return "by C"
    if found.not_accelerated and found.options.get("accelerate"):
        return f"by Trio's loop, although accelerate asks for C: {found.not_accelerated}"
    return "by Trio's loop"


def _table(rows: Iterable[Capability], told: str) -> Iterator[str]:
    """A line for each row. The remedy ``told``, which stands above the tables, is not repeated."""
    for row in rows:
        text = row.gain
        if row.reason:
            text += f": {row.reason}"
        if row.remedy and row.remedy != told:
            text += f". {row.remedy}"
        yield f"  {row.name:<14} {row.state:<10} {text}"
