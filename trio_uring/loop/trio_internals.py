"""All that we use of Trio's internals. No other file imports a private name of Trio's.

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
_socket.from_stdlib_socket;                 what Trio's `accept` makes of a connection
_highlevel_socket.SocketStream
_socket._SocketType._nonblocking_helper     what Trio's methods move data with
_socket._SocketType._accept                 which `accept` of the standard library Trio has
_ssl.SSLStream._ssl_object, ._incoming,     where TLS is made, and what it takes and makes
._outgoing, ._delayed_outgoing
_ssl.SSLStream._state; _ssl._State;         whether a stream is ready, whole and not closed
_ssl.SSLStream._handshook; _ssl._Once.done
_ssl.SSLStream._inner_send_lock,            to take a lock that is free without a checkpoint;
._inner_recv_lock; Lock._owner, ._lot       the stream's tasks share them
_ssl.SSLStream._inner_recv_count,           kept as Trio keeps them
._estimated_receive_size,
._outer_send_conflict_detector,
._outer_recv_conflict_detector
_ssl.SSLStream._retry                       replaced: what Trio's own methods work by; its
                                            parameters
_unix_pipes.FdStream._fd_holder.fd;         the descriptor, -1 once it is closed; the stream's
._send_conflict_detector,                   tasks share the detectors
._receive_conflict_detector
==========================================  ==========================================

Beside the first two, names of Trio's sockets, streams and files are replaced; they stand in tables of
`Replaced`, which session/replacement.py joins, and by which `check_trio` looks for them. Sending also enters
``SocketStream._send_conflict_detector``, and `Path` sets ``trio.Path._wrapped_cls``. native/python uses
attributes of `Task` and of sockets, by the same names.

All this is the same in Trio 0.29.0, 0.32.0 and 0.35.0. Their own test suites pass on io_uring
(tests/trio_suite).
"""

from __future__ import annotations

import functools
import importlib
import inspect
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import trio

from ..ring.errors import UringUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Set

CHECKED_VERSIONS = ("0.29.0", "0.32.0", "0.35.0")

try:
    from trio._core import _run as trio_run
    from trio._core import _traps as trio_traps
except ImportError:
    # It is no error to import trio_uring with such a Trio. `check_trio` says that all is missing.
    trio_run = ModuleType("trio._core._run")
    trio_traps = ModuleType("trio._core._traps")

try:
    from trio import _highlevel_socket as trio_streams
    from trio import _socket as trio_sockets
except ImportError:
    trio_streams = ModuleType("trio._highlevel_socket")
    trio_sockets = ModuleType("trio._socket")

try:
    from trio._util import ConflictDetector
except ImportError:
    ConflictDetector = object  # type: ignore[assignment, misc]

try:
    from trio._ssl import _Once, _State
except ImportError:
    _Once = _State = None  # type: ignore[assignment, misc]


def _class(module: str, name: str) -> Any:
    """A class of Trio's, where it is defined: its public name may have a mock by now. None if this Trio has
    none there."""
    try:
        return getattr(importlib.import_module(f"trio.{module}"), name)
    except (ImportError, AttributeError):
        return None


SocketType: Any = getattr(trio_sockets, "_SocketType", None)
SocketStream: Any = _class("_highlevel_socket", "SocketStream")
SocketListener: Any = _class("_highlevel_socket", "SocketListener")
SSLStream: Any = _class("_ssl", "SSLStream")
FdStream: Any = _class("_unix_pipes", "FdStream")
WaitTaskRescheduled: Any = getattr(trio_traps, "WaitTaskRescheduled", None)
CancelShieldedCheckpoint: Any = getattr(trio_traps, "CancelShieldedCheckpoint", None)
SSLState: Any = _State
"""Of an SSLStream, as is its ``_state``: OK, BROKEN or CLOSED."""
context: Any = getattr(trio_run, "GLOBAL_RUN_CONTEXT", None)
"""Has the attributes ``runner`` and ``task`` while the calling thread runs a task of Trio's."""


@attrs.frozen(eq=False)
class Replaced:
    """Names of one class or module of Trio's, and our functions that replace them while runs are on
    io_uring."""

    owner: Any
    """The class or module; None if this Trio does not have it."""
    functions: Mapping[str, Callable[..., Any]]
    original: dict[str, Any]
    """Trio's own functions, by name. Each is added when it is first replaced, and kept for good."""
    vital: bool = attrs.field(default=False, kw_only=True)
    """Whether sockets have to work by readiness while one of these names is somebody else's. His function
    may call Trio's own, which knows nothing of data that we have read ahead or not submitted yet."""


class SocketMarks(Protocol):
    """The attributes that we set on Trio's sockets, and the last two of them on its SSLStreams and FdStreams.
    Each is missing until it is needed."""

    _uring: object
    """The socket's `Connection`, of this run or of an earlier one."""
    _uring_acceptor: object
    """A listening socket's `Acceptor`, of this run or of an earlier one."""
    _uring_nothing_ahead: bool
    """Others may receive or accept from the descriptor too, so nothing is taken ahead."""
    _uring_at_once: bool
    """The socket is of a kind that has no connection: its calls are made at once, and wait by readiness."""
    _uring_excluded: bool
    """Set on the class: all sockets work by readiness (`Replaced.vital`)."""
    _uring_tls: object
    """An SSLStream's `Tls`, of this run or of an earlier one."""
    _uring_pipe: object
    """An FdStream's `RunPipe`, of this run or of an earlier one."""


TASK_ATTRIBUTES = (
    "_abort_func",
    "_cancel_points",
    "_cancel_status",
    "context",
    "coro",
    "custom_sleep_data",
    "_next_send",
    "_next_send_fn",
    "_runner",
    "_schedule_points",
)
RUNNER_ATTRIBUTES = ("instruments", "io_manager", "ki_pending", "main_task", "runq")
STATUS_ATTRIBUTES = ("effectively_cancelled",)
"""The attributes of Trio's tasks, its runner and its CancelStatus that C uses
(native/python/attributes.h)."""
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
_SSL_STREAM_HAS = {
    "_delayed_outgoing",
    "_estimated_receive_size",
    "_handshook",
    "_incoming",
    "_inner_recv_count",
    "_inner_recv_lock",
    "_inner_send_lock",
    "_outer_recv_conflict_detector",
    "_outer_send_conflict_detector",
    "_outgoing",
    "_ssl_object",
    "_state",
    "transport_stream",
}
_FD_STREAM_HAS = {"_fd_holder", "_receive_conflict_detector", "_send_conflict_detector"}
_RETRY_PARAMETERS = ("self", "fn", "args", "ignore_want_read", "is_handshake")
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


def check_trio(table: tuple[Replaced, ...]) -> None:
    """Raises UringUnavailableError if this Trio lacks something that we use, or a name that ``table``
    replaces. Any thread."""
    try:
        missing = _missing_parts(trio_run) or _missing_names(table)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # it cannot even be looked at
        missing = [str(error)]
    if missing:
        raise unknown_trio(", ".join(missing))


def _missing_names(table: tuple[Replaced, ...]) -> list[str]:
    missing = [
        f"{name_of(owner, name)} is missing"
        for owner, present, wanted in _names_of(table)
        if not wanted <= present.keys()
        for name in wanted
        if name not in present
    ]
    found = vars(trio_run)
    ssl_stream = vars(SSLStream)
    missing += _unknown_ssl_stream(ssl_stream["__init__"], ssl_stream.get("_retry"))
    missing += _unknown_fd_stream(vars(FdStream)["__init__"])
    return missing + _unknown_setup(found["setup_runner"]) + _unknown_manager(found["TheIOManager"])


@functools.cache
def _names_of(table: tuple[Replaced, ...]) -> list[tuple[Any, Mapping[str, Any], Set[str]]]:
    """Each owner of ``table``, the present values of its names, and the names that are replaced."""
    return [(replaced.owner, vars(replaced.owner), replaced.functions.keys()) for replaced in table]


def unknown_trio(what: str) -> UringUnavailableError:
    """The error for a Trio that lacks something that we use: ``what`` is missing or different."""
    return UringUnavailableError(
        f"trio-uring does not know the internals of Trio {trio.__version__}: {what}",
        f"It was checked on Trio {', '.join(CHECKED_VERSIONS)}; use one of these, or a newer trio-uring",
    )


def name_of(owner: Any, name: str) -> str:
    """The full name of a class's or module's attribute: ``trio.SocketStream.send_all``."""
    if isinstance(owner, ModuleType):
        return f"{owner.__name__}.{name}"
    return f"{owner.__module__}.{owner.__qualname__}.{name}"


def is_trios_own(value: object) -> bool:
    """Whether a function is one of Trio's. A wrapper is not, even if it has the name and the module of
    what it wraps."""
    return isinstance(value, FunctionType) and str(value.__globals__.get("__name__")).split(".")[0] == "trio"


def knows_reschedule() -> bool:
    """Whether Trio's `reschedule` is the one whose work `wake` of native/python can do. Decided by the
    names that its code uses."""
    function = getattr(getattr(trio_run, "Runner", None), "reschedule", None)
    if not isinstance(function, FunctionType) or function.__code__.co_freevars:
        return False
    return {*function.__code__.co_names, *_ASSERTED} == _RESCHEDULE_USES


@functools.cache
def _missing_parts(trio_run: ModuleType) -> list[str]:
    """The internals that we use without replacing them, and that this Trio lacks."""
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
            (trio_traps, ("WaitTaskRescheduled", "CancelShieldedCheckpoint")),
            (trio_sockets, ("_SocketType", "from_stdlib_socket")),
            (trio_streams, ("SocketStream", "SocketListener")),
            (ConflictDetector, ("__enter__",)),
            *([(SocketType, ("_resolve_address_nocp",))] if SocketType else []),
        )
        for name in names
        if not hasattr(owner, name)
    ]
    streams = {"SSLStream": SSLStream, "FdStream": FdStream}
    missing += [f"{name} is missing" for name, found in streams.items() if found is None]
    if missing:
        return missing
    if not {"_held", "_msg"} <= vars(ConflictDetector("")).keys():
        missing.append("ConflictDetector._held is missing")
    if not hasattr(trio_run.Runner, "reschedule"):
        missing.append("Runner.reschedule is missing")
    for owner, names in (
        (trio_run.Runner, ("io_manager", "entry_queue", "is_guest", "ki_pending", "main_task_outcome")),
        (trio_run.EntryQueue, ("wakeup", "lock")),
        (
            trio_run.Task,
            (
                "_schedule_points",
                "_cancel_points",
                "_cancel_status",
                "_runner",
                "coro",
            ),
        ),
        (trio_run.CancelStatus, ("effectively_cancelled",)),
        (WaitTaskRescheduled, ("abort_func",)),
    ):
        fields = {field.name for field in getattr(owner, "__attrs_attrs__", ())}
        missing += [f"{owner.__name__}.{name} is missing" for name in names if name not in fields]
    return missing


@functools.cache
def _unknown_ssl_stream(init: Any, retry: Any) -> list[str]:
    """Of these two methods: what a stream has is read off the one that makes it, unless that is somebody's
    wrapper."""
    missing = [f"_ssl.{name} is missing" for name in ("_State", "_Once") if globals()[name] is None]
    if is_trios_own(init):
        lacks = sorted(_SSL_STREAM_HAS.difference(init.__code__.co_names))
        missing += [f"SSLStream.{name} is missing" for name in lacks]
    if is_trios_own(retry) and tuple(inspect.signature(retry).parameters) != _RETRY_PARAMETERS:
        missing.append("SSLStream._retry has other parameters")
    for owner, names in ((_State, ("OK", "BROKEN")), (_Once, ("done",)), (trio.Lock(), ("_owner", "_lot"))):
        missing += [f"{name} of {owner!r} is missing" for name in names if owner and not hasattr(owner, name)]
    return missing


@functools.cache
def _unknown_fd_stream(init: Any) -> list[str]:
    """The same of an FdStream, by the method that makes it."""
    lacks = _FD_STREAM_HAS.difference(init.__code__.co_names) if is_trios_own(init) else ()
    return [f"FdStream.{name} is missing" for name in sorted(lacks)]


# Others may have replaced these two names, before us or since then.


def _unknown_setup(setup_runner: Any) -> list[str]:
    """What is wrong with a function that is to be Trio's ``setup_runner``."""
    global _known_setup  # noqa: PLW0603
    if setup_runner is _known_setup:
        return []
    if not callable(setup_runner):
        return ["setup_runner is not a function"]
    parameters = inspect.signature(setup_runner).parameters
    # The parameters of a wrapper that takes any arguments say nothing about Trio.
    if tuple(parameters) not in (_SETUP_PARAMETERS, ("args", "kwargs")):
        return [f"setup_runner has the parameters {', '.join(parameters)}"]
    _known_setup = setup_runner
    return []


_known_setup: Any = None
"""The last ``setup_runner`` that was found good. To ask for a signature takes longer than all other
checks."""


def _unknown_manager(manager: Any) -> list[str]:
    """What is wrong with a class that is to be Trio's ``TheIOManager``."""
    if not isinstance(manager, type):
        return [] if callable(manager) else ["TheIOManager is not a class"]
    return [
        f"{manager.__name__}.{name} is missing" for name in _MANAGER_METHODS if not hasattr(manager, name)
    ]


__all__ = [
    "CancelShieldedCheckpoint",
    "FdStream",
    "Replaced",
    "SSLState",
    "SSLStream",
    "SocketListener",
    "SocketStream",
    "SocketType",
    "WaitTaskRescheduled",
    "check_trio",
    "context",
    "is_trios_own",
    "name_of",
    "trio_run",
    "trio_sockets",
    "trio_streams",
    "trio_traps",
    "unknown_trio",
]
