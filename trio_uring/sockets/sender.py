"""Sends that are submissions: they reach the kernel with the tick's one system call.

A `Sender` is made once for all sends of its kind on a socket, one at a time. A task calls `submit`,
sleeps on ``message``, looks at ``result``, and then calls `finish`, or `progress`, which does. Until
then the sender is that task's, and has it as its ``task``: after the kernel has answered, another task
that wants to send may run first.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final

import outcome
from trio.lowlevel import Abort, reschedule

from ..loop.operation import STOPPED, Operation
from ..loop.trio_internals import WaitTaskRescheduled, context
from ..loop.waiter import Stopping, busy, raise_closed, task_of
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
    """The one send of a socket, by one way of sending, that may be under way. For its run's own thread."""

    __slots__ = ("message",)

    def __init__(self, run: Run) -> None:
        nobody: Any = None
        super().__init__(run, nobody, 0, None)
        self.message: Any = WaitTaskRescheduled(self.abort)

    @property
    def is_busy(self) -> bool:
        """Whether its send is queued, or with the kernel."""
        return self.run.operations.get(self.slot) is self

    def submit(
        self, connection: RunSocket, address: Pointer | bytes, length: int, held: object, *, whole: bool
    ) -> None:
        """Submits a send of the memory at ``address``, which belongs to ``held``, for the task that calls.
        ``whole``: the kernel sends all of it, however often it has to wait for room; else it sends what
        there is room for.

        Raises trio.ClosedResourceError if the socket was closed since the caller looked: nobody would hear of
        the result then."""
        if connection.closed:
            raise_closed()
        if self.task is not None:
            raise busy()
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
        """Ends a send that had this ``result``. Returns how many bytes it has sent; 0 if it has to be tried
        again.

        Raises OSError; Cancelled if the task was cancelled meanwhile; trio.ClosedResourceError if the
        socket was closed.
        """
        waiter = self.task
        self.finish()
        if result < 0 and result not in _TRY_AGAIN:
            raise connection.take_send_error(OSError(-result, os.strerror(-result)))
        if isinstance(waiter, Stopping):
            waiter.raise_reason()
        if connection.closed:
            raise_closed()
        return max(0, result)

    def finish(self) -> None:
        """Lets another task send: this one has seen the result."""
        self.held = self.owner = self.task = None

    def abort(self, raise_cancel: Callable[[], NoReturn]) -> Abort:
        if isinstance(self.task, Stopping):  # the socket was closed before, and the task is told that
            return Abort.FAILED
        aborted = super().abort(raise_cancel)
        if aborted is Abort.SUCCEEDED:
            self.finish()
        return aborted

    def stop(self) -> bool:
        """Stops the send of a socket that is closed: its task gets trio.ClosedResourceError. True if the
        kernel has to answer first, since it uses the memory until then."""
        task = task_of(self.task)
        assert task is not None
        if not _cancel(self.run.core, self.slot):
            if not isinstance(self.task, Stopping):
                self.task = Stopping(task, raise_closed)
            return True
        del self.run.operations[self.slot]
        reschedule(task, outcome.capture(raise_closed))
        return False
