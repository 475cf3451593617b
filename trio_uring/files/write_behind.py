"""The writes of a file that go on behind its user's calls.

Where a file system cannot write to its page cache without blocking, as ext4, the ring hands each write
to a worker thread of the kernel. To wake the worker, and then the task, takes as long as to write 100 KB
or more. So a write that does not fit a file's buffer is added here, and the task goes on at once.

The states of a file's `WriteBehind`:

  state    parts    with the kernel             next
  IDLE     none     nothing                     FLYING, by `add`
  FLYING   some     writes of the first parts   FLYING with the next parts, IDLE or STUCK, by their
                                                completions, of which no task need know
  STUCK    some     nothing                     IDLE, by `finish`

- Only writes to regular files whose position is ours (position.py) go behind, and none in a daemon thread,
  which the end of the interpreter may stop anywhere. So nobody who keeps to the file object can tell. Each
  write has an explicit offset, whoever else gets the descriptor meanwhile. With O_APPEND it goes to the
  end of the file, and the kernel says where that was.
- A file has one write with the kernel at a time, but several while it grows at its end: else the worker
  would pause after each write until it has woken us and we have woken it. The kernel makes the writes to
  one file one after the other, in order. It does not promise that, but only what others see of the file
  meanwhile depends on it: our writes do not overlap, and what fails is made good.
- If a write falls short, the writes behind it are waited for, and what they have written is cut off again.
  Their data is written again in its turn, after what the short write has left. Until then, if the disk was
  full for one write and not for the next, there are zeros between the two.
- A file is STUCK after a write that failed. The error is raised once, in the next call that waits for the
  writes. What was not written stays, and `finish` tries again, as the standard library's buffer does
  after a flush that failed.
- The run refers to a file that is FLYING, and does not end while there is one. A file that is
  STUCK when it is thrown away is tried once more by its finaliser, which blocks.
- While a file is FLYING no other run may use it, since the run's thread changes what is here.
- If a process forks while a file is FLYING, the parent makes the writes, and the child forgets them.
- The files of a run that are FLYING share MOST_BEHIND: each accepts its part of that and no more, but
  always one write. So together they hold a few times MOST_BEHIND, and one write and one buffer each.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import weakref
from array import array
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from trio.lowlevel import Abort, current_task, wait_task_rescheduled

from ..loop.checkpoints import READY
from ..loop.current import current_run
from ..loop.operation import HERE, MOST_TRIES, NO_WORKER, failure
from ..loop.trio_internals import context
from ..ring.native import ffi, keep, lib
from ..ring.opcodes import WRITEV
from .position import APPENDED

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from trio.lowlevel import Task

    from ..loop.run import Run
    from .transfers import Transfers

_submit = lib.tu_submit
_flush = lib.tu_flush
_from_buffer: Any = ffi.from_buffer
_cast: Any = ffi.cast

MOST_BEHIND: Final = 8 << 20
"""How many bytes a file may have accepted and not written, if no other file of its run is FLYING."""
_AT_ONCE: Final = 1 << 20
"""A write takes parts until it has so many bytes. Larger writes would pause less often, but get page cache
in larger blocks. A virtual machine that reports free blocks of 2 MiB to its host has to wait until it gets
such memory back: 1,400 us for 1 MiB instead of 250 (ext4, Linux 6.18)."""
_MOST_FLIGHTS: Final = 3
"""How many writes of one file may be with the kernel. The speed, as a share of what plain `open` reaches
with 1 MiB a call, is 0.63 with one, 0.83 with two and 0.90 with three (warm memory, ext4, Linux 6.18)."""
_MOST_PARTS: Final = 1024
"""How many parts one write may have (IOV_MAX)."""
_AGAIN: Final = (-errno.EAGAIN, -errno.EINTR, NO_WORKER)
"""The answers after which a write is made again, without an error. NO_WORKER becomes one if it comes
MOST_TRIES times in a row."""
_PAUSE: Final = 0.0002
"""How many seconds a thread that cannot sleep in the run waits from one look to the next."""


class Flight:
    """A write that is with the kernel. The run holds it in `Run.operations`."""

    __slots__ = ("_behind", "_held", "_run", "length", "parts", "result", "start")

    task: Final = None
    """No task sleeps until the result is there: the run calls `settle` instead."""

    def __init__(
        self, behind: WriteBehind, run: Run, start: int, length: int, parts: int, held: object
    ) -> None:
        self._behind = behind
        self._run = run
        self._held = held
        """Keeps alive the memory that the kernel reads."""
        self.start = start
        """The offset in the file at which the write begins, in bytes."""
        self.length = length
        """How many bytes it is to write."""
        self.parts = parts
        """How many parts it writes."""
        self.result: int | None = None

    @property
    def end(self) -> int:
        """The offset that the write reaches if all of it is made."""
        return self.start + self.length

    @property
    def reached(self) -> int:
        """The offset that the write has reached."""
        return self.start + max(self.result or 0, 0)

    def settle(self) -> None:
        """Has the file take the result. Called by the run when all events of a tick are processed."""
        self._behind.land(self._run)


class WriteBehind:
    """What one file has accepted and not written yet. Whoever adds or waits has the file's turn."""

    __slots__ = (
        "__weakref__",
        "_appends",
        "_error",
        "_flights",
        "_grows",
        "_kept",
        "_parts",
        "_pwrite",
        "_raw",
        "_run",
        "_start",
        "_transfers",
        "_tries",
        "_waiting",
        "_written_to",
        "size",
    )

    def __init__(self, transfers: Transfers, kept: list[object]) -> None:
        self._transfers = transfers
        self._raw = transfers.raw
        self._kept = kept
        """Files of the standard library. Each would close the descriptor if it were garbage collected."""
        self.size = 0
        """How many bytes were accepted and are not known to be written."""
        self._parts: deque[bytes] = deque()
        """What was accepted, in order. A part goes when all of it is written."""
        self._start = 0
        """How many bytes of the first part are written."""
        self._written_to = 0
        """The offset in the file at which the rest of the first part goes."""
        self._run: Run | None = None
        """The run that writes, while FLYING; else None."""
        self._flights: deque[Flight] = deque()
        """The writes that are with the kernel, in order."""
        self._appends = transfers.position.kind is APPENDED
        self._grows = False
        """Whether the flights write at the end of the file. Set when the first one is submitted."""
        self._error: Exception | None = None
        """The error of a write that failed, until it is raised."""
        self._tries = 0
        """How often in a row the kernel could start no worker for the first write."""
        self._waiting: Task | None = None
        """The task that sleeps until a flight lands."""
        self._pwrite = os.pwrite  # for `write_now`, when the module's names may be gone
        transfers.position.behind = self
        _all.add(self)

    def __del__(self) -> None:
        self.write_now()

    def write_now(self) -> None:
        """Writes what is left in the calling thread, unless FLYING. This blocks. Finalisers call it, so
        it uses no name of this module: at the end of the interpreter they are gone."""
        if self._run is not None or self._raw.closed:
            return
        while self._parts:
            rest = memoryview(self._parts[0])[self._start :]
            if self._appends:
                self._went_out(self._raw.write(rest) or 0)
            else:
                self._went_out(self._pwrite(self._raw.fileno(), rest, self._written_to))

    def write_at_exit(self) -> None:
        """Writes all that is left when the interpreter ends. This blocks. The file may be FLYING in a guest
        run that its host has left behind: the thread of that run then waits for the flights."""
        run = self._run
        if run is not None and threading.get_ident() == run.owner:
            self._block_with(run)
        self.write_now()

    @property
    def unplaced(self) -> int:
        """How many of the bytes to be written the file's position does not count yet. An OWN position
        counts all of them, an APPENDED one none."""
        return self.size if self._appends else 0

    async def make_room(self, length: int) -> None:
        """Waits until ``length`` bytes, in two parts at most, may be added. Raises the error of a write that
        failed."""
        while self.size:
            if self._run is None:
                await self.finish()
            elif (
                self.size + length > MOST_BEHIND // self._run.files_written
                or len(self._parts) > _MOST_PARTS - 2
            ):
                await self._sleep()
            else:
                return

    def add(self, start: int, *parts: bytes) -> None:
        """Accepts ``parts``, in this order, and has them written from the offset ``start`` on, which
        `Position.claim` has returned. Called by a task of the run, once `make_room` has returned."""
        run = current_run()
        assert run is not None
        if not self.size:
            self._written_to = start
        for data in parts:
            self.leave(data)
        if self._run is not None:
            self._write_more(run)
        elif self._write(run):
            run.files_written += 1
            self._run = self._transfers.position.written_by = run

    def leave(self, data: bytes) -> None:
        """Accepts ``data`` to be written later. Called by `add`, and, in any thread, with the last data of a
        file that is thrown away, of which something is behind already."""
        self._parts.append(data)
        self.size += len(data)

    async def wait(self) -> None:
        """Waits until nothing is with the kernel. Raises the error of a write that failed, once."""
        while self._run is not None:
            await self._sleep()
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:  # else its traceback would keep the file until garbage is collected
                del error

    async def finish(self) -> None:
        """Waits until all is written, and tries again what has failed. Raises the error of a write that
        failed, before or now."""
        await self.wait()
        while self._parts:
            data = self._parts[0]
            memory = _from_buffer(data) + self._start
            length = len(data) - self._start
            if self._appends:
                written = await self._transfers.write(memory, length, data) or 0
            else:
                written = await self._transfers.pwrite(memory, length, data, self._written_to)
            self._went_out(written)

    def block(self, *, elsewhere: bool) -> None:
        """Blocks until nothing is with the kernel. For callers that cannot await.

        On the thread of the run that writes, a task and the host of a guest run may block so. In the middle
        of a tick nobody can, and this returns at once. Any other thread waits only with ``elsewhere``, and
        only until the run is closed."""
        run = self._run
        if run is None:
            return
        if threading.get_ident() == run.owner:
            if getattr(context, "task", None) is not None or run.is_guest():
                self._block_with(run)
            return
        while elsewhere and self._run is not None and not run.closed:
            time.sleep(_PAUSE)

    def _block_with(self, run: Run) -> None:
        """Blocks until nothing is with the kernel, on the run's own thread: it processes the completions."""
        while self._run is not None and not run.closed:
            _flush(run.core)
            run.reap()
            if self._run is not None:
                time.sleep(_PAUSE)

    def land(self, run: Run) -> None:
        """Takes the results that have come, in the order of the writes, and submits the next writes. Called
        when a flight of ``run`` has its result."""
        if self._run is not run:  # an earlier call in this tick has taken all; another run may write by now
            return
        flights = self._flights
        while flights and flights[0].result == flights[0].length:
            self._went_out(flights.popleft().length)
            self._tries = 0
        goes_on = True
        if any(flight.result is None for flight in flights):
            self._write_more(run)
        else:
            if flights:
                self._fall_short()
            try:
                self._transfers.position.ask()
            except (OSError, ValueError) as error:  # somebody has closed the file
                self._error = self._error or error
            goes_on = bool(self._parts) and self._error is None and self._write(run)
        _flush(run.core)  # else the worker would wait until the tasks of this tick have run
        if self._waiting is not None:
            run.reschedule(self._waiting, READY)
            self._waiting = None
        if not goes_on:
            run.files_written -= 1
            self._transfers.position.is_appending = False
            # Last: from here on another run, in another thread, may use the file.
            self._run = self._transfers.position.written_by = None

    def _fall_short(self) -> None:
        """Makes good that the first flight fell short or failed. All flights have landed."""
        flights = list(self._flights)
        self._flights.clear()
        result = flights[0].result or 0
        self._tries = self._tries + 1 if result == NO_WORKER else 0
        if result < 0 and (result not in _AGAIN or self._tries == MOST_TRIES):
            self._tries = 0
            self._error = failure(result)
        with suppress(OSError, ValueError):  # somebody has closed the file, or it may not shrink
            self._cut_off(flights[0].reached, flights)
        self._went_out(max(result, 0))

    def _cut_off(self, end: int, flights: list[Flight]) -> None:
        """Cuts off what was written past ``end``. A file that may not shrink keeps it, to be overwritten."""
        if self._appends:
            # After a short write the kernel tries to write the rest. If that fails, it has not moved the
            # position.
            self._raw.seek(0, os.SEEK_END)
            return
        fd = self._raw.fileno()
        furthest = max((flight.reached for flight in flights if (flight.result or 0) > 0), default=end)
        if furthest > end and self._transfers.position.is_ours and os.fstat(fd).st_size == furthest:
            os.ftruncate(fd, end)

    def _write(self, run: Run) -> bool:
        """Submits the first write, and as many more as there may be. Nothing is with the kernel. If that
        fails, sets `_error` and returns False."""
        try:
            fd = self._raw.fileno()
            self._transfers.position.tell_kernel()
            self._grows = not self._appends and self._written_to == os.fstat(fd).st_size
        except (OSError, ValueError) as error:  # somebody has closed the file
            self._error = error
            return False
        self._transfers.position.is_appending = self._appends
        if not self._submit(run, fd):
            self._transfers.position.is_appending = False
            return False
        self._write_more(run)
        return True

    def _write_more(self, run: Run) -> None:
        """Submits further writes of full size, as many as there may be. The file is FLYING."""
        flights = self._flights
        while (
            self._grows
            and self._error is None
            and len(flights) < _MOST_FLIGHTS
            and flights[0].result is None
            and self.size - sum(flight.length for flight in flights) >= _AT_ONCE
        ):
            try:
                fd = self._raw.fileno()
            except ValueError as error:  # somebody has closed the file
                self._error = error
                return
            if not self._submit(run, fd):
                return

    def _submit(self, run: Run, fd: int) -> bool:
        """Submits one write of the first parts that are not with the kernel. If that fails, sets `_error`
        and returns False."""
        flights = self._flights
        skipped = 0 if flights else self._start
        start = flights[-1].end if flights else self._written_to
        held: list[object] = []
        vector = array("L")
        length = -skipped
        for part in list(self._parts)[sum(flight.parts for flight in flights) :]:
            pointer = _from_buffer(part)
            held.append(pointer)
            vector.extend((int(_cast("uintptr_t", pointer)), len(part)))
            length += len(part)
            if length >= _AT_ONCE:
                break
        vector[0] += skipped
        vector[1] -= skipped
        address = _from_buffer(vector)
        offset = HERE if self._appends else start
        flight = Flight(self, run, start, length, len(held), (held, address))
        try:
            slot = _submit(run.core, WRITEV.number, fd, address, len(held), offset, 0, 0)
            if slot < 0:
                self._error = failure(slot)
                return False
            run.operations[slot] = flight
        except BaseException:  # of a signal handler, or MemoryError: the kernel may have it already
            keep(flight)
            raise
        flights.append(flight)
        return True

    def _went_out(self, written: int) -> None:
        """Drops the next ``written`` bytes, which are in the file now."""
        self.size -= written
        self._written_to += written
        start = self._start + written
        while self._parts and start >= len(self._parts[0]):
            start -= len(self._parts.popleft())
        self._start = start

    async def _sleep(self) -> None:
        """Sleeps until a flight lands. Raises RuntimeError in another run than the one that writes."""
        if self._run is not current_run():
            raise RuntimeError("another run is still writing to this file, or was abandoned while it did")
        self._waiting = current_task()
        await wait_task_rescheduled(self._abort)

    def _abort(self, _: Callable[[], NoReturn]) -> Abort:
        self._waiting = None
        return Abort.SUCCEEDED

    def leave_to_parent(self) -> None:
        """Forgets everything if FLYING: the parent writes it. Called in a forked child."""
        if self._run is None:
            return
        self._run = self._error = self._waiting = self._transfers.position.written_by = None
        self._parts.clear()
        self._flights.clear()
        self.size = self._start = 0


_all: weakref.WeakSet[WriteBehind] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for behind in list(_all):
        behind.leave_to_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
