"""How a run comes to its ring: what is put in the place of Trio's ``TheIOManager`` and
``setup_runner``.

Trio makes a run's I/O manager in ``setup_runner``, by calling ``TheIOManager()``. A run that
nobody asked to be on io_uring, in another thread perhaps, still gets Trio's own manager from
them.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Final

import attrs

from ..loop import trio_internals
from ..loop.manager import _LEARNT, UringManager
from ..loop.trio_internals import context
from ..loop.wakeup import UringWakeup
from ..ring import features, locked_memory
from ..ring.errors import UringUnavailableError
from ..ring.opening import open_ring
from . import logs
from .fallback import fall_back
from .replacement import TABLE, Holder, Replacement, Wrapped, wrapped_names
from .wanted import installed, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..loop.statistics import UringStatistics
    from ..loop.trio_internals import trio_run
    from ..ring.opening import Ring


_TIMES: Final = 100


class IOManager(UringManager):
    """A manager on io_uring for a run that is to have one, and for any other what it was put over."""

    below: ClassVar[Callable[[], Any]]
    _holder: Holder | None = None
    has_files = False
    """Whether Trio's files and paths are ours in this run."""

    def __new__(cls) -> Any:
        """Opens the run's ring, before anything of the run exists.

        Raises:
          UringUnavailableError: as `run` says.
        """
        requested, request.options = request.options, None
        options = requested or installed.options
        if requested is None and not request.is_set_up and names.setup.is_ours:
            options = None  # the run was being set up before this was installed
        if options is None or request.declined:
            return cls._other()
        try:
            opened = open_ring(options)
        except UringUnavailableError as error:
            fall_back(options, error, warned=requested is None and installed.warned)
            logs.tell_backend("epoll", options)
            return cls._other()
        manager = super().__new__(cls)
        UringManager.__init__(manager, opened)
        request.manager = weakref.ref(manager)
        manager._is_guest = _serve_late
        manager.has_files = options.files
        manager._tell(opened)
        return manager

    def __init__(self) -> None:
        """`__new__` has done it, for a ring that may not open."""

    @classmethod
    def _other(cls) -> Any:
        request.declined = True
        try:
            return cls.below()
        finally:
            request.declined = False

    def _tell(self, ring: Ring) -> None:
        """To the log; or, while nobody listens, before the first times that this run waits, since
        it may be the program's run that makes somebody listen."""

        def tell() -> bool:
            return logs.tell_backend("io_uring", ring.options, ring.flags)

        left = _TIMES

        def get_events(timeout: float) -> int:
            nonlocal left
            if timeout > 0:
                left -= 1
                if tell() or not left:
                    vars(self).pop("get_events", None)
            return type(self).get_events(self, timeout)

        if not tell():
            self.get_events = get_events  # type: ignore[method-assign]

    @property
    def is_served(self) -> bool:
        return self._is_guest is not _serve_late

    def serve(self, runner: Any) -> None:
        """The names stay replaced until `close`: Trio looks its manager up by them."""
        self._holder = names.acquire(files=self.has_files)
        super().serve(runner)
        _served[id(self)] = weakref.ref(self)

    def statistics(self) -> UringStatistics:
        found = super().statistics()
        lost = features.with_what_needs("completions") if self.connections.refused else ()
        flags = tuple(flag for flag in found.flags if flag not in lost)
        return attrs.evolve(
            found,
            flags=flags,
            knows_reschedule=self._knows_reschedule,
            wrapped=wrapped_names(files=self.has_files),
        )

    def close(self) -> None:
        had_ring = not self.closed
        _served.pop(id(self), None)
        vars(self).pop("get_events", None)
        try:
            super().close()
        finally:
            if had_ring:
                locked_memory.ring_was_closed()

    def _leave(self) -> None:
        try:
            super()._leave()
        finally:
            if self._holder is not None:
                self._holder.release()


def _serve_late() -> bool:
    """Whether the run is a guest: asked by the first tick of one that somebody's ``setup_runner``
    has made, which did not call ours. It keeps Trio's own wake-up."""
    runner = context.runner
    if isinstance(runner.io_manager, UringManager):
        runner.io_manager.serve(runner)
    return bool(runner.is_guest)


def _manager_over(below: Callable[[], Any]) -> type[IOManager]:
    return type("IOManager", (IOManager,), {"below": staticmethod(below), "__module__": __name__})


def set_up_over(below: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(below, updated=())
    def setup_runner(*args: Any, **kwargs: Any) -> trio_run.Runner:
        outer = getattr(context, "runner", None)
        request.is_set_up = True
        try:
            runner: trio_run.Runner = below(*args, **kwargs)
            _serve(runner)
        except BaseException:
            _clear_away(outer)
            raise
        finally:
            request.is_set_up = False
        return runner

    return setup_runner


def _serve(runner: trio_run.Runner) -> None:
    manager: object = runner.io_manager
    if isinstance(manager, IOManager) and not manager.is_served:
        manager.serve(runner)
        entry_queue = runner.entry_queue
        entry_queue.wakeup = UringWakeup(manager, entry_queue.wakeup, entry_queue.lock)  # type: ignore[assignment]


def _clear_away(outer: object) -> None:
    """The run that was being set up. Trio does not know of it, and would take it for one that goes on."""
    runner = getattr(context, "runner", None)
    if runner is None or runner is outer:
        return
    vars(context).clear()
    runner.io_manager.close()
    runner.entry_queue.close()
    if isinstance(runner.io_manager, IOManager):
        runner.io_manager.close_interrupt()


def knows_reschedule() -> bool:
    """Whether a run that starts now wakes its tasks without a line of Python for each."""
    return _LEARNT and trio_internals.knows_reschedule()


def run_statistics() -> tuple[UringStatistics, ...]:
    managers = [reference() for reference in list(_served.values())]
    return tuple(manager.statistics() for manager in managers if manager is not None and not manager.closed)


_served: dict[int, weakref.ref[IOManager]] = {}
"""Of the runs that go on, by number."""

names = Replacement(Wrapped("TheIOManager", _manager_over), Wrapped("setup_runner", set_up_over))


__all__ = [
    "TABLE",
    "UringManager",
    "knows_reschedule",
    "names",
    "open_ring",
    "run_statistics",
    "set_up_over",
    "wrapped_names",
]
