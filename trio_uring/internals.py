"""All that is used of Trio's internals; nobody else imports a private name of Trio's.

==========================================  ==========================================
name                                        for
==========================================  ==========================================
_core._run.TheIOManager                     the class of a run's I/O manager
_core._run.setup_runner                     makes a Runner; four parameters
_core._run.Runner.entry_queue.wakeup,       the wake-up behind `run_sync_soon`
.lock
_core._run.Runner.io_manager                to know which runs are ours
_core._run.Runner.is_guest                  whether ticks wait on a worker thread
_core._run.Runner.main_task_outcome         to tell what went wrong while a run was closed
_core._run.Runner.reschedule;               `trio.lowlevel.reschedule`, less a call; or
.runq, .instruments,                        what it does, as long as it does nothing else
_core._run.Task._next_send_fn, ._next_send,
._abort_func
_core._run.GLOBAL_RUN_CONTEXT.runner,       the run and the task that call
.task
_core._run.Task._schedule_points            to tell the steps of a task apart
_core._run.Task._cancel_status              `trio.lowlevel.checkpoint_if_cancelled`, less a
.effectively_cancelled, ._cancel_points,    coroutine
_runner; _core._run.Runner.ki_pending
_core._traps.WaitTaskRescheduled,           what a task that sleeps, or only yields, tells
CancelShieldedCheckpoint                    the run
_socket._SocketType._sock,                  the standard library's socket below Trio's
._did_shutdown_SHUT_WR
_socket._SocketType._resolve_address_nocp   the address that `connect` means
==========================================  ==========================================

The C of native/python uses those of `Task` and of sockets as well, by the same names. The
same in Trio 0.29.0, 0.32.0 and 0.35.0, whose own test suites pass on it. Beside
these, sending holds ``SocketStream._send_conflict_detector``, and `Path` sets
``trio.Path._wrapped_cls``; tests/trio_suite runs with all three.
"""

from __future__ import annotations

import functools
import inspect
from types import FunctionType, ModuleType
from typing import Any

import trio

CHECKED_VERSIONS = ("0.29.0", "0.32.0", "0.35.0")

try:
    from trio._core import _run as trio_run
    from trio._core import _traps as trio_traps
except ImportError:
    # Importing us is no error; `check_trio` finds everything missing.
    trio_run = ModuleType("trio._core._run")
    trio_traps = ModuleType("trio._core._traps")

try:
    from trio._socket import _SocketType
except ImportError:
    _SocketType = None  # type: ignore[assignment, misc]

try:
    from trio._util import ConflictDetector
except ImportError:
    ConflictDetector = object  # type: ignore[assignment, misc]

SocketType: Any = _SocketType
WaitTaskRescheduled: Any = getattr(trio_traps, "WaitTaskRescheduled", None)
CancelShieldedCheckpoint: Any = getattr(trio_traps, "CancelShieldedCheckpoint", None)
context: Any = getattr(trio_run, "GLOBAL_RUN_CONTEXT", None)
"""Has the attributes ``runner`` and ``task`` while the calling thread runs a task."""

_SETUP_PARAMETERS = (
    "clock",
    "instruments",
    "restrict_keyboard_interrupt_to_checkpoints",
    "strict_exception_groups",
)
_MANAGER_METHODS = (
    "get_events",
    "process_events",
    "wait_readable",
    "wait_writable",
    "notify_closing",
    "force_wakeup",
    "statistics",
    "close",
)
_SOCKET_METHODS = (
    "_resolve_address_nocp",
    "accept",
    "connect",
    "detach",
    "dup",
    "fileno",
    "getsockopt",
    "is_readable",
    "recv",
    "recv_into",
    "recvfrom",
    "recvfrom_into",
    "recvmsg",
    "recvmsg_into",
    "send",
    "sendmsg",
    "sendto",
    "shutdown",
)
_RESCHEDULE_USES = {
    "Value",
    "_NO_SEND",
    "_abort_func",
    "_next_send",
    "_next_send_fn",
    "_runner",
    "append",
    "call",
    "coro",
    "custom_sleep_data",
    "force_guest_tick_asap",
    "instruments",
    "is_guest",
    "runq",
    "send",
}

_ASSERTED = ("_runner",)  # not by `python -O`


def check_trio() -> None:
    """Raises RuntimeError if Trio is not laid out as the table above says."""
    if not (missing := missing_from_trio(trio_run)):
        return
    raise RuntimeError(
        f"trio-uring does not know the internals of Trio {trio.__version__}: {', '.join(missing)}. "
        f"It was checked on Trio {', '.join(CHECKED_VERSIONS)}; use one of these, or a newer trio-uring"
    )


def knows_reschedule() -> bool:
    """Whether Trio's `reschedule` uses the very names of the one that
    `wake` of native/python stands in for."""
    function = trio_run.Runner.reschedule
    if not isinstance(function, FunctionType) or function.__code__.co_freevars:
        return False
    return {*function.__code__.co_names, *_ASSERTED} == _RESCHEDULE_USES


@functools.cache
def missing_from_trio(trio_run: ModuleType) -> list[str]:
    missing = [
        f"{owner.__name__}.{name} is missing"
        for owner, names in (
            (
                trio_run,
                (
                    "TheIOManager",
                    "setup_runner",
                    "Runner",
                    "EntryQueue",
                    "Task",
                    "CancelStatus",
                    "GLOBAL_RUN_CONTEXT",
                ),
            ),
            (getattr(trio_run, "TheIOManager", object), _MANAGER_METHODS),
            (trio_traps, ("WaitTaskRescheduled", "CancelShieldedCheckpoint")),
            (ConflictDetector, ("__enter__",)),
            *([(SocketType, _SOCKET_METHODS)] if SocketType else []),
        )
        for name in names
        if not hasattr(owner, name)
    ]
    if SocketType is None:
        missing.append("trio._socket._SocketType is missing")
    if missing:
        return missing
    if not callable(trio_run.setup_runner):
        return ["setup_runner is not a function"]
    parameters = tuple(inspect.signature(trio_run.setup_runner).parameters)
    if parameters != _SETUP_PARAMETERS:
        missing.append(f"setup_runner has the parameters {', '.join(parameters)}")
    if not {"_held", "_msg"} <= vars(ConflictDetector("")).keys():
        missing.append("ConflictDetector._held is missing")
    for owner, names in (
        (trio_run.Runner, ("io_manager", "entry_queue", "is_guest", "ki_pending", "main_task_outcome")),
        (trio_run.EntryQueue, ("wakeup", "lock")),
        (trio_run.Task, ("_schedule_points", "_cancel_points", "_cancel_status", "_runner")),
        (trio_run.CancelStatus, ("effectively_cancelled",)),
        (WaitTaskRescheduled, ("abort_func",)),
    ):
        fields = {field.name for field in getattr(owner, "__attrs_attrs__", ())}
        missing += [f"{owner.__name__}.{name} is missing" for name in names if name not in fields]
    return missing


__all__ = [
    "CancelShieldedCheckpoint",
    "SocketType",
    "WaitTaskRescheduled",
    "check_trio",
    "context",
    "missing_from_trio",
    "trio_run",
]
