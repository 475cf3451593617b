"""The life of one operation: it is submitted, a task sleeps on it, and it completes or is cancelled.

- The kernel knows an operation by the number of its slot. The `Operation` holds the objects whose
  memory the kernel reads or writes, and the run holds the `Operation` until the completion is in. So
  the memory is not freed even if the caller is thrown away together with its run.
- When its scope is cancelled, the kernel is asked to stop the operation, and the task sleeps on until
  the kernel answers. Only the answer "cancelled" raises `trio.Cancelled`. Any other answer is a
  result, which the caller gets: what was read or written is never dropped.
- An operation that the kernel has not seen yet is taken back. Then the task is cancelled at once.
- The kernel may answer "cancelled" unasked. It had no worker for the operation, and could not start
  one: a signal was pending at each of its four attempts, or there may be no more threads. Then the
  operation has not happened, and is made again; ten times, since there may never be a thread.
- Where the result is a descriptor, and nobody takes it, it is closed: the task was thrown away together
  with its run, or never fell asleep.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, ClassVar, Final, NoReturn

from trio.lowlevel import Abort, enable_ki_protection

from ..ring.native import ffi, keep, lib
from .checkpoints import sleep
from .trio_internals import WaitTaskRescheduled, context
from .waiter import Stopping, task_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.lowlevel import Task

    from ..ring.native import Pointer
    from ..ring.opcodes import Opcode
    from .run import Run
    from .waiter import Waiter

_submit = lib.tu_submit
NULL: Final = ffi.NULL
_ASYNC: Final = 1 << 4 << 8
"""A flag beside an opcode: a worker of the kernel's does the operation, and may block (IOSQE_ASYNC)."""
# What a worker of the kernel's answers that was stopped in the middle of a call: EINTR, or one of the
# numbers that the kernel uses only within itself (ERESTARTSYS to ERESTART_RESTARTBLOCK).
_INTERRUPTED: Final = (-errno.EINTR, -512, -513, -514, -516)
STOPPED: Final[tuple[int, ...]] = (-errno.ECANCELED, *_INTERRUPTED)
NO_WORKER: Final = -errno.ECANCELED
"""The answer to an operation that nobody has asked the kernel to stop: it could start no worker."""
MOST_TRIES: Final = 10
"""How often in a row an operation is made that has this answer."""
_NO_RESULT: Final = -errno.ECANCELED
MOST: Final = 0x7FFFF000
"""The most bytes that one read or write moves (MAX_RW_COUNT of read(2))."""
HERE: Final = (1 << 64) - 1
"""An offset that stands for the file's own position, which then moves."""


class Operation:
    """An operation of a task. The run keeps it in `Run.operations` until the completion is in."""

    __slots__ = ("held", "owner", "result", "run", "slot", "task")
    USED_BY_C: ClassVar[tuple[str, ...]] = ("held", "owner", "result", "slot", "task")

    def __init__(self, run: Run, task: Task, slot: int, held: object, owner: object = None) -> None:
        self.run = run
        self.task: Waiter = task
        self.slot = slot
        self.held = held
        self.owner = owner
        """Whom to ask, before the kernel gets the operation, whether its descriptor is still the same
        (native/python/checking.c): a socket of the run, or a `fileno`. None: nobody is asked."""
        self.result = _NO_RESULT

    def abort(self, raise_cancel: Callable[[], NoReturn]) -> Abort:
        """Asks the kernel to stop it. Called by Trio, as the abort function of the task that sleeps."""
        if lib.tu_cancel(self.run.core, self.slot):
            self.run.operations.pop(self.slot, None)
            return Abort.SUCCEEDED
        if task := task_of(self.task):
            self.task = Stopping(task, raise_cancel)
        return Abort.FAILED

    def outcome(self) -> int:
        """Hands over the result; raises Cancelled if that is what the kernel says became of it."""
        result, self.result = self.result, _NO_RESULT
        if isinstance(self.task, Stopping) and result in STOPPED:
            self.task.raise_reason()
        return result


class Opening(Operation):
    """An operation whose result is a descriptor, which is closed if nobody takes it."""

    __slots__ = ()
    _close = staticmethod(os.close)  # modules have no names any more when Python ends

    def __del__(self) -> None:
        if getattr(self, "result", _NO_RESULT) >= 0:
            self._close(self.result)


# Ctrl-C between the submission and the entry in `Run.operations` would leave the kernel with memory that
# nobody holds.
@enable_ki_protection
async def perform(
    run: Run,
    opcode: Opcode,
    fd: int,
    address: Pointer = NULL,
    length: int = 0,
    offset: int = 0,
    flags: int = 0,
    *,
    other_fd: int = 0,
    held: object = None,
    fileno: Callable[[], int] | None = None,
    waits: bool = False,
) -> int:
    """The result of one operation: >= 0, or -errno. A checkpoint.

    ``address`` and ``held`` are kept until the kernel is done with them. ``fileno`` of whom ``fd``
    belongs to is asked again before the kernel gets it: -EBADF if that raises, or tells another
    number. ``waits``: a worker of the kernel's does it from the start, and may block. What was
    interrupted in a worker is repeated, and so is what the kernel had no worker for. Cancelled: the
    operation has not happened, or a part of it that the kernel does not tell of.
    """
    number = opcode.number
    if fileno is not None:
        number |= lib.TU_CHECKED
    if waits:
        number |= _ASYNC
    kind = Opening if opcode.makes_descriptor else Operation
    tries = 0
    while True:
        operation = kind(run, context.task, 0, (address, held), fileno)
        # In a scope that is cancelled already it is taken back before the kernel sees it.
        try:
            slot = _submit(run.core, number, fd, address, length, offset, flags, other_fd)
            if slot < 0:
                return slot
            run.operations[slot] = operation
        except BaseException:  # of a signal handler, or MemoryError: the kernel may have it already
            keep(operation)
            raise
        operation.slot = slot
        await sleep(WaitTaskRescheduled(operation.abort))
        result = operation.outcome()
        if result >= 0 or result not in STOPPED or not opcode.by_worker:
            return result
        tries += result == NO_WORKER
        if tries == MOST_TRIES:
            return result


def failure(result: int, path: object = None, other: object = None, remark: str = "") -> OSError:
    """The exception for -errno, as the standard library makes it, but for what a ``remark`` adds."""
    if result == NO_WORKER:
        remark += " (the kernel could start no worker for it)"
    message = os.strerror(-result) + remark
    if other is not None:
        return OSError(-result, message, path, None, other)
    if path is not None:
        return OSError(-result, message, path)
    return OSError(-result, message)
