"""The end of a run: the kernel lets go of everything, whatever fails.

  step                                              may be broken off by
  1. events that were not processed yet are now     nothing
  2. receives, accepts and the operations of tasks  nothing: nobody waits for the answers yet
     are asked to stop
  3. the writes that no task waits for are done     an error of the ring, or Ctrl-C
  4. everything else is asked to stop, and the      the same
     kernel answers it
  5. the ring and its memory are given back         nothing

- Each step is made, whatever an earlier one has raised. The first exception becomes the run's outcome,
  unless that is an exception already. It is not raised: Trio's own closing would stop there.
- Where the kernel has not answered, it may still write to memory of ours. Then that memory is never
  freed.
- The kernel gives no answers on a ring that is broken. And it cannot cancel an operation that one of
  its workers has begun: step 4 waits until that is done.
"""

from __future__ import annotations

import threading
from math import inf
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import outcome

from ..ring.native import lib
from .readiness import Readiness
from .steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.lowlevel import Task

    from ..ring.native import Core
    from .run import Pending

_SECOND: Final = 1_000_000_000
_wait = lib.tu_wait
_reap = lib.tu_reap
_release = lib.tu_release
_signal_forced = lib.tu_signal_forced
_FORCED: Final = lib.TU_FORCED


class Closing(Readiness):
    """The part of a run's I/O manager that ends it."""

    __slots__ = (
        "_entry_task",
        "_guest_lock",
        "_guest_waiting",
        "_has_given_back",
        "_is_guest",
        "_knows_reschedule",
        "_runner",
    )

    def __init__(self, core: Core, budget: int) -> None:
        super().__init__(core, budget)
        self._entry_task: Task | None = None
        self._is_guest: Callable[[], bool] = not_a_guest
        self._runner: Any = None
        self._knows_reschedule = False
        """Whether the runner's `reschedule` does what `wake` of native/python does in its stead."""
        self._guest_lock = threading.Lock()
        self._guest_waiting = False
        self._has_given_back = False

    def is_guest(self) -> bool:
        return self._is_guest()

    def process_events(self, events: Any) -> None:
        """Processes ``events``, so many at most."""
        raise NotImplementedError

    def _wake(self, count: int, append: Callable[[Task], None] | None) -> None:
        """Processes ``count`` events at most, and wakes the tasks that wait for them."""
        raise NotImplementedError

    def reap(self) -> None:
        events = self.raise_on_error(_reap(self.core))
        if events & _FORCED:  # somebody has asked for a tick, which this is not
            _signal_forced(self.core)
        self._process_all(events)

    def _process_all(self, events: int = 0) -> None:
        """Processes ``events``, and all events that an exception has left unprocessed before. Then the
        first exception that came meanwhile is raised."""
        steps = Steps()
        steps.make(self.process_events, events)
        for _ in range(left := lib.tu_events_left(self.core)):
            # Each call processes one event at least, unless there is no memory for that.
            steps.make(self._wake, left, None)
        steps.make(self.settle)
        steps.end()

    def close(self) -> None:
        """Ends the run, as the head of this file says. Called by Trio when the run is over, or by a
        finaliser. On a thread that is not the owner it may not enter the ring, and only makes step 5.

        What goes wrong becomes the run's outcome, if that was a success. May be called again.
        """
        with self._guest_lock:
            was_closed, self.closed = self.closed, True
        if self._has_given_back:
            return
        steps = Steps()
        if not was_closed:
            steps.make(self._end)
        steps.complete(self._give_back)
        try:
            steps.end()
        except BaseException as error:
            self._fail(error)

    def _end(self) -> None:
        """Makes steps 1 to 4."""
        # These refer back to the manager. Without them it is freed at once, and not by a collection.
        del self.abort_read, self._abort_write
        self._is_guest = not_a_guest
        self.reschedule = _nobody
        self._knows_reschedule = False
        if self.owner != get_ident():
            return
        self._entry_task = None
        lib.tu_check_descriptor(self.core)
        steps = Steps()
        steps.make(self._process_all)
        steps.make(self.reap)
        steps.make(self.sockets.end)
        steps.make(self._stop_operations)
        steps.make(self._wait_while, self._is_writing)
        steps.make(self._cancel_all)
        steps.make(self._wait_while, _always)
        steps.end()

    def _stop_operations(self) -> None:
        """Asks the kernel to stop the operations of tasks. The writes that no task waits for go on."""
        for slot, operation in list(self.operations.items()):
            if operation.task is not None and lib.tu_cancel(self.core, slot):
                del self.operations[slot]

    def _cancel_all(self) -> None:
        lib.tu_cancel_all(self.core)

    def _is_writing(self) -> bool:
        return any(operation.task is None for operation in self.operations.values())

    def _wait_while(self, condition: Callable[[], bool]) -> None:
        """Ticks while ``condition`` holds and the kernel has not answered everything. An error of the ring
        or Ctrl-C ends that. If Ctrl-C has come before, it may last a second."""
        steps = Steps()
        interrupted = self._is_interrupted()
        deadline = monotonic() + 1 if interrupted else inf
        while lib.tu_pinned(self.core) and condition() and monotonic() < deadline:
            events = self.raise_on_error(_wait(self.core, _SECOND))
            steps.make(self._process_all, events)
            if self._is_interrupted() and not interrupted:
                break
        steps.end()

    def _is_interrupted(self) -> bool:
        return self._runner is not None and self._runner.ki_pending

    def _fail(self, error: BaseException) -> None:
        """Makes ``error`` the run's outcome, unless that is an error already."""
        if self._runner is None:
            raise error
        if isinstance(self._runner.main_task_outcome, outcome.Value):
            self._runner.main_task_outcome = outcome.Error(error)

    def _give_back(self) -> None:
        """Makes step 5. May be called again, if an exception has come between."""
        try:
            if lib.tu_pinned(self.core):
                _kept.append(self.operations)
            else:
                self.operations.clear()
            self.sockets.close()
            self.handlers = ()  # which refer back to us
            self._spender = None  # a socket that outlives the run would keep it
        finally:
            with self._guest_lock:
                if self._guest_waiting:
                    _signal_forced(self.core)
                else:
                    _release(self.core)
                    self._has_given_back = True


def _nobody(_task: Task, _outcome: object) -> None:
    """Stands for `reschedule` in a run that has ended or crashed: its tasks are not woken any more."""


def not_a_guest() -> bool:
    """Stands for the runner's answer while there is no runner."""
    return False


def _always() -> bool:
    return True


_kept: list[dict[int, Pending]] = []
"""The operations of runs that ended before the kernel had answered: a thread that was not the owner had
to finalise the run, or its ring was broken. The kernel may still write to their memory, and nobody will
learn when it is done."""
