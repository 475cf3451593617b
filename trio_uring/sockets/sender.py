"""Sends that ride along with the tick's one system call.

One at a time of each `Sender`, which is made once for all of them: `submit`, then sleep on
its ``message``, then look at its ``result``. It is the task's until that has looked, which may
be after another task has run that would send, too; so it has a ``task`` until then.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final

import outcome
import trio
from trio.lowlevel import Abort, reschedule

from ..loop.operation import STOPPED, Operation
from ..loop.trio_internals import WaitTaskRescheduled, context
from ..loop.waiter import Stopping, raise_closed, task_of
from ..ring.native import keep, lib

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ..loop.run import Run
    from ..ring.native import Pointer
    from .run_socket import RunSocket

_TRY_AGAIN: Final = (*STOPPED, -errno.EAGAIN)
_send = lib.tu_send
_cancel = lib.tu_cancel


class Sender(Operation):
    __slots__ = ("message",)

    def __init__(self, run: Run) -> None:
        nobody: Any = None
        super().__init__(run, nobody, 0, None)
        self.message: Any = WaitTaskRescheduled(self.abort)

    @property
    def is_busy(self) -> bool:
        """Its send is queued, or with the kernel."""
        return self.run.operations.get(self.slot) is self

    def submit(
        self, connection: RunSocket, address: Pointer | bytes, length: int, held: object, *, whole: bool
    ) -> None:
        """For the task that calls. ``whole``: with waits for room, else what there is room for."""
        if self.task is not None:
            raise trio.BusyResourceError("another task is already reading / writing this fd")
        try:
            slot = _send(self.run.core, connection.fd, address, length, whole)
            if slot > 0:
                self.slot = slot
                self.run.operations[slot] = self
        except BaseException:  # a signal handler's, or for want of memory: the kernel may have it
            keep(held)
            raise
        if slot < 0:
            self.run.raise_refusal(connection.fd, slot)
        self.held = held
        self.owner = connection
        self.task = context.task

    def progress(self, connection: RunSocket, result: int) -> int:
        """The bytes that a send has moved, 0 if it is to be tried again.

        Raises OSError, and what became of the task or the socket meanwhile.
        """
        waiter = self.task
        self.finish()
        if result < 0 and result not in _TRY_AGAIN:
            raise connection.reason(OSError(-result, os.strerror(-result)))
        if isinstance(waiter, Stopping):
            waiter.raise_reason()
        if connection.closed:
            raise_closed()
        return max(0, result)

    def finish(self) -> None:
        """The task has seen the result: another may send."""
        self.held = self.owner = self.task = None

    def abort(self, raise_cancel: Callable[[], NoReturn]) -> Abort:
        if isinstance(self.task, Stopping):  # the socket was closed before, and that is told
            return Abort.FAILED
        aborted = super().abort(raise_cancel)
        if aborted is Abort.SUCCEEDED:
            self.finish()
        return aborted

    def stop(self) -> bool:
        """The socket is closed. True: the kernel is done with the memory when its answer is in."""
        task = task_of(self.task)
        assert task is not None
        if not _cancel(self.run.core, self.slot):
            if not isinstance(self.task, Stopping):
                self.task = Stopping(task, raise_closed)
            return True
        del self.run.operations[self.slot]
        reschedule(task, outcome.capture(raise_closed))
        return False
