"""`trio.lowlevel.FdStream` in fewer steps: these functions stand in for two of its methods while runs are on
io_uring.

An FdStream works by readiness: it reads and writes the descriptor itself, and waits when that would block. So
it does here, since a receive by the ring would take bytes that others, who have the same pipe, are to get.
Each call makes the same checkpoint at the same place as Trio's own, reads and writes after it, and asks the
stream for its descriptor each time.

Two things save time beside the frames of Trio's functions:

- A receive that has brought less than it asked for has emptied the pipe. So the next one waits at once, which
  is its checkpoint, where Trio yields, tries to read, and then waits. Whether there are data is the same
  question to poll and to read for pipes that pipe(2) has made, as those of subprocesses, and for no others. A
  named pipe may be at its end where poll says nothing of that, if it was opened when nobody wrote. A terminal
  may be told to be ready from so many bytes on (VMIN), and so may a socket (SO_RCVLOWAT).
- Who waits so tries to read when it is woken. So poll(2) need not confirm that there are data.

In a run that is on epoll, or without the feature "pipes", and for what they were not made for, each function
calls Trio's own. The other methods of FdStream are Trio's in any case.
"""

from __future__ import annotations

import errno
import os
from typing import Any, Final, NoReturn

import trio
from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from .._tasks import start_reading
from ..loop.checkpoints import pass_cancel_point, sleep, yield_shielded
from ..loop.trio_internals import FdStream, Replaced, context, is_trios_own
from .run_pipe import pipe_of

ORIGINAL: Final[dict[str, Any]] = {}
"""Trio's own methods, by name."""
_RECEIVE_SIZE: Final = 65536
_WAIT_READABLE: Final = trio.lowlevel.wait_readable if is_trios_own(trio.lowlevel.wait_readable) else None
"""The function that waits as we do. Somebody may put his own in its place, or in that of `os.read`: it is
called as by Trio."""


@enable_ki_protection
async def receive_some(self: trio.lowlevel.FdStream, max_bytes: int | None = None) -> bytes:
    length = _RECEIVE_SIZE if max_bytes is None else max_bytes
    try:
        pipe, task = self._uring_pipe, context.task  # type: ignore[attr-defined]
    except AttributeError:
        pipe = task = None
    if pipe is None or pipe.runner is not task._runner:
        pipe, task = pipe_of(self)
    if pipe is None or type(length) is not int or length < 1:
        refused: bytes = await ORIGINAL["receive_some"](self, max_bytes)
        return refused
    detector = self._receive_conflict_detector
    if detector._held:
        raise trio.BusyResourceError(detector._msg)
    detector._held = True
    try:
        holder = self._fd_holder
        waits_as_known = trio.lowlevel.wait_readable is _WAIT_READABLE
        is_waiting = waits_as_known and pipe.is_drained and start_reading(pipe.run, task, holder.fd)
        if not is_waiting:
            if not (pipe.run.budget and pipe.run.spend(task)):
                await yield_shielded()
            if pass_cancel_point(task):
                await checkpoint_if_cancelled()
        while True:
            try:
                if is_waiting:
                    await sleep(pipe.message)
                data = os.read(holder.fd, length)
                break
            except BlockingIOError:
                is_waiting = False
                await trio.lowlevel.wait_readable(holder.fd)
            except OSError as error:  # of the wait, too: the number may have been closed below
                _fail(error)
        pipe.is_drained = pipe.is_unnamed and 0 < len(data) < length
        return data
    finally:
        detector._held = False


@enable_ki_protection
async def send_all(self: trio.lowlevel.FdStream, data: bytes | bytearray | memoryview) -> None:
    try:
        pipe, task = self._uring_pipe, context.task  # type: ignore[attr-defined]
    except AttributeError:
        pipe = task = None
    if pipe is None or pipe.runner is not task._runner:
        pipe, task = pipe_of(self)
    if pipe is None or type(data) not in _PLAIN:
        await ORIGINAL["send_all"](self, data)
        return
    detector = self._send_conflict_detector
    if detector._held:
        raise trio.BusyResourceError(detector._msg)
    detector._held = True
    try:
        holder = self._fd_holder
        if holder.fd == -1:
            raise trio.ClosedResourceError("file was already closed")
        if not (pipe.run.budget and pipe.run.spend(task)):
            await yield_shielded()
        if pass_cancel_point(task):
            await checkpoint_if_cancelled()
        length = len(data)
        sent = _write_some(holder.fd, data) if length else 0
        if sent < length:
            with memoryview(data) as view:
                while sent < length:
                    with view[sent:] as rest:
                        sent += await _write_or_wait(holder, rest)
    finally:
        detector._held = False


_PLAIN: Final = frozenset({bytes, bytearray})
"""The classes of data whose length is their number of bytes."""


def _write_some(fd: int, data: bytes | bytearray | memoryview) -> int:
    """Writes what there is room for now; 0 if there is none."""
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0
    except OSError as error:
        _fail(error)


async def _write_or_wait(holder: Any, data: memoryview) -> int:
    """Writes what there is room for now; 0 if there was none, and there is some again. What the wait raises
    has the refusal as its context, as with Trio."""
    try:
        return os.write(holder.fd, data)
    except BlockingIOError:
        await trio.lowlevel.wait_writable(holder.fd)
        return 0
    except OSError as error:
        _fail(error)


def _fail(error: OSError) -> NoReturn:
    """Raises what Trio's streams raise for an error of their descriptor."""
    if error.errno == errno.EBADF:
        raise trio.ClosedResourceError("file was already closed") from None
    raise trio.BrokenResourceError from error


REPLACEMENTS: Final = (
    Replaced(
        FdStream,
        {"receive_some": receive_some, "send_all": send_all},
        ORIGINAL,
    ),
)
