"""The I/O manager: what Trio calls each tick.

Some facts about io_uring
-------------------------

A ring is two queues in memory that we share with the kernel. We put submissions
into one and make a system call, io_uring_enter, to have the kernel look at them;
it puts completions into the other, where we find them without a system call. To
wait for a descriptor we submit a poll, which completes once. That is EPOLLONESHOT
with the registration left out: nothing is remembered about a descriptor beyond
the one wait, so there is no stale registration to silence.

But a poll that is pending holds a reference to the *file*, where epoll holds a
weak one. Closing the last descriptor of a socket does not close the socket while
a poll is pending on it: the peer sees no end, the port stays taken, a pipe's
reader waits for ever. And the kernel looks the descriptor up when it takes the
submission, not when we prepare it.

With DEFER_TASKRUN, completions are not made when something happens but when the
owner asks: the wake-up of a poll is a note to the ring, and a bit in a word that
we share with the kernel says that there are notes. Only io_uring_enter turns
them into completions, and only on the thread that owns the ring.

What does this mean for Trio?
-----------------------------

- A tick is one call into the core. With a timeout of 0 it enters the kernel if
  something is to be submitted or the shared word says so; an idle tick makes no
  system call. Submissions ride along with the call that waits.

- Nothing but the owner enters the ring. Other threads, signal handlers and
  finalisers use the interrupt (native/interrupt.h). In a guest run Trio waits on a worker
  thread: that one only looks at shared words and waits for descriptors, and
  leaves it to the owner to reap.

- After a fork the child owns nothing. It gives its copy of the ring back and
  never enters it: whatever it submitted would run on the parent's ring. The run
  that it was forked in can unwind there, but not wait for I/O.

- The events of a tick are processed before anybody waits for more, each once, even if an
  exception comes between. How a run ends is told in loop/closing.py.
"""

from __future__ import annotations

import os
import threading
import weakref
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, cast

from trio.lowlevel import Abort, Task, current_task, wait_task_rescheduled

from .._tasks import check_queued, learn, learn_run, sleeps_on, wake, watch_queue
from ..ring.native import ffi, lib
from .checkpoints import READY
from .closing import Closing
from .operation import Operation
from .run import Run
from .statistics import UringStatistics
from .trio_internals import (
    RUNNER_ATTRIBUTES,
    STATUS_ATTRIBUTES,
    TASK_ATTRIBUTES,
    context,
    knows_reschedule,
    trio_run,
)
from .waiter import task_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..ring.opening import Ring
    from .readiness import RaiseCancel, Sockets
    from .run import Unsettled

# A global name is found faster than an attribute of lib.
_COUNT: Final = lib.TU_COUNT
_POSTED: Final = lib.TU_POSTED
_SIGNALS: Final = lib.TU_SIGNALS
_REAP: Final = lib.TU_REAP
_NOT_STARTED: Final = lib.TU_NOT_STARTED
_OPERATION: Final = lib.TU_OPERATION

_poll = lib.tu_poll
_wait = lib.tu_wait
_guest_wait = lib.tu_guest_wait
_reap = lib.tu_reap
_start = lib.tu_start
_release = lib.tu_release
_lose = lib.tu_lose
_signal_posted = lib.tu_signal_posted
_signal_forced = lib.tu_signal_forced
_close_interrupt = lib.tu_close_interrupt

learn("run", Run, Run.USED_BY_C)
learn("operation", Operation, Operation.USED_BY_C)
learn_run(context, READY)
KNOWS_TASKS: Final = learn("task", Task, TASK_ATTRIBUTES)
"""Whether Trio's tasks have the attributes that native/python uses."""
for _name, _class, _attributes in (
    ("runner", "Runner", RUNNER_ATTRIBUTES),
    ("cancel status", "CancelStatus", STATUS_ATTRIBUTES),
):
    learn(_name, getattr(trio_run, _class, None), _attributes)


class UringManager(Closing):
    """The I/O manager of a run. Only the thread that runs the ticks may use it, unless a method says
    otherwise."""

    __slots__ = ("__weakref__", "_core_owner", "_drain_signals", "_flags")

    def __init__(self, ring: Ring, sockets: Callable[[Run, Ring], Sockets]) -> None:
        self._core_owner = ring.owner
        super().__init__(ring.core, ring.options.checkpoint_budget)
        self._flags = ring.flags
        self.register(_OPERATION, self.operations, self._finish_operation)
        watch_queue(self)
        self.sockets = sockets(self, ring)
        self._drain_signals: Callable[[], None] = _no_signals
        _managers.add(self)

    # Ticks

    def get_events(self, timeout: float) -> int:
        """Makes one tick, which waits for ``timeout`` seconds at most. Returns what `process_events` takes;
        0 only if the timeout expired.

        Called by Trio only: on the owner's thread, or on a worker thread of a guest run.
        """
        if timeout > 0 and get_ident() != self.owner:
            return self._get_events_elsewhere(timeout)
        check_queued(self)
        events = _poll(self.core) if timeout <= 0 else _wait(self.core, int(timeout * 1e9))
        return events if events >= 0 else self._get_first_events(timeout, events)

    def process_events(self, events: int | Sequence[object]) -> None:
        """Processes the events of a tick, and wakes the tasks that they are for.

        ``events`` is what `get_events` returned, or the ``[]`` that Trio passes in the first ticks of a
        guest run. Called by Trio, and by `_process_all`.
        """
        if self.budget:
            self.begin_tick()
        if not events:
            return
        assert isinstance(events, int)
        if events & _REAP:
            events = self.raise_on_error(_reap(self.core)) | events & _SIGNALS
        count = self.events_of_tick = events & _COUNT
        if count:
            self._wake(count, self._appender())
        if self.unsettled:
            self.settle()
        if events & _POSTED and self._entry_task is not None:
            self.reschedule(self._entry_task, READY)
            self._entry_task = None
        if events & _SIGNALS:
            self._drain_signals()

    def _wake(self, count: int, append: Callable[[Task], None] | None) -> None:
        """Processes the first ``count`` events, except those that were processed before. C processes the
        most frequent ones, and calls the handler of its kind for each other one. ``append`` is what
        `_appender` returns."""
        wake(self, count, append)

    def _finish_operation(self, slot: int, result: int, _more: bool, _buffer: int) -> None:
        """Processes the event of an operation. Called by `wake` only, as the handler of its kind."""
        operation = self.operations.pop(slot, None)
        if operation is None:  # `perform` or `Sender.submit` was interrupted, and keeps the memory
            return
        operation.result = result
        if not isinstance(operation, Operation):
            self.unsettled.append(cast("Unsettled", operation))
            return
        waiter = operation.task
        task = task_of(waiter)
        # A task that an exception kept from falling asleep is not to be woken.
        if task is not None and (task is not waiter or sleeps_on(task, operation)):
            self.reschedule(task, READY)

    def _appender(self) -> Callable[[Task], None] | None:
        """The function that puts a task into the runner's queue, for tasks that C wakes. None if Trio's
        `reschedule` has to be called for each task: an instrument wants to hear of it, or it is not the
        `reschedule` that we know."""
        runner = self._runner
        if not self._knows_reschedule or "task_scheduled" in runner.instruments:
            return None
        return runner.runq.append  # type: ignore[no-any-return]

    def _get_first_events(self, timeout: float, error: int) -> int:
        """Makes the first tick. Its thread owns the ring from then on."""
        if error != _NOT_STARTED:
            self.raise_on_error(error)
        self.owner = get_ident()
        self.is_joined_at_exit = not threading.current_thread().daemon
        self.raise_on_error(_start(self.core, self.is_guest()))
        return self.get_events(timeout)

    def _get_events_elsewhere(self, timeout: float) -> int:
        """Makes a blocking tick on a thread that is not the owner's, as Trio does in a guest run."""
        if self.owner is None:
            return self._get_first_events(timeout, _NOT_STARTED)
        with self._guest_lock:
            if self.closed:
                return _REAP
            self._guest_waiting = True
        try:
            return _guest_wait(self.core, int(timeout * 1e9))
        finally:
            with self._guest_lock:
                self._guest_waiting = False
                if self.closed:
                    _release(self.core)
                    _close_interrupt(self.core)

    # The interrupt

    def force_wakeup(self) -> None:
        """Ends a blocking `get_events`; wakes no task. Any thread, a signal handler or a finaliser."""
        _signal_forced(self.core)

    async def wait_posted(self) -> None:
        """Waits until the function of `signaller` was called. Called by the task of Trio's entry queue
        only."""
        self._entry_task = current_task()
        await wait_task_rescheduled(self._abort_entry)

    def _abort_entry(self, _: RaiseCancel) -> Abort:
        self._entry_task = None
        return Abort.SUCCEEDED

    def signaller(self) -> Callable[[], None]:
        """Returns a function that wakes `wait_posted`. Any thread, a signal handler or a finaliser may
        call that function.

        It calls the core, and so lets go of the GIL, only if the flag is not set yet: a burst of jobs
        costs one call. A flag that is set already is as good: the caller has put its job into the queue
        with the GIL held, and the owner first clears the flag and then needs the GIL to look at the
        queue.
        """
        core = self.core
        signalled = memoryview(ffi.buffer(lib.tu_signalled(core), 4)).cast("I")

        def signal() -> None:
            if not signalled[0] & _POSTED:
                _signal_posted(core)

        return signal

    def close_interrupt(self) -> None:
        """Closes the eventfd of the interrupt: signals have no effect any more. If a guest run's worker
        thread still waits for it, that thread closes it when it is done."""
        with self._guest_lock:
            if not self._guest_waiting:
                _close_interrupt(self.core)

    def watch_signals(self, fd: int, drain: Callable[[], None]) -> None:
        """From now on a blocking `get_events` also ends when ``fd`` is readable; `process_events` then calls
        ``drain``."""
        self._drain_signals = drain
        lib.tu_watch_signals(self.core, fd)

    # The run

    def attach(self, runner: Any) -> None:
        """Tells the manager its runner. Called once, before the first tick or at its beginning."""
        self._is_guest = lambda: bool(runner.is_guest)
        self.reschedule = runner.reschedule
        self._runner = runner
        self._knows_reschedule = KNOWS_TASKS and knows_reschedule()

    def statistics(self) -> UringStatistics:
        """What the run says about itself. Any thread."""
        statistics = ffi.new("tu_statistics *")
        lib.tu_read_statistics(self.core, statistics)
        sockets = self.sockets.statistics()
        return UringStatistics(
            entries=statistics.entries,
            cq_entries=statistics.cq_entries,
            tasks_waiting_read=len(self.readers) + sockets.receiving + (self._entry_task is not None),
            tasks_waiting_write=len(self.writers) + sockets.sending,
            operations_in_flight=statistics.in_flight,
            entered=statistics.entered,
            skipped=statistics.skipped,
            multishot_terminations=sockets.multishot_terminations,
            buffer_shortages=sockets.buffer_shortages,
            bytes_read_ahead=sockets.bytes_read_ahead,
            flags=self._flags,
        )

    def __del__(self) -> None:
        """Closes the manager of a run that was abandoned, or that Trio could not set up. Nobody can call
        the interrupt any more. The core's memory stays for objects that are finalised later."""
        if not hasattr(self, "sockets"):  # `__init__` has failed
            return
        self.close()
        _release(self.core)
        _close_interrupt(self.core)

    def _lose_to_parent(self) -> None:
        """Gives the ring up in a forked child: it is the parent's."""
        self.forked = self.closed = True
        self._guest_lock = threading.Lock()
        self._guest_waiting = False
        _lose(self.core)


def _no_signals() -> None:
    """Stands for the function of `watch_signals` until that is called."""


_managers: weakref.WeakSet[UringManager] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for manager in list(_managers):
        manager._lose_to_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
