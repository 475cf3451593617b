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

from ._native import lib
from ._tasks import keep
from .internals import WaitTaskRescheduled, context
from .operation import STOPPED, Operation

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ._native import Pointer
    from .connection import Connection
    from .manager import UringManager

_TRY_AGAIN: Final = (*STOPPED, -errno.EAGAIN)
_send = lib.tu_send
_cancel = lib.tu_cancel


class Sender(Operation):
    __slots__ = ("_stopped", "message")
    task: Any
    """None between sends; never while the manager's operations have it."""

    def __init__(self, manager: UringManager) -> None:
        nobody: Any = None
        super().__init__(manager, nobody, 0, None)
        self._stopped = False
        self.message: Any = WaitTaskRescheduled(self.abort)

    @property
    def is_busy(self) -> bool:
        """Its send is queued, or with the kernel."""
        return self.manager.operations.get(self.slot) is self

    def submit(self, fd: int, address: Pointer | bytes, length: int, held: object, *, whole: bool) -> None:
        """For the task that calls. ``whole``: with waits for room, else what there is room for."""
        if self.task is not None:
            raise trio.BusyResourceError("another task is already reading / writing this fd")
        try:
            slot = self.slot = _send(self.manager.core, fd, address, length, whole)
            if slot > 0:
                self.manager.operations[slot] = self
        except BaseException:  # a signal handler's, or for want of memory: the kernel may have it
            keep(held)
            raise
        if slot < 0:
            self.manager.refuse(fd, slot)
        self.held = held
        self.task = context.task

    def progress(self, connection: Connection, result: int) -> int:
        """The bytes that a send has moved, 0 if it is to be tried again.

        Raises OSError, and what became of the task or the socket meanwhile.
        """
        raise_cancel, self.raise_cancel = self.raise_cancel, None
        self.held = self.task = None
        if result < 0 and result not in _TRY_AGAIN:
            raise connection.reason(OSError(-result, os.strerror(-result)))
        if raise_cancel is not None:
            raise_cancel()
        if connection.closed:
            raise trio.ClosedResourceError("another task closed this fd")
        return max(0, result)

    def abort(self, raise_cancel: Callable[[], NoReturn]) -> Abort:
        aborted = super().abort(raise_cancel)
        if aborted is Abort.SUCCEEDED:
            self.held = self.task = None
        if self._stopped:  # it is told of the close, which came first
            self.raise_cancel = None
        return aborted

    def stop(self) -> bool:
        """The socket is closed. The kernel is done with the memory when its answer is in."""
        self._stopped = True
        if not _cancel(self.manager.core, self.slot):
            return True
        del self.manager.operations[self.slot]
        reschedule(self.task, outcome.Error(trio.ClosedResourceError("another task closed this fd")))
        return False
