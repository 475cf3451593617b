"""A socket of a run, and the one receive or accept of it that is with the kernel; and the groups that a
run has its sockets in: its connections, its acceptors.

sockets/states.py has the states, and says what leads from each to the next.

A slot is the core's again when it is reaped, and may be another operation's by the time that Python
sees the event. So while events are processed nothing is submitted or stopped: that is left to
`RunSocket.settle`, when all of them are.

What is here is for the thread that runs the ticks, except where it says that any thread may call it.
"""

from __future__ import annotations

import _socket
import socket
import struct
import weakref
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

import outcome
from trio.lowlevel import Abort, Task, reschedule

from .._tasks import learn, learn_sockets, sleeps_on
from ..loop.trio_internals import SocketType, WaitTaskRescheduled, context
from ..loop.waiter import Stopping, raise_closed, task_of
from ..ring.native import lib
from .states import (
    CANCELLING,
    CLOSED,
    CLOSING,
    IDLE,
    MULTISHOT,
    MULTISHOTS,
    NO_BUFFER,
    NOTHING_SUBMITTED,
    ONCE,
    STOPPING,
    State,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ..loop.run import Run
    from ..loop.waiter import Waiter

_cancel = lib.tu_cancel
_flush = lib.tu_flush


class SocketReference(weakref.ref["socket.socket"]):
    """A weak reference to a socket, which still knows the descriptor when the socket is gone."""

    __slots__ = ("fd",)
    fd: int


class RunSocket(ABC):
    """A socket as one run knows it: a `Connection` or an `Acceptor`."""

    __slots__ = (
        "_slot",
        "fd",
        "group",
        "message",
        "run",
        "sock",
        "state",
        "takes_nothing_ahead",
        "to_be_dropped",
        "waiter",
    )
    USED_BY_C: ClassVar[tuple[str, ...]] = ("fd", "run", "sock", "state", "waiter")

    def __init__(self, group: SocketGroup[Any], sock: socket.socket, *, takes_nothing_ahead: bool) -> None:
        self.group = group
        self.run = group.run
        self.fd = sock.fileno()
        self.sock = SocketReference(sock, group.on_collected)
        self.sock.fd = self.fd
        self.message: Any = WaitTaskRescheduled(self._abort)
        """What the task that waits for its operation sleeps with."""
        self.state = IDLE
        self._slot = 0
        """The slot of its operation, while the kernel has one."""
        self.waiter: Waiter = None
        """The task that waits for its operation."""
        self.takes_nothing_ahead = takes_nothing_ahead
        """Whether its operation may only take what a task waits for: it is never a multishot."""
        self.to_be_dropped = False
        """Whether the next tick has to drop it."""

    @property
    def closed(self) -> bool:
        return self.state is CLOSED or self.state is CLOSING

    @property
    @abstractmethod
    def taken_ahead(self) -> str:
        """What was taken ahead, for an error to say that hands the socket over; empty if nothing was."""

    @property
    @abstractmethod
    def readable(self) -> bool:
        """Whether something was taken ahead, or there is an error or an end to be told."""

    @property
    def is_waited_for(self) -> bool:
        """Whether a task waits for its operation."""
        return self.waiter is not None

    @property
    def is_sending(self) -> bool:
        """Whether a task is in `trio.SocketStream.send_all`."""
        return False

    @property
    @abstractmethod
    def _is_full(self) -> bool:
        """Whether so much was taken ahead that a multishot has to stop."""

    @property
    @abstractmethod
    def _may_be_multishot(self) -> bool:
        """Whether its next operation is to be a multishot."""

    @abstractmethod
    def _submit_to_core(self, *, multishot: bool) -> int:
        """Submits an operation; returns its slot, or -errno."""

    @abstractmethod
    def complete(self, result: int, *, more: bool, buffer: int) -> None:
        """Processes an event of its operation. ``more`` will come, or this is the last one; the data of
        a receive are in the provided ``buffer`` of that number. Called by its group only."""

    @abstractmethod
    def end_run(self) -> None:
        """Asks the kernel to stop what it has. Called when the run's last tick is over."""

    def break_cycles(self) -> None:
        """Drops its references to what refers to it: without them a closed socket is freed at once, and
        not by the garbage collector."""
        self.message = None

    def take_send_error(self, error: OSError) -> OSError:
        """Returns the error to be raised in a task whose send has failed with ``error``."""
        return error

    def drop(self) -> None:
        """Closes it: afterwards the ring holds no reference to its file. For its run's own thread."""
        self.group.drop(self)

    def drop_soon(self) -> None:
        """Has the next tick drop it. For any thread, at any moment."""
        self.to_be_dropped = True
        self.run.unsettled.append(self)
        self.run.force_wakeup()

    def is_of(self, sock: socket.socket) -> bool:
        """Whether this is for ``sock``: for that very object, or for another one on its descriptor."""
        ours = self.sock()
        return ours is sock or (ours is not None and ours.fileno() == self.fd)

    def has_completed(self) -> bool:
        """Whether the kernel has answered something that no tick has processed yet."""
        return self.state not in NOTHING_SUBMITTED and bool(lib.tu_has_completed(self.run.core, self._slot))

    def take_nothing_ahead(self) -> None:
        """Has it take nothing ahead any more, since others may take from the descriptor. For any thread."""
        self.takes_nothing_ahead = True
        self.pause_multishot()

    def pause_multishot(self) -> None:
        """Stops a multishot: when this returns, all that it has taken ahead is here. The next call that
        waits submits a new one.

        Only a task of the run can wait for that. Called by another thread, an instrument or a guest
        run's host, it has the next tick stop the multishot, for good.
        """
        if getattr(context, "task", None) is None or context.runner.io_manager is not self.run:
            self.takes_nothing_ahead = True
            self.run.unsettled.append(self)
            self.run.force_wakeup()
            return
        self._stop_now(MULTISHOTS, STOPPING)

    def finish(self) -> None:
        """Gets the kernel's answer to the operation that a task waits for, if it need not wait any more:
        another task may have its turn then, as on epoll. For the run's own tasks.

        Here that is an operation whose task was cancelled."""
        self._stop_now((CANCELLING,), CANCELLING)

    @abstractmethod
    def finish_send(self) -> None:
        """Does the same for a send of `trio.SocketStream.send_all`."""

    def close(self) -> bool:
        """Closes it. A task that waits is woken with trio.ClosedResourceError, or Cancelled if it was
        cancelled before. Returns whether the ring has to be flushed. Called by its group only."""
        waiter, self.waiter = self.waiter, None
        self.message = None  # which refers to this socket
        if isinstance(waiter, Stopping):
            reschedule(waiter.task, waiter.answer())
        elif waiter is not None:
            reschedule(waiter, outcome.capture(raise_closed))
        if self.state in NOTHING_SUBMITTED:
            self.state = CLOSED
        elif self.state is not CLOSING:
            self.group.multishot_terminations += self.state in MULTISHOTS
            if self._stop(CLOSING):
                return True
            self.state = CLOSED
        return False

    def settle(self) -> None:
        """Does what had to wait until all events of a tick were processed. Called by the run only."""
        if self.to_be_dropped:
            self.drop()
        elif self.waiter is not None and self.state in NOTHING_SUBMITTED:
            self.submit_for_waiter()
        elif self.readable and self.fd in self.run.readers:
            self.run.wake_reader(self.fd)
        elif self.state is MULTISHOT and (self.takes_nothing_ahead or self._is_full):
            self._stop(STOPPING)
            self._submit_if_taken_back()

    def submit_for_waiter(self) -> None:
        """Submits an operation for the task that waits already. That task is told what goes wrong."""
        try:
            self.submit()
        except (OSError, MemoryError, RuntimeError) as error:
            self._wake(outcome.Error(error))

    def forget_waiter(self) -> None:
        """Nobody waits any more: nothing is submitted until another task does."""
        self.waiter = None
        if self.state is NO_BUFFER:
            self.state = IDLE

    def submit(self) -> None:
        """Submits an operation. Called in the states IDLE and NO_BUFFER only.

        Raises what `Run.raise_refusal` raises, and MemoryError. Nothing was submitted then.
        """
        multishot = self._may_be_multishot
        slot = self._submit_to_core(multishot=multishot)
        if slot < 0:
            self.run.raise_refusal(self.fd, slot)
        try:
            self.group.by_slot[slot] = self
        except MemoryError:
            _cancel(self.run.core, slot)  # the kernel has not seen it yet
            raise
        self._slot = slot
        self.state = MULTISHOT if multishot else ONCE

    def _stop(self, state: State) -> bool:
        """Asks the kernel to stop what it has; the state is ``state`` until it answers. False if the
        operation was taken back before the kernel has seen it; then the state is IDLE."""
        if not _cancel(self.run.core, self._slot):
            self.state = state
            return True
        self.group.by_slot.pop(self._slot, None)
        self._slot = 0
        self.state = IDLE
        return False

    def _stop_now(self, states: tuple[State, ...], state: State) -> None:
        """Stops an operation that is in one of these states, and waits until the kernel has answered."""
        while self.state in states:
            if self._stop(state):
                self.run.look()
        self._submit_if_taken_back()

    def _submit_if_taken_back(self) -> None:
        """Submits again what was taken back, if a task waits for it."""
        if self.state is IDLE and self.waiter is not None:
            self.submit_for_waiter()

    def _has_ended(self) -> None:
        """Leaves the state that its operation was in, whose last completion has come."""
        self._slot = 0
        self.group.multishot_terminations += self.state in MULTISHOTS
        self.state = CLOSED if self.state is CLOSING else IDLE

    def _wake(self, answer: Any) -> None:
        """Wakes the task that waits with ``answer``."""
        waiter, self.waiter = self.waiter, None
        task = task_of(waiter)
        assert task is not None
        try:
            self.run.reschedule(task, answer)
        except MemoryError:  # it sleeps on, and may be woken once more
            self.waiter = waiter
            raise

    def _abort(self, raise_cancel: Callable[[], NoReturn]) -> Abort:
        """Called by Trio when the task that waits is cancelled. A multishot goes on without it."""
        task = task_of(self.waiter)
        if task is not None and self.state is ONCE and self._stop(CANCELLING):
            self.waiter = Stopping(task, raise_cancel)
            return Abort.FAILED
        self.forget_waiter()
        return Abort.SUCCEEDED


def reset_at_close(sock: socket.socket) -> None:
    """Has the kernel reset the connection when this socket, its last, is closed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_TIME_TO_LINGER)


_NO_TIME_TO_LINGER: Final = struct.pack("ii", 1, 0)
"""The struct linger."""

SocketT = TypeVar("SocketT", bound=RunSocket)


class SocketGroup(ABC, Generic[SocketT]):
    """All sockets of one kind that a run has: its connections, or its acceptors."""

    event_kind: ClassVar[int]
    """The kind of their events (``enum tu_kind`` of the core)."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.by_fd: dict[int, SocketT] = {}
        self.by_slot: dict[int, SocketT] = {}
        """Those of which the kernel has an operation."""
        self.multishot_terminations = 0
        run.register(self.event_kind, self.by_slot, self._process_event)

    @abstractmethod
    def socket_of(self, trio_socket: Any) -> SocketT | None:
        """Returns the one for a socket of Trio's own class, and makes it if there is none. None for a
        socket that is closed, or that works by readiness. For the run's own tasks."""

    def find(self, sock: socket.socket) -> SocketT | None:
        """Returns the one for this socket, or for another object on its descriptor. If the descriptor
        was another socket's, which was closed without our being told, that one is dropped."""
        found = self.by_fd.get(sock.fileno())
        if found is not None and not found.is_of(sock):
            self.drop(found)
            return None
        return found

    def existing(self, sock: socket.socket) -> SocketT | None:
        """Returns the one for this socket, or for another object on its descriptor, and changes nothing.
        For any thread."""
        found = self.by_fd.get(sock.fileno())
        return found if found is not None and found.is_of(sock) else None

    def drop(self, one: SocketT) -> None:
        """Closes one: afterwards the ring holds no reference to its file. For the run's own thread."""
        if self.by_fd.get(one.fd) is one:
            del self.by_fd[one.fd]
        if one.close():
            _flush(self.run.core)

    def on_collected(self, reference: SocketReference) -> None:
        """Has the next tick drop the one whose socket was collected. Called by the garbage collector,
        on any thread, at any moment."""
        found = self.by_fd.get(reference.fd)
        if found is not None and found.sock is reference:
            found.drop_soon()

    def forget_waiters(self) -> None:
        """Has none of them submit anything any more. Called when the run's last tick is over."""
        for one in list(self.by_fd.values()):
            one.forget_waiter()

    def end(self) -> None:
        """Asks the kernel to stop all that it has. Called when the run's last tick is over."""
        for one in list(self.by_fd.values()):
            one.end_run()

    def close(self) -> None:
        """Forgets them all. Called when the run's ring is gone."""
        for one in self.by_fd.values():
            one.state = CLOSED
            one.break_cycles()
        self.by_fd.clear()
        self.by_slot.clear()

    def _process_event(self, slot: int, result: int, more: bool, buffer: int) -> None:
        """Processes an event of one of them. Called by `wake` only, as the handler of its kind."""
        one = self.by_slot[slot] if more else self.by_slot.pop(slot)
        waiter = one.waiter
        if isinstance(waiter, Task) and not sleeps_on(waiter, one):
            one.waiter = None  # an exception has kept the task from falling asleep
        one.complete(result, more=more, buffer=buffer)


learn("socket", RunSocket, RunSocket.USED_BY_C)
learn_sockets(SocketType, _socket.socket.fileno, _socket.socket.family, MULTISHOT)
