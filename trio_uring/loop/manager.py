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
  finalisers use the interrupt (loop/wakeup.py). In a guest run Trio waits on a worker
  thread: that one only looks at shared words and waits for descriptors, and
  leaves it to the owner to reap.

- After a fork the child owns nothing. It gives its copy of the ring back and
  never enters it: whatever it submitted would run on the parent's ring. The run
  that it was forked in can unwind there, but not wait for I/O.

- What a tick has brought is processed before anybody waits for more, each event once, also
  if an exception comes between. How a run ends is told in loop/closing.py.
"""

from __future__ import annotations

import _socket
import os
import threading
import weakref
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

import outcome
from trio.lowlevel import Abort, Task, current_task, wait_task_rescheduled

from .._tasks import check_queued, learn, sleeps_on, wake, watch_queue
from ..ring.native import ffi, lib
from ..sockets.connection import Connection
from ..sockets.connections import Connections
from ..sockets.run_socket import ARMED, Armed
from .closing import Closing
from .operation import Operation
from .sleep import READY
from .statistics import UringStatistics
from .trio_internals import SocketType, context, knows_reschedule
from .waiter import task_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..ring.opening import Ring
    from .readiness import RaiseCancel

# A name here costs a tick less than an attribute of lib.
_COUNT: Final = lib.TU_COUNT
_WOKEN: Final = lib.TU_WOKEN
_SIGNALS: Final = lib.TU_SIGNALS
_REAP: Final = lib.TU_REAP
_NOT_STARTED: Final = lib.TU_NOT_STARTED
_READ: Final = lib.TU_READ
_OPERATION: Final = lib.TU_OPERATION
_RECEIVE: Final = lib.TU_RECEIVE
_ACCEPT: Final = lib.TU_ACCEPT
_EVENT_SIZE: Final = ffi.sizeof("tu_event")

_poll = lib.tu_poll
_wait = lib.tu_wait
_guest_wait = lib.tu_guest_wait
_reap = lib.tu_reap
_start = lib.tu_start
_release = lib.tu_release
_lose = lib.tu_lose
_events = lib.tu_events
_events_capacity = lib.tu_events_capacity
_signal_woken = lib.tu_signal_woken
_signal_forced = lib.tu_signal_forced
_close_interrupt = lib.tu_close_interrupt
_LEARNT: Final = learn(
    Task,
    Operation,
    Armed,
    Connection,
    Connections,
    SocketType,
    _socket.socket.fileno,
    context,
    ARMED,
    *(int(ffi.cast("uintptr_t", ffi.addressof(lib, name))) for name in ("tu_send", "tu_cancel")),
)


class UringManager(Closing):
    """One run's I/O manager. Trio's thread owns it; `force_wakeup` is for any thread."""

    def __init__(self, ring: Ring) -> None:
        core = ring.core
        self._core_owner = ring.owner
        super().__init__(core)
        self._flags = ring.flags
        self._events = memoryview(ffi.buffer(_events(core), _events_capacity(core) * _EVENT_SIZE))
        self.files_written = 0
        """At this moment, without a task that waits for it (files/write_behind.py)."""
        self.is_waited_for = False
        """Whether the interpreter does not end before the run's thread."""
        self.connections = Connections(
            self, ring.options, usable="completions" in ring.flags, tls="tls" in ring.flags
        )
        self._unchecked = memoryview(ffi.buffer(lib.tu_unchecked(core), 4)).cast("I")
        watch_queue(self.connections)
        self._waiting = (self.readers, self.writers, self.operations, self.connections.receivers)
        """What waits for an event: by its kind, and then by its key."""
        self._drain_signals: Callable[[], None] = _no_signals
        _managers.add(self)

    # Ticks

    def get_events(self, timeout: float) -> int:
        """One tick. False only if ``timeout`` (seconds) expired; else for `process_events`."""
        if self._unchecked[0]:
            check_queued(self.connections)
        if timeout <= 0:
            events = _poll(self.core)
        elif get_ident() == self._owner:
            events = _wait(self.core, int(timeout * 1e9))
        else:
            return self._get_events_elsewhere(timeout)
        return events if events >= 0 else self._get_first_events(timeout, events)

    def process_events(self, events: int | Sequence[object]) -> None:
        """Wakes the tasks that ``events`` is about: what `get_events` returned, or, for
        the first ticks of a guest run, Trio's own ``[]``."""
        if not events:
            return
        assert isinstance(events, int)
        if events & _REAP:
            events = self.checked(_reap(self.core)) | events & _SIGNALS
        connections = self.connections
        count = connections.woken = events & _COUNT
        if count:
            self._wake(count, self._appender())
        if connections.unsettled or connections.short:
            connections.settle()
        if events & _WOKEN and self._entry_task is not None:
            self.reschedule(self._entry_task, READY)
            self._entry_task = None
        if events & _SIGNALS:
            self._drain_signals()

    def _wake(self, count: int, append: Callable[[Task], None] | None) -> None:
        """Processes those of the first ``count`` events that are not yet."""
        connections = self.connections
        wake(
            self._events,
            count,
            connections.memory,
            connections.buffer_size,
            self._waiting,
            READY,
            append,
            self._process_event,
        )

    def _process_event(self, kind: int, key: int, result: int, detail: int) -> None:
        """Any event; `wake` takes those of which there are many."""
        connections = self.connections
        answer: Any = READY
        task: Task | None
        if kind == _OPERATION:
            operation = self.operations.pop(key, None)
            if operation is None:  # its submission was broken off
                return
            operation.result = result
            if not isinstance(operation, Operation):
                connections.unsettled.append(operation)
                return
            waiter = operation.task
            task = task_of(waiter)
            if task is waiter and task is not None and not sleeps_on(task, operation):
                return
        elif kind == _RECEIVE:
            connection = connections.receivers[key] if detail & 1 else connections.receivers.pop(key)
            _forget_absent(connection)
            if result > 0:
                connection.deliver(connections.received(result, detail))
            if not detail & 1:
                connection.finish(result)
            return
        elif kind == _ACCEPT:
            _forget_absent(connections.acceptors.by_slot[key])
            connections.acceptors.complete(key, result, more=bool(detail))
            return
        else:
            task = (self.readers if kind == _READ else self.writers).pop(key, None)
            # None: cancelled by an instrument, since the tick.
            if result < 0:
                answer = outcome.Error(OSError(-result, os.strerror(-result)))
        if task is not None:
            self.reschedule(task, answer)

    def _appender(self) -> Callable[[Task], None] | None:
        """Of the runner's queue; None if somebody is to hear of each task that is woken."""
        runner = self._runner
        if not self._knows_reschedule or "task_scheduled" in runner.instruments:
            return None
        return runner.runq.append  # type: ignore[no-any-return]

    def _get_first_events(self, timeout: float, error: int) -> int:
        """The first tick: from now on its thread owns the ring."""
        if error != _NOT_STARTED:
            self.checked(error)
        self._owner = get_ident()
        self.is_waited_for = not threading.current_thread().daemon
        self.checked(_start(self.core, self._is_guest()))
        return self.get_events(timeout)

    def _get_events_elsewhere(self, timeout: float) -> int:
        """A blocking wait, not on the owner's thread: a guest run's."""
        if self._owner is None:
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
        """Ends a blocking `get_events`; wakes no task."""
        _signal_forced(self.core)

    async def wait_woken(self) -> None:
        """Waits until `signaller`'s function was called; for the entry queue's task only."""
        self._entry_task = current_task()
        await wait_task_rescheduled(self._abort_entry)

    def _abort_entry(self, _: RaiseCancel) -> Abort:
        self._entry_task = None
        return Abort.SUCCEEDED

    def signaller(self) -> Callable[[], None]:
        """A function that wakes `wait_woken`: for any thread, signal handlers and finalisers.

        It looks before it calls, so that a burst does not let go of the GIL each
        time. What is seen set cannot be lost: the caller has queued its job with
        the GIL held, and the owner, once it has cleared the word, needs the GIL
        to look at the queue.
        """
        core = self.core
        signalled = memoryview(ffi.buffer(lib.tu_signalled(core), 4)).cast("I")

        def signal() -> None:
            if not signalled[0] & _WOKEN:
                _signal_woken(core)

        return signal

    def close_interrupt(self) -> None:
        """Signals are ignored from now on. A guest run's thread that still waits does it later."""
        with self._guest_lock:
            if not self._guest_waiting:
                _close_interrupt(self.core)

    def watch_signals(self, fd: int, drain: Callable[[], None]) -> None:
        """Ends a blocking `get_events` when ``fd`` is readable, and then calls ``drain``."""
        self._drain_signals = drain
        lib.tu_watch_signals(self.core, fd)

    # The run

    def serve(self, runner: Any) -> None:
        """Before the first tick: whose manager this is."""
        self._is_guest = lambda: bool(runner.is_guest)
        self.reschedule = runner.reschedule
        self._runner = runner
        self._knows_reschedule = _LEARNT and knows_reschedule()

    def statistics(self) -> UringStatistics:
        """From any thread, as long as somebody holds us."""
        statistics = ffi.new("tu_statistics *")
        lib.tu_read_statistics(self.core, statistics)
        return UringStatistics(
            entries=statistics.entries,
            cq_entries=statistics.cq_entries,
            tasks_waiting_read=len(self.readers)
            + self.connections.tasks_receiving()
            + (self._entry_task is not None),
            tasks_waiting_write=len(self.writers) + self.connections.tasks_sending(),
            operations_in_flight=statistics.in_flight,
            entered=statistics.entered,
            skipped=statistics.skipped,
            multishot_terminations=self.connections.multishot_terminations,
            buffer_shortages=self.connections.buffer_shortages,
            bytes_read_ahead=self.connections.bytes_read_ahead,
            flags=self._flags,
        )

    def __del__(self) -> None:
        """An abandoned run's, or one that Trio could not set up. Nobody can signal any
        longer, and the core outlives it for whoever else is finalised."""
        if not hasattr(self, "closed"):  # it was not made
            return
        self.close()
        _release(self.core)
        _close_interrupt(self.core)

    def _lose_to_parent(self) -> None:
        """In a forked child: the ring is the parent's."""
        self._forked = self.closed = True
        self._guest_lock = threading.Lock()
        self._guest_waiting = False
        _lose(self.core)


def _forget_absent(armed: Armed) -> None:
    """Forgets a task that an exception has kept from falling asleep."""
    waiter = armed.waiter
    if isinstance(waiter, Task) and not sleeps_on(waiter, armed):
        armed.waiter = None


def _no_signals() -> None:
    """Nobody has asked for signals to be watched."""


_managers: weakref.WeakSet[UringManager] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for manager in list(_managers):
        manager._lose_to_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
