"""Waits until a descriptor is readable or writable: one poll of the ring for each wait.

- `notify_closing` returns only when the ring has let go of the file, and so does a
  cancelled wait, which a plain ``close`` may follow. That costs a system call if the
  kernel has the poll already, and none if the poll is still in our queue. (If there is
  no memory for the cancel, it is tried again at the next tick.)

- A descriptor that is closed without `notify_closing`, while a task waits for it, keeps
  its file open until the wait ends. (On epoll the peer would notice at once, and the task
  never.) If the number is given out again within the same tick, the new file is polled:
  a spurious wake-up, which every caller must expect.

- A descriptor that is not open raises OSError once the tick has submitted the
  wait, not at the call as on epoll: a scope that is cancelled by then wins.

- A task that is woken finds the descriptor ready: when the kernel's poll has completed,
  poll(2) is asked too, and if that says no, the wait goes on (native/operations.h). If
  the descriptor was closed meanwhile, the task is woken, and finds out by itself.

- Regular files, directories and /dev/null are ready at once, as for poll(2),
  where epoll refuses them with PermissionError.

- Each direction is a poll of its own, so that one wakes without the other. An
  error or a hang-up completes both, as on epoll.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn, Protocol, TypeAlias

import outcome
from trio.lowlevel import Abort, Task, checkpoint, current_task, reschedule, wait_task_rescheduled

from ..ring.native import lib
from .checkpoints import READY
from .run import Run
from .waiter import busy, raise_closed

if TYPE_CHECKING:
    from ..ring.native import Core
    from .statistics import SocketStatistics

RaiseCancel: TypeAlias = Callable[[], NoReturn]

# A global name is found faster than an attribute of lib.
_READ: Final = lib.TU_READ
_WRITE: Final = lib.TU_WRITE
_poll_add = lib.tu_poll_add
_poll_cancel = lib.tu_poll_cancel


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class SocketOfRun(Protocol):
    """A socket that a task of the run may receive, accept or send by (sockets/run_socket.py)."""

    @property
    def readable(self) -> bool: ...
    @property
    def is_waited_for(self) -> bool: ...
    @property
    def is_sending(self) -> bool: ...
    def finish(self) -> None: ...
    def finish_send(self) -> None: ...
    def take_nothing_ahead(self) -> None: ...


class Sockets(Protocol):
    """The sockets of the run that work by completions, as the loop knows them (sockets/registry.py)."""

    def with_descriptor(self, fd: int) -> Iterable[SocketOfRun]: ...
    def notify_closing(self, fd: int) -> None: ...
    def statistics(self) -> SocketStatistics: ...
    def end(self) -> None: ...
    def close(self) -> None: ...


class Readiness(Run):
    """The part of a run's I/O manager that waits for descriptors. Its public methods are those of Trio's
    I/O managers; tasks of the run call them, through `trio.lowlevel`."""

    __slots__ = ("_abort_write", "abort_read", "sockets")
    sockets: Sockets

    def __init__(self, core: Core, budget: int) -> None:
        super().__init__(core, budget)
        self.abort_read = partial(self._abort, self.readers)
        """Ends the wait of the task that waits to read a descriptor: what such a task is aborted with."""
        self._abort_write = partial(self._abort, self.writers)
        self.register(_READ, self.readers, partial(self._wake_waiter, self.readers))
        self.register(_WRITE, self.writers, partial(self._wake_waiter, self.writers))

    # Not coroutine functions: the caller awaits the coroutine that Trio makes, which saves a
    # frame for each wait.

    def wait_readable(self, fd: int | HasFileno) -> Awaitable[None]:
        if not isinstance(fd, int):
            fd = fd.fileno()
        if fd in self.readers:
            raise busy()
        for sock in self.sockets.with_descriptor(fd):
            sock.finish()
            if sock.is_waited_for:
                raise busy()
            sock.take_nothing_ahead()
            if sock.readable:
                return checkpoint()
        task = current_task()
        abort = partial(self.abort_read, fd)
        slot = _poll_add(self.core, fd, _READ)
        if slot < 0:
            self.raise_refusal(fd, slot)
        self.readers[fd] = task
        task.custom_sleep_data = slot
        return wait_task_rescheduled(abort)

    def wait_writable(self, fd: int | HasFileno) -> Awaitable[None]:
        if not isinstance(fd, int):
            fd = fd.fileno()
        for sock in self.sockets.with_descriptor(fd):
            sock.finish_send()
            if sock.is_sending:
                raise busy()
        if fd in self.writers:
            raise busy()
        task = current_task()
        abort = partial(self._abort_write, fd)
        slot = _poll_add(self.core, fd, _WRITE)
        if slot < 0:
            self.raise_refusal(fd, slot)
        self.writers[fd] = task
        task.custom_sleep_data = slot
        return wait_task_rescheduled(abort)

    def notify_closing(self, fd: int | HasFileno) -> None:
        if not isinstance(fd, int):
            fd = fd.fileno()
        self.sockets.notify_closing(fd)
        if fd not in self.readers and fd not in self.writers:
            return
        tasks = [task for task in (self.readers.pop(fd, None), self.writers.pop(fd, None)) if task]
        self._cancel(*(task.custom_sleep_data for task in tasks))
        for task in tasks:
            reschedule(task, outcome.capture(raise_closed))

    def wake_reader(self, fd: int) -> None:
        task = self.readers.pop(fd, None)
        if task is not None:
            self._cancel(task.custom_sleep_data)
            reschedule(task, READY)

    def _wake_waiter(self, waiters: dict[int, Task], fd: int, result: int, _more: bool, _buffer: int) -> None:
        """Processes the event of a wait. Called by `wake` only, as the handler of its kind."""
        task = waiters.pop(fd, None)
        if task is None:  # cancelled by an instrument, since the tick
            return
        self.reschedule(task, READY if result >= 0 else outcome.Error(OSError(-result, os.strerror(-result))))

    def _abort(self, waiters: dict[int, Task], fd: int, _: RaiseCancel) -> Abort:
        self._cancel(waiters.pop(fd).custom_sleep_data)
        return Abort.SUCCEEDED

    def _cancel(self, slot: int, other_slot: int = 0) -> None:
        """Cancels one wait or two. When it returns, the ring holds no reference to their files."""
        _poll_cancel(self.core, slot, other_slot)
