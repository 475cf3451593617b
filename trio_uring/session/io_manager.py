"""How a run gets its ring: our replacements of Trio's ``TheIOManager`` and ``setup_runner``.

Trio calls ``setup_runner`` for each run, which makes the run's I/O manager by calling ``TheIOManager()``.
Our replacements also serve runs that nobody asked to be on io_uring, perhaps in another thread: these
still get Trio's own manager.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Final

import attrs

from ..loop import trio_internals
from ..loop.manager import KNOWS_TASKS, UringManager
from ..loop.trio_internals import context
from ..loop.wakeup import UringWakeup
from ..ring import features, locked_memory
from ..ring.errors import UringUnavailableError
from ..ring.opening import open_ring
from ..sockets.registry import RunSockets
from . import logs
from .fallback import fall_back
from .replacement import TABLE, Holder, Replacement, Wrapped, groups_of, wrapped_names
from .wanted import installed, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..loop.statistics import UringStatistics
    from ..loop.trio_internals import trio_run
    from ..ring.opening import Ring


_TRIES: Final = 100
_TICKS: Final = 1000
"""How many waits, and ticks that do not wait, are made at most before a run that nobody listens to is not
told of any more."""


class IOManager(UringManager):
    """What ``TheIOManager`` is: makes a manager on io_uring for a run that is to have one. For any other run
    it makes what the class that it has replaced makes."""

    __slots__ = (
        "__dict__",
        "_groups",
        "_holder",
        "accelerated",
        "has_files",
        "has_pipes",
        "wants_acceleration",
    )
    sockets: RunSockets
    below: ClassVar[Callable[[], Any]]
    _holder: Holder | None
    _groups: frozenset[str]
    """The names of Trio that are replaced besides those that always are (session/replacement.py)."""
    has_files: bool
    """Whether `trio.open_file` and `trio.Path` are ours in this run."""
    has_pipes: bool
    """Whether `trio.lowlevel.FdStream` is to work as pipes/streams.py has it."""
    wants_acceleration: bool
    """Whether C is to make the steps of this run's tasks (accelerate/)."""
    accelerated: bool
    """Whether it makes them."""

    def __new__(cls) -> Any:
        """Opens the run's ring, before anything else of the run exists. Called by Trio's ``setup_runner``.

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
        manager._holder, request.holder = request.holder, None
        manager._groups = groups_of(options)
        manager.has_files = options.files
        manager.has_pipes = "pipes" in opened.flags
        manager.wants_acceleration = options.accelerate
        manager.accelerated = False
        UringManager.__init__(manager, opened, RunSockets)
        request.manager = weakref.ref(manager)
        manager._is_guest = _attach_late
        manager._tell(opened)
        return manager

    def __init__(self) -> None:
        """Does nothing: `__new__` does all, since it may return another manager."""

    @classmethod
    def _other(cls) -> Any:
        """A manager of the class or function that this class has replaced."""
        request.declined = True
        try:
            return cls.below()
        finally:
            request.declined = False

    def _tell(self, ring: Ring) -> None:
        """Logs that the run is on io_uring. While no handler listens to the log, it tries again each time
        that the run waits, for some time: the program may configure its log within the run."""

        def tell() -> bool:
            return logs.tell_backend("io_uring", ring.options, ring.flags)

        left = _TICKS

        def get_events(timeout: float) -> int:
            nonlocal left
            left -= _TICKS // _TRIES if timeout > 0 else 1
            if (timeout > 0 and tell()) or left <= 0:
                vars(self).pop("get_events", None)
                if not vars(self):
                    del self.__dict__  # CPython calls the methods of an object without one faster
            return type(self).get_events(self, timeout)

        if not tell():
            self.get_events = get_events  # type: ignore[method-assign]

    @property
    def is_attached(self) -> bool:
        """Whether the manager knows its runner."""
        return self._is_guest is not _attach_late

    def attach(self, runner: Any) -> None:
        """Tells the manager its runner. The names of Trio stay replaced until `close`, even if `uninstall`
        comes before."""
        if self._holder is None:
            self._holder = names.acquire(self._groups)
        super().attach(runner)
        _attached[id(self)] = weakref.ref(self)

    def set_accelerated(self, why_not: str) -> None:
        """Notes whether C makes the steps of tasks, and logs why not. Called by accelerate/steps.py."""
        self.accelerated = not why_not
        if why_not:
            logs.warn(
                f"RingOptions.accelerate has no effect, Trio makes the steps of tasks itself: {why_not}"
            )

    def statistics(self) -> UringStatistics:
        found = super().statistics()
        lost = features.with_what_needs("completions") if self.sockets.buffers.refused else ()
        flags = tuple(flag for flag in found.flags if flag not in lost)
        return attrs.evolve(
            found,
            flags=flags,
            knows_reschedule=self._knows_reschedule,
            accelerated=self.accelerated,
            wrapped=wrapped_names(self._groups),
        )

    def close(self) -> None:
        had_ring = not self.closed
        _attached.pop(id(self), None)
        vars(self).pop("get_events", None)
        try:
            super().close()
        finally:
            if had_ring:
                locked_memory.ring_was_closed()

    def _give_back(self) -> None:
        try:
            super()._give_back()
        finally:
            if self._holder is not None:
                self._holder.release()


def _attach_late() -> bool:
    """Attaches the manager of a run at its first tick, and returns whether the run is a guest. Called where
    somebody else's ``setup_runner`` has made the run and did not call ours. Such a run keeps Trio's own
    wake-up."""
    runner = context.runner
    if isinstance(runner.io_manager, UringManager):
        runner.io_manager.attach(runner)
    return bool(runner.is_guest)


def _manager_over(below: Callable[[], Any]) -> type[IOManager]:
    """The class that replaces ``below`` as ``TheIOManager``."""
    return type("IOManager", (IOManager,), {"below": staticmethod(below), "__module__": __name__})


def set_up_over(below: Callable[..., Any]) -> Callable[..., Any]:
    """The function that replaces ``below`` as ``setup_runner``."""

    @functools.wraps(below, updated=())
    def setup_runner(*args: Any, **kwargs: Any) -> trio_run.Runner:
        outer = getattr(context, "runner", None)
        within, request.is_set_up = request.is_set_up, True
        try:
            runner: trio_run.Runner = below(*args, **kwargs)
            _attach(runner)
        except BaseException:
            _clear_away(outer)
            raise
        finally:
            request.is_set_up = within
        return runner

    return setup_runner


def _attach(runner: trio_run.Runner) -> None:
    """Attaches the manager of a run that was just set up, and replaces the wake-up of its entry queue."""
    manager: object = runner.io_manager
    if isinstance(manager, IOManager) and not manager.is_attached:
        manager.attach(runner)
        entry_queue = runner.entry_queue
        entry_queue.wakeup = UringWakeup(manager, entry_queue.wakeup, entry_queue.lock)  # type: ignore[assignment]


def _clear_away(outer: object) -> None:
    """Closes a run whose set-up has failed after Trio had noted it as the running one: else Trio would refuse
    every later run in this thread. ``outer`` is the run that was noted before, if any."""
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
    return KNOWS_TASKS and trio_internals.knows_reschedule()


def run_statistics() -> tuple[UringStatistics, ...]:
    """See `runs.run_statistics`."""
    managers = [reference() for reference in list(_attached.values())]
    return tuple(manager.statistics() for manager in managers if manager is not None and not manager.closed)


_attached: dict[int, weakref.ref[IOManager]] = {}
"""The managers of the runs that go on, by their `id`, the oldest first."""

names = Replacement(Wrapped("TheIOManager", _manager_over), Wrapped("setup_runner", set_up_over))
"""All names of Trio that we replace."""


__all__ = [
    "TABLE",
    "UringManager",
    "groups_of",
    "knows_reschedule",
    "names",
    "open_ring",
    "run_statistics",
    "set_up_over",
    "wrapped_names",
]
