"""What tasks wait for descriptors with: one poll of the ring for each wait.

- `notify_closing`, and a cancelled wait, which a plain ``close`` may follow,
  return only when the ring has let go of the file. That costs a system call if
  the kernel knows of the wait, and none if it is still in our queue. (A kernel
  that has no memory for the cancel gets it again at the next tick.)

- A descriptor that is closed behind our back with a task waiting on it stays
  open until the wait ends. (On epoll the peer would notice at once, and the task
  never.) A number that is closed and given out again within one tick polls the
  new file: a spurious wake-up, which every caller must expect.

- A descriptor that is not open raises OSError once the tick has submitted the
  wait, not at the call as on epoll: a scope that is cancelled by then wins.

- Who is woken finds the descriptor ready: when the kernel's poll has completed, which a
  wake-up makes it do, poll(2) is asked again, and else the wait goes on. Of a number that
  was closed meanwhile it says so, and the task finds out itself.

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
import trio
from trio.lowlevel import Abort, Task, checkpoint, current_task, reschedule, wait_task_rescheduled

from ..ring.native import lib
from .checkpoints import READY
from .run import Run

if TYPE_CHECKING:
    from ..ring.native import Core
    from .statistics import SocketStatistics

RaiseCancel: TypeAlias = Callable[[], NoReturn]

# A name here costs a wait less than an attribute of lib.
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
    def finish_cancelled(self) -> None: ...
    def finish_cancelled_send(self) -> None: ...
    def take_nothing_ahead(self) -> None: ...


class Sockets(Protocol):
    """The sockets of the run that work by completions, as the loop knows them (sockets/registry.py)."""

    def with_descriptor(self, fd: int) -> Iterable[SocketOfRun]: ...
    def notify_closing(self, fd: int) -> None: ...
    def statistics(self) -> SocketStatistics: ...
    def end(self) -> None: ...
    def close(self) -> None: ...


class Readiness(Run):
    """The waits of one run; the part of its I/O manager that a program calls."""

    sockets: Sockets

    def __init__(self, core: Core, budget: int) -> None:
        super().__init__(core, budget)
        self._abort_read = partial(self._abort, self.readers)
        self._abort_write = partial(self._abort, self.writers)
        self.register(_READ, self.readers, partial(self._wake_waiter, self.readers))
        self.register(_WRITE, self.writers, partial(self._wake_waiter, self.writers))

    # Not coroutine functions: the caller awaits the one that Trio makes, and a
    # frame per wait is saved.

    def wait_readable(self, fd: int | HasFileno) -> Awaitable[None]:
        if not isinstance(fd, int):
            fd = fd.fileno()
        if fd in self.readers:
            raise trio.BusyResourceError("another task is already reading / writing this fd")
        for sock in self.sockets.with_descriptor(fd):
            sock.finish_cancelled()
            if sock.is_waited_for:
                raise trio.BusyResourceError("another task is already reading / writing this fd")
            sock.take_nothing_ahead()
            if sock.readable:
                return checkpoint()
        task = current_task()
        abort = partial(self._abort_read, fd)
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
            sock.finish_cancelled_send()
            if sock.is_sending:
                raise trio.BusyResourceError("another task is already reading / writing this fd")
        if fd in self.writers:
            raise trio.BusyResourceError("another task is already reading / writing this fd")
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
        tasks = [task for task in (self.readers.pop(fd, None), self.writers.pop(fd, None)) if task]
        if not tasks:
            return
        self._cancel(*(task.custom_sleep_data for task in tasks))
        for task in tasks:
            reschedule(task, outcome.Error(trio.ClosedResourceError("another task closed this fd")))

    def wake_reader(self, fd: int) -> None:
        task = self.readers.pop(fd, None)
        if task is not None:
            self._cancel(task.custom_sleep_data)
            reschedule(task, READY)

    def _wake_waiter(self, waiters: dict[int, Task], fd: int, result: int, _more: bool, _buffer: int) -> None:
        """Takes in the event of a wait."""
        task = waiters.pop(fd, None)
        if task is None:  # cancelled by an instrument, since the tick
            return
        self.reschedule(task, READY if result >= 0 else outcome.Error(OSError(-result, os.strerror(-result))))

    def _abort(self, waiters: dict[int, Task], fd: int, _: RaiseCancel) -> Abort:
        self._cancel(waiters.pop(fd).custom_sleep_data)
        return Abort.SUCCEEDED

    def _cancel(self, slot: int, other_slot: int = 0) -> None:
        """Afterwards the ring holds no reference to the files of these waits."""
        _poll_cancel(self.core, slot, other_slot)
