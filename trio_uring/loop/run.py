"""A run on io_uring, as its sockets, files and single operations see it.

A run has, above all,

  tables      for each kind of event, what waits for such events, by their keys
  handlers    for each kind of event, the function that processes an event which C leaves to Python
  unsettled   the objects whose `settle` is called when all events of a tick are processed
  budget      how many calls a task may make in a row without yielding

A kind of event is a number (``enum tu_kind`` in native/operations.h). Whoever wants events of a kind
calls `Run.register` once, with its table and its handler. The loop itself does so for waits and for
operations; the sockets do so for receives and accepts.

The I/O manager of a run on io_uring (loop/manager.py) is a `Run`. Only the thread that runs the ticks
may use it, unless a comment says otherwise.
"""

from __future__ import annotations

import os
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, Protocol, TypeAlias

from trio.lowlevel import reschedule

from ..ring.native import capsule_of, ffi, lib, spend

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.lowlevel import Task

    from ..ring.native import Core
    from .waiter import Waiter

    Handler: TypeAlias = Callable[[int, int, bool, int], object]
    """Processes an event. It is called with the event's key, its result, whether more events of the same
    operation will come, and the number of the provided buffer that has its data, or -1."""


_now: Final = monotonic


class Pending(Protocol):
    """An object that waits for the result of an operation, in `Run.operations`."""

    result: Any
    """The kernel's answer. Set when the event is processed."""

    @property
    def task(self) -> Waiter:
        """The task that sleeps until the result is there; None if no task does. An object that is not an
        `Operation` never has one: it is `Unsettled` when the result is there."""


class Unsettled(Protocol):
    """An object that an event has changed, and that has more to do when all events of the tick are
    processed."""

    def settle(self) -> None:
        """Does what is left to do. Called by `Run.settle` only."""


class Run:
    """One run on io_uring. See the head of this file.

    The manager has the methods that raise NotImplementedError here. This is no abstract base class: with
    one, `isinstance`, by which each call on a file finds its run, would take several times as long.
    """

    USED_BY_C: ClassVar[tuple[str, ...]] = (
        "_left",
        "_looked_at",
        "_spender",
        "_spent_at",
        "_taken",
        "_tick_began",
        "budget",
        "capsule",
        "clock",
        "completes",
        "events_of_tick",
        "handlers",
        "tables",
    )
    __slots__ = (
        *USED_BY_C,
        "closed",
        "core",
        "files_written",
        "forked",
        "is_joined_at_exit",
        "operations",
        "owner",
        "readers",
        "reschedule",
        "unsettled",
        "writers",
    )

    def __init__(self, core: Core, budget: int) -> None:
        self.core = core
        self.capsule: object = capsule_of(ffi.buffer(core))
        """The core, for native/python."""
        self.tables: tuple[dict[int, Any] | None, ...] = (None,) * lib.TU_KINDS
        self.handlers: tuple[Handler | None, ...] = (None,) * lib.TU_KINDS
        self.readers: dict[int, Task] = {}
        self.writers: dict[int, Task] = {}
        """The tasks in `wait_readable` and in `wait_writable`, by their descriptors."""
        self.operations: dict[int, Pending] = {}
        """What waits for the result of an operation, by the operation's slot: an `Operation` of a task, or
        an object that is `Unsettled` when the result is there."""
        self.unsettled: deque[Unsettled] = deque()
        self.events_of_tick = 0
        """How many events the last tick has brought."""
        self.files_written = 0
        """How many files are being written now without a task that waits for the write."""
        self.budget = budget
        """`RingOptions.checkpoint_budget`."""
        self.owner: int | None = None
        """The identifier of the thread that runs the ticks; None before the first tick."""
        self.is_joined_at_exit = False
        """Whether the interpreter, before it ends, waits for that thread to end."""
        self.completes = False
        """Whether sockets are to work by completions at all. Set when the run's sockets are made."""
        self.closed = False
        self.forked = False
        """Whether this is the copy in a forked child: the ring is the parent's."""
        self.reschedule: Callable[[Task, Any], None] = reschedule
        """Trio's `reschedule`; from the first tick on the method of the runner, which
        `trio.lowlevel.reschedule` would call."""
        self.clock: Callable[[], float] = _now
        self._spender: Task | None = None
        self._spent_at = -1
        self._left = 0
        self._looked_at = 0.0
        """When `clock` was last looked at for the budget."""
        self._taken = 0.0
        """Seconds of this tick in which tasks went on where they would have yielded without a budget."""
        self._tick_began = 0.0

    def register(self, kind: int, table: dict[int, Any], handler: Handler) -> None:
        """Sets the table and the handler of a kind of event. Called once for each kind, when the run is
        made."""
        self.tables = (*self.tables[:kind], table, *self.tables[kind + 1 :])
        self.handlers = (*self.handlers[:kind], handler, *self.handlers[kind + 1 :])

    def reap(self) -> None:
        """Processes at once what has completed by now. Called by a task of the run."""
        raise NotImplementedError

    def look(self) -> None:
        """Has the kernel take what is queued, and processes what has completed by then. Called by a task of
        the run."""
        self.raise_on_error(lib.tu_flush(self.core))
        self.reap()

    def force_wakeup(self) -> None:
        """Has the loop make another tick at once: the wait that goes on now, or that comes next, ends.
        Any thread, a signal handler or a finaliser."""
        raise NotImplementedError

    def wake_reader(self, fd: int) -> None:
        """Wakes the task that is in `wait_readable` for a descriptor, if there is one."""
        raise NotImplementedError

    def is_guest(self) -> bool:
        """Whether it is a guest run: another loop has the thread between its ticks."""
        raise NotImplementedError

    def settle(self) -> None:
        """Settles all that is unsettled now. What is added meanwhile is settled after the next tick. Called
        when the events of a tick are processed."""
        for _ in range(len(self.unsettled)):
            self.unsettled.popleft().settle()

    def spend(self, caller: Any = None) -> bool:
        """Spends one call of the calling task's budget; False if none was left, and the task has to yield
        now. Whenever a task has yielded, its budget is whole again. ``caller`` is the calling task, if it is
        at hand: to look for it takes a while.

        The budget ends early where such calls have taken a third of the tick: others wait for the
        tick's end, and would do so for tasks x budget calls. The clock, which takes as long as a third
        of a short call, is looked at for a task's first call and for each fourth.
        """
        return spend(self, caller)

    def begin_tick(self) -> None:
        """Notes when a tick begins. Called by the manager, if the run has a budget."""
        self._tick_began = self.clock()
        self._taken = 0.0

    def raise_on_error(self, result: int) -> int:
        """Returns the result of a function of the core, if that is no error.

        Raises:
          OSError: the result is -errno.
          RuntimeError: the result is -errno, and this is a forked child.
        """
        if result >= 0:
            return result
        if self.forked:
            raise RuntimeError(
                "this Trio run belongs to the parent process; the child cannot wait for I/O in it"
            )
        raise OSError(-result, os.strerror(-result))

    def raise_refusal(self, fd: int, error: int) -> NoReturn:
        """Raises the error for which the core did not take a submission for a descriptor."""
        if fd < 0:
            raise ValueError(f"file descriptor cannot be a negative integer ({fd})")
        self.raise_on_error(error)
        raise AssertionError(error)
