"""Runs on io_uring: `run`, `start_guest_run`, `install`; the one place that touches Trio's internals.

Trio makes a run's I/O manager in ``setup_runner``, by calling ``TheIOManager()``.
Both names are replaced while anybody wants io_uring: while it is installed, and
while a run of ours lasts. A run that nobody asked to be on io_uring, in another
thread perhaps, still gets Trio's own manager from them.

So are methods of Trio's sockets and streams (sockets.py and its siblings),
``trio.socket.fromfd`` and ``trio.aclose_forcefully``: `_METHODS` is the table of all that
is replaced. They call Trio's own for whatever is not ours.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import trio

from . import connecting, receiving, sockets, streams
from . import ring as ring_module
from .errors import UringFallbackWarning, UringUnavailableError
from .internals import SocketType, check_trio, trio_run
from .manager import UringManager
from .options import RingOptions, with_environment
from .wakeup import UringWakeup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    import outcome
    from typing_extensions import TypeVarTuple, Unpack

    PosArgsT = TypeVarTuple("PosArgsT")

RetT = TypeVar("RetT")

_DEFAULT = RingOptions()


class TrioRunArguments(TypedDict, total=False):
    """The keyword arguments of `trio.run`."""

    clock: trio.abc.Clock | None
    instruments: Sequence[trio.abc.Instrument]
    restrict_keyboard_interrupt_to_checkpoints: bool
    strict_exception_groups: bool


class TrioGuestArguments(TrioRunArguments, total=False):
    """The keyword arguments of `trio.lowlevel.start_guest_run`."""

    run_sync_soon_threadsafe: Callable[[Callable[[], object]], object]
    done_callback: Callable[[outcome.Outcome[Any]], object]
    run_sync_soon_not_threadsafe: Callable[[Callable[[], object]], object] | None
    host_uses_signal_set_wakeup_fd: bool


def run(
    async_fn: Callable[[Unpack[PosArgsT]], Awaitable[RetT]],
    *args: Unpack[PosArgsT],
    ring: RingOptions | None = None,
    **trio_run_arguments: Unpack[TrioRunArguments],
) -> RetT:
    """Runs ``async_fn(*args)`` as `trio.run` does, on io_uring.

    Args:
      ring: how the ring is set up. Default: as `install` was told, else `RingOptions()`.
      **trio_run_arguments: those of `trio.run`, with the same meaning.

    Returns and raises what `trio.run` does, and besides:

    Raises:
      UringUnavailableError: io_uring cannot be used here, and no fallback was asked
        for. ``async_fn`` has not been called.
      RuntimeError: this version of Trio is unknown to us.
    """
    __tracebackhide__ = True
    with _requested(ring):
        outer, _request.manager = _request.manager, None  # Trio refuses a run inside another
        try:
            return trio.run(async_fn, *args, **trio_run_arguments)
        finally:
            _close_left_open()
            _request.manager = outer


def _close_left_open() -> None:
    """The manager of this thread's run, which is over. An exception out of a signal handler may
    leave Trio's loop past its ``finally``: at the jump back to ``while batch`` CPython has none."""
    manager = None if _request.manager is None else _request.manager()
    if manager is not None:
        manager.close()


def start_guest_run(
    async_fn: Callable[..., Awaitable[RetT]],
    *args: object,
    ring: RingOptions | None = None,
    **trio_guest_arguments: Unpack[TrioGuestArguments],
) -> None:
    """Starts a guest run as `trio.lowlevel.start_guest_run` does, on io_uring.

    The ring belongs to the host loop's thread. While the host is idle a worker
    thread waits; it never touches the ring.

    Args and errors: those of `run` and of `trio.lowlevel.start_guest_run`.
    """
    with _requested(ring):
        trio.lowlevel.start_guest_run(async_fn, *args, **trio_guest_arguments)


def install(ring: RingOptions | None = None) -> None:
    """Every later `trio.run` and guest run of the process uses io_uring.

    That includes the runs that libraries make. Runs in progress stay as they are.
    Installing again replaces the options; one `uninstall` undoes it all. Child
    processes that are forked inherit it, those that are spawned do not.

    Raises:
      UringUnavailableError: io_uring cannot be used here, and no fallback was asked
        for. Nothing is installed then.
      RuntimeError: this version of Trio is unknown to us.
    """
    options = resolve_options(ring)
    check_trio()
    try:
        opened = ring_module.open_ring(options)
    except UringUnavailableError as error:
        _fall_back(options, error)
        _replacement.install(options, warned=True)
    else:
        opened.release()
        _replacement.install(options)


def uninstall() -> None:
    """Later runs use what Trio would choose. Runs in progress finish on io_uring.
    Does nothing if nothing is installed."""
    _replacement.install(None)


@contextmanager
def installed(ring: RingOptions | None = None) -> Iterator[None]:
    """A context manager: `install`, and afterwards what was installed before."""
    before, warned = _replacement.installed, _replacement.warned
    install(ring)
    try:
        yield
    finally:
        _replacement.install(before, warned=warned)


class _Request(threading.local):
    """The options that this thread's next run was asked to use."""

    options: RingOptions | None = None
    served = False
    """`_setup_runner` will serve the manager that is made now."""
    manager: weakref.ref[IOManager] | None = None
    """The one that was made last."""


_request = _Request()


@contextmanager
def _requested(ring: RingOptions | None) -> Iterator[None]:
    __tracebackhide__ = True
    options = resolve_options(ring)
    check_trio()
    thread = _replacement.acquire()
    try:
        _request.options = options
        yield
    finally:
        _request.options = None
        _replacement.release(thread)


def resolve_options(ring: RingOptions | None) -> RingOptions:
    """What a run that is given ``ring`` uses: that, or what is installed, or the
    defaults; as the environment overrides them."""
    if ring is not None and not isinstance(ring, RingOptions):
        raise TypeError(f"ring has to be a trio_uring.RingOptions, not {ring!r}")
    return with_environment(ring or _replacement.installed or _DEFAULT)


def current_manager() -> UringManager | None:
    """The manager of the run that calls; None if that is not on io_uring.

    Raises:
      RuntimeError: called outside of a Trio run.
    """
    try:
        manager: object = trio_run.GLOBAL_RUN_CONTEXT.runner.io_manager
    except AttributeError:
        raise RuntimeError("must be called from async context") from None
    return manager if isinstance(manager, UringManager) else None


class IOManager(UringManager):
    """What ``TheIOManager`` is replaced by: a manager on io_uring for a run that is
    to have one, and an instance of Trio's own class for any other."""

    def __new__(cls) -> Any:
        """Opens the run's ring, before anything of the run exists.

        Raises:
          UringUnavailableError: as `run` says.
        """
        requested, _request.options = _request.options, None
        options = requested or _replacement.installed
        if options is None or not _request.served:
            return _replacement.original_manager()
        try:
            opened = ring_module.open_ring(options)
        except UringUnavailableError as error:
            if requested or not _replacement.warned:
                _fall_back(options, error)
            return _replacement.original_manager()
        manager = super().__new__(cls)
        UringManager.__init__(manager, opened)
        _request.manager = weakref.ref(manager)
        return manager

    def __init__(self) -> None:
        """`__new__` has done it, for a ring that may not open."""

    _thread: int | None = None

    def hold(self) -> None:
        """The names stay replaced until `close`: Trio looks its manager up by them."""
        self._thread = _replacement.acquire()

    def close(self) -> None:
        try:
            super().close()
        finally:
            if self._thread is not None:
                thread, self._thread = self._thread, None
                _replacement.release(thread)


def _setup_runner(*args: Any, **kwargs: Any) -> trio_run.Runner:
    _request.served = True
    try:
        runner = _replacement.original_setup(*args, **kwargs)
    finally:
        _request.served = False
    manager: object = runner.io_manager
    if isinstance(manager, IOManager):
        manager.hold()
        manager.serve(runner)
        entry_queue = runner.entry_queue
        entry_queue.wakeup = UringWakeup(manager, entry_queue.wakeup, entry_queue.lock)  # type: ignore[assignment]
    return runner


_METHODS: dict[Any, dict[str, Any]] = {
    SocketType: {**sockets.REPLACEMENTS, **receiving.REPLACEMENTS, **connecting.REPLACEMENTS},
    trio.socket: sockets.FUNCTIONS,
    trio.SocketListener: connecting.LISTENER_REPLACEMENTS,
    **streams.REPLACEMENTS,
}
_ORIGINAL_METHODS = {
    owner: {name: getattr(owner, name, None) for name in functions} for owner, functions in _METHODS.items()
}


class _Replacement:
    """Trio's two names: replaced while somebody holds on to that, restored after.

    A holder is known by its thread, because a forked child has the forking thread
    only; what is installed belongs to no thread.
    """

    original_manager: Callable[[], Any]
    original_setup: Callable[..., trio_run.Runner]

    def __init__(self) -> None:
        self.installed: RingOptions | None = None
        self.warned = False
        """`install` has said already that its runs fall back to epoll."""
        self._lock = threading.RLock()
        self._holders: list[int] = []

    @property
    def replaced(self) -> bool:
        return bool(self._holders)

    def install(self, options: RingOptions | None, *, warned: bool = False) -> None:
        with self._lock:
            if options is not None and self.installed is None:
                self.acquire(_NO_THREAD)
            elif options is None and self.installed is not None:
                self.release(_NO_THREAD)
            self.installed = options
            self.warned = warned

    def acquire(self, thread: int | None = None) -> int:
        """Returns what `release` wants: ``thread``, by default this one."""
        holder = threading.get_ident() if thread is None else thread
        with self._lock:
            names = vars(trio_run)
            # An interrupt may have come between the names and the holder.
            if not self._holders and names["TheIOManager"] is not IOManager:
                self.original_manager, self.original_setup = names["TheIOManager"], names["setup_runner"]
                for owner, functions in _METHODS.items():
                    for name, function in functions.items():
                        setattr(owner, name, function)
                names.update(TheIOManager=IOManager, setup_runner=_setup_runner)
            self._holders.append(holder)
        return holder

    def release(self, thread: int) -> None:
        with self._lock:
            self._holders.remove(thread)
            if not self._holders:
                names = vars(trio_run)
                names.update(TheIOManager=self.original_manager, setup_runner=self.original_setup)
                for owner, functions in _ORIGINAL_METHODS.items():
                    for name, function in functions.items():
                        setattr(owner, name, function)

    def before_fork(self) -> None:
        self._lock.acquire()

    def after_fork(self) -> None:
        self._lock.release()

    def after_fork_in_child(self) -> None:
        for thread in set(self._holders) - {threading.get_ident(), _NO_THREAD}:
            while thread in self._holders:
                self.release(thread)
        self._lock.release()


# No thread has this identifier.
_NO_THREAD = 0

_replacement = _Replacement()
os.register_at_fork(
    before=_replacement.before_fork,
    after_in_parent=_replacement.after_fork,
    after_in_child=_replacement.after_fork_in_child,
)


def _fall_back(options: RingOptions, error: UringUnavailableError) -> None:
    """Warns, if the options allow to go on without io_uring; else raises."""
    if options.fallback == "error":
        raise error
    warnings.warn(
        UringFallbackWarning(f"This runs on epoll, not on io_uring: {error.reason}. {error.remedy}"),
        stacklevel=_stack_level_of_user(),
    )


def _stack_level_of_user() -> int:
    """How many frames up the first one is that is neither ours nor Trio's."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in _NOT_THE_USERS:
        level += 1
        frame = frame.f_back
    return level


_NOT_THE_USERS = ("trio", "trio_uring", "contextlib")


__all__ = ["install", "installed", "run", "start_guest_run", "uninstall"]
