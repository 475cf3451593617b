"""Runs on io_uring: `run`, `start_guest_run`, `install`.

It can be imported even where the core cannot be loaded, and with any Trio. Then a run raises why it cannot
be on io_uring.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import trio

from ..loop import trio_internals
from ..ring.errors import UringUnavailableError
from ..ring.native import missing, unavailable
from ..ring.options import RingOptions
from . import children, settings
from .fallback import fall_back
from .wanted import installed as _installed
from .wanted import request as _request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    import outcome
    from typing_extensions import TypeVarTuple, Unpack

    from ..loop.statistics import UringStatistics
    from ..ring.opening import Ring
    from .replacement import Replacement

    PosArgsT = TypeVarTuple("PosArgsT")

RetT = TypeVar("RetT")

# It is imported now, since a run may begin when no file can be opened any more.
_lacking: Exception | None = None
"""The error of an import of ours for which this Trio lacks a name."""
if missing is None:
    try:
        from . import io_manager
    except (ImportError, AttributeError) as _error:
        _lacking = _error


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
      ring: how the ring is set up. Default: what `install` was given, else `RingOptions()`.
      **trio_run_arguments: those of `trio.run`, with the same meaning.

    Returns and raises what `trio.run` does, and besides:

    Raises:
      UringUnavailableError: io_uring cannot be used here, by the kernel, for want of the core,
        or with this version of Trio, and no fallback was asked for. ``async_fn`` has not been
        called.
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
    """Closes the manager of this thread's run, which is over, if Trio has not. An exception out of a signal
    handler may leave Trio's loop without its ``finally``: where CPython jumps back to ``while batch``, no
    exception handler is active."""
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
    processes that are forked inherit it; those that are spawned do if TRIO_URING is
    in their environment.

    Raises:
      UringUnavailableError: as `run`. Nothing is installed then.
    """
    options = resolve_options(ring)
    try:
        opened = open_ring(options)
    except UringUnavailableError as error:
        fall_back(options, error)
        _install(options, warned=True)
    else:
        opened.release()
        _install(options)


def uninstall() -> None:
    """Later runs use what Trio would choose. Runs in progress finish on io_uring.
    Does nothing if nothing is installed."""
    _install(None)


@contextmanager
def installed(ring: RingOptions | None = None) -> Iterator[None]:
    """A context manager: `install`, and afterwards what was installed before."""
    before, warned = _installed.options, _installed.warned
    install(ring)
    try:
        yield
    finally:
        _install(before, warned=warned)


def run_statistics() -> tuple[UringStatistics, ...]:
    """The statistics of all runs on io_uring that this process has now, the oldest first. Within one of them
    `trio.lowlevel.current_statistics` has the same.

    Any thread, within a run or not. An event that comes while a run is asked may be counted in one number
    and not yet in another. A run that is over is left out.
    """
    found: tuple[UringStatistics, ...] = () if missing is not None else _loaded().run_statistics()
    return found


def resolve_options(ring: RingOptions | None) -> RingOptions:
    """The options of a run that is given ``ring`` (session/settings.py). Any thread."""
    if ring is not None and not isinstance(ring, RingOptions):
        raise TypeError(f"ring has to be a trio_uring.RingOptions, not {ring!r}")
    return settings.resolve(ring or _installed.options)


def check_trio() -> None:
    """Raises UringUnavailableError if the core cannot be loaded, or Trio is not as we know it."""
    trio_internals.check_trio(_loaded().TABLE)


def open_ring(options: RingOptions) -> Ring:
    """Opens a ring for a run, or raises UringUnavailableError as `run` does. Any thread."""
    check_trio()
    ring: Ring = _loaded().open_ring(options)
    return ring


def knows_reschedule() -> bool:
    """Whether a run that starts now wakes its tasks without a line of Python for each."""
    return _is_complete() and bool(_loaded().knows_reschedule())


def why_not_accelerated() -> str:
    """Why C would not make the steps of tasks in a run that asks for it; empty if it would."""
    if not _is_complete():
        return "runs cannot be on io_uring here"
    from ..accelerate.known import why_unknown

    return why_unknown()


def wrapped_names() -> tuple[str, ...]:
    """The names of Trio, of those that we replace, to which somebody else has assigned a function of his
    own."""
    if not _is_complete():
        return ()
    names: tuple[str, ...] = _loaded().wrapped_names(_loaded().groups_of(resolve_options(None)))
    return names


def _is_complete() -> bool:
    """Whether the core was loaded, and Trio has all names that we import."""
    return missing is None and _lacking is None


def _loaded() -> Any:
    """The module session/io_manager.py. Raises UringUnavailableError if it cannot be imported, for want of
    the core or of a name in Trio."""
    if missing is not None:
        raise unavailable(missing) from missing
    if _lacking is not None:
        raise trio_internals.unknown_trio(str(_lacking)) from _lacking
    return io_manager


@contextmanager
def _requested(ring: RingOptions | None) -> Iterator[None]:
    """A context manager: a run that this thread starts within it is on io_uring."""
    __tracebackhide__ = True
    options = resolve_options(ring)
    names = _names(options)
    if names is None:
        yield
        return
    holder = names.acquire(_loaded().groups_of(options))
    outer = _request.options, _request.holder
    try:
        _request.options, _request.holder = options, holder
        yield
    finally:
        is_left = _request.holder is holder
        _request.options, _request.holder = outer
        if is_left:
            holder.release()


def _names(options: RingOptions) -> Replacement | None:
    """Trio's names, to be replaced. None, after a warning, if that cannot be: then the run is on epoll."""
    try:
        check_trio()
    except UringUnavailableError as error:
        fall_back(options, error)
        return None
    names: Replacement = _loaded().names
    return names


def _install(options: RingOptions | None, *, warned: bool = False) -> None:
    """Has later runs use ``options``; None: as if nothing had been installed."""
    _installed.options, _installed.warned = options, warned
    try:
        if options is not None:
            check_trio()
        names: Replacement = _loaded().names
    except UringUnavailableError:
        return  # nothing was replaced
    names.install(None if options is None else _loaded().groups_of(options))


# For a process that its environment has put on io_uring (session/children.py)


def set_up(below: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Sets up a run that has imported this module (session/children.py). ``below`` is the ``setup_runner``
    that was there before."""
    raise_refusal()
    if _request.is_set_up or _installed.options is None:
        return below(*args, **kwargs)
    return _loaded().set_up_over(below)(*args, **kwargs)


def raise_refusal() -> None:
    """Raises the reason why no run of this process can be as its environment says, if there is one."""
    if _refusal is not None:
        raise _refusal.with_traceback(None)


def _inherit() -> Exception | None:
    """Installs what the environment says, without opening a ring first. Returns what is in the way; None if
    nothing is."""
    try:
        options = resolve_options(None)
        if _names(options) is not None:
            _install(options)
    except (UringUnavailableError, ValueError, RuntimeWarning) as error:
        return error
    children.take_back()
    return None


_refusal = _inherit() if children.told() else None

__all__ = ["install", "installed", "run", "run_statistics", "start_guest_run", "uninstall"]
