"""A socket of a run, and the one receive or accept of it that is with the kernel; and the table of all
sockets of a run that are of one kind: connections, acceptors.

  state       with the kernel                       next
  IDLE        nothing                               ONCE or ARMED, by a task that waits
  ONCE        an operation for the task that waits  IDLE, by its completion, or if it is taken back
                                                    before the kernel has seen it; CANCELLING, by
                                                    the task's scope
  CANCELLING  the same, asked to stop; the task     IDLE, by its completion
              waits for what has become of it
  ARMED       a multishot                           IDLE, by its last completion; STOPPING, if
                                                    nothing more may be taken ahead
  STOPPING    the same, asked to stop               IDLE, by its last completion
  SHORT       nothing; a task waits until there     ONCE or ARMED, when there are; IDLE, by the
              are buffers again                     task's scope
  CLOSING     something, asked to stop; the socket  CLOSED, by its last completion
              is closed
  CLOSED      nothing

Closing leads from any of them to CLOSING, or to CLOSED if nothing is with the kernel.

A slot is the core's again when it is reaped, and may be somebody else's by the time that Python
sees the event. So while events are processed nothing is armed or stopped: that is left to
`RunSocket.settle`, when all of them are.
"""

from __future__ import annotations

import _socket
import enum
import weakref
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

import outcome
from trio.lowlevel import Abort, Task, reschedule

from .._tasks import is_current, learn, learn_sockets, sleeps_on
from ..loop.trio_internals import SocketType, WaitTaskRescheduled, context
from ..loop.waiter import Stopping, raise_closed, task_of
from ..ring.native import lib

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import NoReturn

    from ..loop.run import Run
    from ..loop.waiter import Waiter

_cancel = lib.tu_cancel
_flush = lib.tu_flush


class State(enum.Enum):
    IDLE = enum.auto()
    ONCE = enum.auto()
    CANCELLING = enum.auto()
    ARMED = enum.auto()
    STOPPING = enum.auto()
    SHORT = enum.auto()
    CLOSING = enum.auto()
    CLOSED = enum.auto()


IDLE: Final = State.IDLE
ONCE: Final = State.ONCE
CANCELLING: Final = State.CANCELLING
ARMED: Final = State.ARMED
STOPPING: Final = State.STOPPING
SHORT: Final = State.SHORT
CLOSING: Final = State.CLOSING
CLOSED: Final = State.CLOSED

_MULTISHOT: Final = (ARMED, STOPPING)
_NOTHING_SUBMITTED: Final = (IDLE, SHORT, CLOSED)


class SocketReference(weakref.ref["socket.socket"]):
    """A weak reference to a socket that knows its descriptor when the socket is gone."""

    __slots__ = ("fd",)
    fd: int


class RunSocket(ABC):
    """One socket, in one run."""

    __slots__ = (
        "_slot",
        "fd",
        "forsaken",
        "kind",
        "message",
        "run",
        "sock",
        "state",
        "takes_nothing_ahead",
        "waiter",
    )
    USED_BY_C: ClassVar[tuple[str, ...]] = ("fd", "run", "sock", "state", "waiter")

    def __init__(self, kind: Kind[Any], sock: socket.socket, *, takes_nothing_ahead: bool) -> None:
        self.kind = kind
        self.run = kind.run
        self.fd = sock.fileno()
        self.sock = SocketReference(sock, kind.forsake)
        self.sock.fd = self.fd
        self.message: Any = WaitTaskRescheduled(self._abort)
        """What a task that waits for it sleeps with."""
        self.state = IDLE
        self._slot = 0
        """The operation's, in the states in which something is with the kernel."""
        self.waiter: Waiter = None
        self.forsaken = False
        """The socket is gone, and this run was not told."""
        self.takes_nothing_ahead = takes_nothing_ahead

    @property
    def closed(self) -> bool:
        return self.state is CLOSED or self.state is CLOSING

    @property
    @abstractmethod
    def readable(self) -> bool:
        """Something was taken ahead."""

    @property
    def is_sending(self) -> bool:
        """Whether a task is in `trio.SocketStream.send_all`."""
        return False

    @property
    @abstractmethod
    def _is_full(self) -> bool:
        """So much was taken ahead that the multishot has to stop."""

    @property
    @abstractmethod
    def _may_be_multishot(self) -> bool: ...

    @abstractmethod
    def _submit(self, *, multishot: bool) -> int:
        """The slot of a new operation, or -errno."""

    @abstractmethod
    def complete(self, result: int, *, more: bool, buffer: int) -> None:
        """Takes in an event of its operation; the data of a receive are in the ``buffer`` of that number."""

    @abstractmethod
    def end_run(self) -> None:
        """Stops what is with the kernel: the run's last tick is over."""

    def let_go(self) -> None:
        """Gives up what refers back to it: a socket that is closed is not for the garbage collector."""
        self.message = None

    def reason(self, error: OSError) -> OSError:
        """The error that a send is to be told that has failed with this one."""
        return error

    def drop(self) -> None:
        """Closes it, in its run: afterwards the ring holds no reference to its file."""
        self.kind.drop(self)

    def is_of(self, sock: socket.socket) -> bool:
        """Whether a socket is this one: the same object, or another on its descriptor."""
        known = self.sock()
        return known is sock or (known is not None and known.fileno() == self.fd)

    def has_completed(self) -> bool:
        """Whether the kernel has answered something that no tick has told of yet. For the run's
        own thread."""
        return self.state not in _NOTHING_SUBMITTED and bool(lib.tu_has_completed(self.run.core, self._slot))

    def take_nothing_ahead(self) -> None:
        """Others may take from the descriptor, from now on."""
        self.takes_nothing_ahead = True
        self.pause()

    def pause(self) -> None:
        """What was taken ahead by now is known, and nothing more is until the next call."""
        if getattr(context, "task", None) is None or context.runner.io_manager is not self.run:
            # Another thread, an instrument, a guest run's host: none of them may reap.
            self.takes_nothing_ahead = True
            self.run.unsettled.append(self)
            self.run.force_wakeup()
            return
        self._stop_now(_MULTISHOT, STOPPING)

    def forsake(self) -> None:
        """The run drops it at its next tick: for any thread, at any moment."""
        self.forsaken = True
        self.run.unsettled.append(self)
        self.run.force_wakeup()

    def is_waited_for(self) -> bool:
        """Whether a task waits for it. Who was cancelled waits for the kernel's answer, which nobody
        else is to wait for: it is got now. For the run's own tasks."""
        self._stop_now((CANCELLING,), CANCELLING)
        return self.waiter is not None

    def is_sent_to(self) -> bool:
        """`is_sending`, after the kernel's answer to whoever was cancelled: the same."""
        return False

    def close(self) -> bool:
        """Whoever waits gets trio.ClosedResourceError, or what he was told before. True if the
        kernel has to be flushed."""
        waiter, self.waiter = self.waiter, None
        self.message = None  # it refers back to us
        if isinstance(waiter, Stopping):
            reschedule(waiter.task, waiter.answer())
        elif waiter is not None:
            reschedule(waiter, outcome.capture(raise_closed))
        if self.state in _NOTHING_SUBMITTED:
            self.state = CLOSED
        elif self.state is not CLOSING:
            self.kind.multishot_terminations += self.state in _MULTISHOT
            if self._stop(CLOSING):
                return True
            self.state = CLOSED
        return False

    def settle(self) -> None:
        """Does what was left until all events of a tick were processed."""
        if self.forsaken:
            self.drop()
        elif self.waiter is not None and self.state in _NOTHING_SUBMITTED:
            self.arm_for_waiter()
        elif self.readable and self.fd in self.run.readers:
            self.run.wake_reader(self.fd)
        elif self.state is ARMED and (self.takes_nothing_ahead or self._is_full):
            self._stop(STOPPING)
            self._arm_if_taken_back()

    def arm_for_waiter(self) -> None:
        """Arms again for the task that waits, which gets what goes wrong."""
        try:
            self._arm()
        except (OSError, MemoryError, RuntimeError) as error:
            self._wake(outcome.Error(error))

    def _arm(self) -> None:
        """From IDLE, or SHORT, to ARMED or ONCE."""
        multishot = self._may_be_multishot
        slot = self._submit(multishot=multishot)
        if slot < 0:
            self.run.raise_refusal(self.fd, slot)
        try:
            self.kind.by_slot[slot] = self
        except MemoryError:
            _cancel(self.run.core, slot)  # which the kernel has not seen
            raise
        self._slot = slot
        self.state = ARMED if multishot else ONCE

    def _stop(self, state: State) -> bool:
        """Asks the kernel to stop what it has, in ``state`` from then on. False if it never knew of
        it; then we are IDLE."""
        if not _cancel(self.run.core, self._slot):
            self.state = state
            return True
        self.kind.by_slot.pop(self._slot, None)
        self._slot = 0
        self.state = IDLE
        return False

    def _stop_now(self, states: tuple[State, ...], state: State) -> None:
        """Stops what the kernel has, and waits until it has answered."""
        while self.state in states:
            if self._stop(state):
                self.run.raise_on_error(_flush(self.run.core))
                self.run.reap()
        self._arm_if_taken_back()

    def _arm_if_taken_back(self) -> None:
        """Arms again for a task that waits for what the kernel has never known of."""
        if self.state is IDLE and self.waiter is not None:
            self.arm_for_waiter()

    def _has_ended(self) -> None:
        """The last completion is in."""
        self._slot = 0
        self.kind.multishot_terminations += self.state in _MULTISHOT
        self.state = CLOSED if self.state is CLOSING else IDLE

    def _wake(self, answer: Any) -> None:
        """Wakes the task that waits."""
        waiter, self.waiter = self.waiter, None
        task = task_of(waiter)
        assert task is not None
        try:
            self.run.reschedule(task, answer)
        except MemoryError:  # it sleeps on, and may be woken once more
            self.waiter = waiter
            raise

    def _abort(self, raise_cancel: Callable[[], NoReturn]) -> Abort:
        task = task_of(self.waiter)
        if task is not None and self.state is ONCE and self._stop(CANCELLING):
            self.waiter = Stopping(task, raise_cancel)
            return Abort.FAILED
        if self.state is SHORT:
            self.state = IDLE
        self.waiter = None
        return Abort.SUCCEEDED


SocketT = TypeVar("SocketT", bound=RunSocket)


class Kind(ABC, Generic[SocketT]):
    """The sockets of one kind that a run has."""

    event: ClassVar[int]
    """The kind of their events (``enum tu_kind`` of the core)."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.by_fd: dict[int, SocketT] = {}
        self.by_slot: dict[int, SocketT] = {}
        """Those whose operation is with the kernel."""
        self.multishot_terminations = 0
        run.register(self.event, self.by_slot, self._take_in)

    @abstractmethod
    def socket_of(self, trio_socket: Any) -> SocketT | None:
        """The one of a socket of Trio's own class, made if need be. None for a socket that works by
        readiness: those of other kinds, and closed ones."""

    def find(self, sock: socket.socket) -> SocketT | None:
        """The one of this socket, or of another object on its descriptor. One that had the descriptor
        before, and was closed without our being told, is dropped."""
        found = self.by_fd.get(sock.fileno())
        if found is not None and not found.is_of(sock):
            self.drop(found)
            return None
        return found

    def drop(self, one: SocketT) -> None:
        """Closes one: afterwards the ring holds no reference to its file."""
        if self.by_fd.get(one.fd) is one:
            del self.by_fd[one.fd]
        if one.close():
            _flush(self.run.core)

    def forsake(self, reference: SocketReference) -> None:
        """Drops that of a socket that was collected, at the next tick: on any thread, at any moment."""
        found = self.by_fd.get(reference.fd)
        if found is not None and found.sock is reference:
            found.forsake()

    def end(self) -> None:
        """Stops what is with the kernel: the run's last tick is over."""
        for one in list(self.by_fd.values()):
            one.end_run()

    def close(self) -> None:
        """Forgets all: the run and its ring are over."""
        for one in self.by_fd.values():
            one.state = CLOSED
            one.let_go()
        self.by_fd.clear()
        self.by_slot.clear()

    def _take_in(self, slot: int, result: int, more: bool, buffer: int) -> None:
        """Takes in an event: called by the run's `wake` only."""
        one = self.by_slot[slot] if more else self.by_slot.pop(slot)
        waiter = one.waiter
        if isinstance(waiter, Task) and not sleeps_on(waiter, one):
            one.waiter = None  # an exception has kept it from falling asleep
        one.complete(result, more=more, buffer=buffer)


learn("socket", RunSocket, RunSocket.USED_BY_C)
learn_sockets(SocketType, _socket.socket.fileno, ARMED)

__all__ = [
    "ARMED",
    "CANCELLING",
    "CLOSED",
    "CLOSING",
    "IDLE",
    "ONCE",
    "SHORT",
    "STOPPING",
    "Kind",
    "RunSocket",
    "SocketReference",
    "State",
    "is_current",
]
