"""A run, as the sockets, the files and the single operations see it.

  what            for whom
  tables          what waits for an event of the ring: by its kind, and then by its key
  handlers        who takes in the events of a kind that C leaves to Python
  unsettled       what has to wait until all events of a tick are processed
  budget          how many calls a task makes in a row without yielding

A kind of event has a number (``enum tu_kind`` of the core), a table and a handler, which
`Run.register` brings together: readiness and operations are the loop's own, receives and accepts
are registered by the sockets.

The I/O manager of a run on io_uring is a `Run`. All of it belongs to the thread that runs the
ticks, except where a name says otherwise.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, TypeAlias

from trio.lowlevel import reschedule

from ..ring.native import capsule_of, ffi, lib
from .trio_internals import context

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.lowlevel import Task

    from ..ring.native import Core
    from .waiter import Waiter

    Handler: TypeAlias = Callable[[int, int, bool, int], object]
    """Takes in an event: its key, its result, whether more events of the same operation will come, and
    the number of the provided buffer that has its data, or -1."""


class Pending(Protocol):
    """What waits for the result of an operation."""

    result: Any
    """The kernel's answer, once it is in."""

    @property
    def task(self) -> Waiter:
        """The task that sleeps on it; None if it is settled, and no task sleeps on it."""


class Settled(Protocol):
    """Something that a tick's events have left in a state that ends with the tick."""

    def settle(self) -> None: ...


class Run(ABC):
    """One run on io_uring."""

    __slots__ = (
        "_left",
        "_spender",
        "_spent_at",
        "budget",
        "capsule",
        "closed",
        "core",
        "events_of_tick",
        "files_written",
        "forked",
        "handlers",
        "is_joined_at_exit",
        "operations",
        "owner",
        "readers",
        "reschedule",
        "tables",
        "unsettled",
        "writers",
    )
    READ_BY_C: ClassVar[tuple[str, ...]] = ("budget", "capsule", "events_of_tick", "handlers", "tables")

    def __init__(self, core: Core, budget: int) -> None:
        self.core = core
        self.capsule: object = capsule_of(ffi.buffer(core))
        """The core, for native/python."""
        self.tables: tuple[dict[int, Any] | None, ...] = (None,) * lib.TU_KINDS
        self.handlers: tuple[Handler | None, ...] = (None,) * lib.TU_KINDS
        self.readers: dict[int, Task] = {}
        self.writers: dict[int, Task] = {}
        """The tasks in `wait_readable` and `wait_writable`, by their descriptors."""
        self.operations: dict[int, Pending] = {}
        """What waits for the result of an operation, by its slot: an `Operation` of a task, or
        something that is settled."""
        self.unsettled: deque[Settled] = deque()
        self.events_of_tick = 0
        """How many the last tick has brought."""
        self.files_written = 0
        """How many files are written at this moment without a task that waits for it."""
        self.budget = budget
        """`RingOptions.checkpoint_budget`."""
        self.owner: int | None = None
        """The thread that runs the ticks, once there was one."""
        self.is_joined_at_exit = False
        """Whether the interpreter waits for that thread before it ends."""
        self.closed = False
        self.forked = False
        """This is the copy of a forked child: the ring is its parent's."""
        self.reschedule: Callable[[Task, Any], None] = reschedule
        """The runner's own, which spares a call for each task that is woken."""
        self._spender: Task | None = None
        self._spent_at = -1
        self._left = 0

    def register(self, kind: int, table: dict[int, Any], handler: Handler) -> None:
        """Says what waits for events of a kind, and who takes in those that C leaves to Python."""
        self.tables = (*self.tables[:kind], table, *self.tables[kind + 1 :])
        self.handlers = (*self.handlers[:kind], handler, *self.handlers[kind + 1 :])

    @abstractmethod
    def reap(self) -> None:
        """Processes what has completed by now, in the middle of a tick: for the run's own tasks."""

    @abstractmethod
    def force_wakeup(self) -> None:
        """Has the loop make another tick, without a wait before it: from any thread."""

    @abstractmethod
    def wake_reader(self, fd: int) -> None:
        """Wakes the task that waits until a descriptor is readable, if one does."""

    @abstractmethod
    def is_guest(self) -> bool:
        """Whether it runs inside another loop, which has the thread between its ticks."""

    def settle(self) -> None:
        """Settles what there is now; what is added meanwhile has its turn after the next tick."""
        for _ in range(len(self.unsettled)):
            self.unsettled.popleft().settle()

    def spend(self) -> bool:
        """Spends one call of the calling task's budget, which is whole again when that has yielded.
        False if nothing is left: it has to yield now."""
        task: Task = context.task
        if task is not self._spender or task._schedule_points != self._spent_at:
            self._spender, self._spent_at = task, task._schedule_points
            self._left = self.budget
        self._left -= 1
        return self._left >= 0

    def checked(self, result: int) -> int:
        """The result of a call of the core.

        Raises:
          OSError: it is -errno.
          RuntimeError: the same, in a forked child.
        """
        if result >= 0:
            return result
        if self.forked:
            raise RuntimeError(
                "this Trio run belongs to the parent process; the child cannot wait for I/O in it"
            )
        raise OSError(-result, os.strerror(-result))

    def raise_refusal(self, fd: int, error: int) -> NoReturn:
        """Raises why the core did not take what was to be submitted for a descriptor."""
        if fd < 0:
            raise ValueError(f"file descriptor cannot be a negative integer ({fd})")
        self.checked(error)
        raise AssertionError(error)
