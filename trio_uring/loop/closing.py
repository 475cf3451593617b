"""The end of a run: the kernel lets go of everything, whatever fails.

  step                                        ended by
  what a tick has brought is processed        nothing: each event once, also if an exception comes
  receives, accepts and tasks' operations     nothing: they are asked to stop
  what is written behind is written           the kernel; an error of the ring's; Ctrl-C
  everything else is asked to stop, and       the same
  answered
  the ring and its memory go                  nothing

- Each step is made, whatever another one raises. The first exception is the run's outcome, unless
  that is an exception already: Trio's own closing would stop where ours raises.
- What the kernel has not answered it may still write to: that memory is kept for good.
- The kernel does not answer a ring that is broken. Nor can it cancel what a worker of its has begun,
  for which we wait.
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

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.lowlevel import Task

    from ..ring.native import Core
    from .run import Pending

_SECOND: Final = 1_000_000_000
_TRIES: Final = 10
_wait = lib.tu_wait
_reap = lib.tu_reap
_release = lib.tu_release
_signal_forced = lib.tu_signal_forced


class Closing(Readiness):
    """The part of a run's I/O manager that ends it."""

    def __init__(self, core: Core, budget: int) -> None:
        super().__init__(core, budget)
        self._entry_task: Task | None = None
        self._is_guest: Callable[[], bool] = not_a_guest
        self._runner: Any = None
        self._knows_reschedule = False
        """Whether the runner's `reschedule` is the one that `wake` knows."""
        self._guest_lock = threading.Lock()
        self._guest_waiting = False

    def is_guest(self) -> bool:
        return self._is_guest()

    def process_events(self, events: Any) -> None:
        raise NotImplementedError

    def _wake(self, count: int, append: Callable[[Task], None] | None) -> None:
        raise NotImplementedError

    def reap(self) -> None:
        self._process_all(self.checked(_reap(self.core)))

    def _process_all(self, events: int = 0) -> None:
        """Processes ``events``, and all that an exception has left of others. Then the first
        exception of this time is raised."""
        steps = _Steps()
        steps.make(self.process_events, events)
        for _ in range(left := lib.tu_events_left(self.core)):
            steps.make(self._wake, left, None)  # until nothing is left, or there is no memory to tell
        steps.make(self.settle)
        steps.end()

    def close(self) -> None:
        """Gives the ring back. The owner first has the kernel let go of everything; a
        finaliser on another thread may not enter the ring and leaves that to the kernel.

        What goes wrong meanwhile becomes the run's outcome, if that was a success. May be
        called again, if an exception has come between.
        """
        with self._guest_lock:
            was_closed, self.closed = self.closed, True
        steps = _Steps()
        if not was_closed:
            steps.make(self._end)
        steps.complete(self._leave)
        try:
            steps.end()
        except BaseException as error:
            self._fail(error)

    def _end(self) -> None:
        """The kernel lets go of everything, and answers."""
        # They refer back to us: without them, nothing waits for the garbage collector.
        del self._abort_read, self._abort_write
        self._is_guest = not_a_guest
        self.reschedule = _nobody
        self._knows_reschedule = False
        if self.owner != get_ident():
            return
        self._entry_task = None
        lib.tu_check(self.core)
        steps = _Steps()
        steps.make(self._process_all)
        steps.make(self.reap)
        steps.make(self.sockets.end)
        steps.make(self._stop_operations)
        steps.make(self._wait_while, self._is_writing)
        steps.make(self._cancel_all)
        steps.make(self._wait_while, _always)
        steps.end()

    def _stop_operations(self) -> None:
        """Those of tasks: what is written behind is finished."""
        for slot, operation in list(self.operations.items()):
            if operation.task is not None and lib.tu_cancel(self.core, slot):
                del self.operations[slot]

    def _cancel_all(self) -> None:
        lib.tu_cancel_all(self.core)

    def _is_writing(self) -> bool:
        return any(operation.task is None for operation in self.operations.values())

    def _wait_while(self, condition: Callable[[], bool]) -> None:
        """Until the kernel has answered all. An error of the ring's and Ctrl-C end it, the first
        one; if there was one before, it has a second."""
        steps = _Steps()
        interrupted = self._is_interrupted()
        deadline = monotonic() + 1 if interrupted else inf
        while lib.tu_pinned(self.core) and condition() and monotonic() < deadline:
            events = self.checked(_wait(self.core, _SECOND))
            steps.make(self._process_all, events)
            if self._is_interrupted() and not interrupted:
                break
        steps.end()

    def _is_interrupted(self) -> bool:
        return self._runner is not None and self._runner.ki_pending

    def _fail(self, error: BaseException) -> None:
        """An error that came before this one is the one to be told."""
        if self._runner is None:
            raise error
        if isinstance(self._runner.main_task_outcome, outcome.Value):
            self._runner.main_task_outcome = outcome.Error(error)

    def _leave(self) -> None:
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


class _Steps:
    """Each is made, whatever another one raises; in the end the first exception is raised."""

    def __init__(self) -> None:
        self._first: BaseException | None = None

    def make(self, step: Callable[..., object], *args: object) -> None:
        try:
            step(*args)
        except BaseException as error:
            self._first = self._first or error

    def complete(self, step: Callable[[], object]) -> None:
        """Makes one that may be made again until it has come to its end. What keeps it from that
        comes by chance, and not so often."""
        for _ in range(_TRIES):
            try:
                step()
                return
            except BaseException as error:
                self._first = self._first or error

    def end(self) -> None:
        if self._first is not None:
            try:
                raise self._first
            finally:  # or its traceback would refer back to us
                self._first = None


def _nobody(_task: Task, _outcome: object) -> None:
    """The tasks of a run that has ended, or has crashed, go on no more."""


def not_a_guest() -> bool:
    return False


def _always() -> bool:
    return True


_kept: list[dict[int, Pending]] = []
"""Of runs that another thread than their owner had to finalise, or whose ring was broken: the
kernel may still write to the memory of these, and nobody will hear when it is done."""
