"""What a file has accepted, and writes while its user goes on.

A file system that cannot write to its page cache without blocking, as ext4, has the ring
hand each write to a worker of the kernel's. To wake that worker, and then the task, takes
as long as writing 100 KB and more. So what leaves a file's buffer because of a write is
added here, and the task goes on.

  state    parts    with the kernel             next
  IDLE     none     nothing                     FLYING, by `add`
  FLYING   some     writes of the first ones    FLYING with the others, IDLE or STUCK, by their
                                                completions, of which no task need know
  STUCK    some     nothing                     IDLE, by `finish`

- Only of files whose position is ours, on file systems that were measured, and not in a daemon
  thread, which may be stopped anywhere when the interpreter ends. So nobody who keeps
  to the file object sees it, and each write has an offset of its own, whoever gets the file
  meanwhile. With O_APPEND it goes to the end of the file, and the kernel says where that was.
- One write at a time, but several where a file grows at its end, or the worker would pause
  between two for as long as it takes to wake us and to be woken. The kernel does the writes
  to a file one after the other, in order. That is not promised, but only what others see of
  the file meanwhile depends on it: our writes do not overlap, and what fails is made good.
- When a write fell short, all others land, and what they have written behind it is cut off
  again: it is written after what was left, in its turn. Until then, if a disk was full for
  one write and not for the next, there are zeros between the two.
- STUCK, since a write failed. The error is told once, to whoever next waits for us; what was
  not written stays, and `finish` tries again: as the standard library's buffer after a flush
  that failed.
- The run holds us while we are FLYING, and a run ends when nobody is. What is STUCK when
  the file is thrown away is tried once more by our finaliser, which blocks.
- FLYING, no other run may use the file: its thread changes what is here.
- A child that was forked while we are FLYING leaves the writes to its parent.
- No more is accepted than MOST_BEHIND, which the files of a run that are FLYING share out,
  but always one write. So what they all hold together is a few times that, and one write
  and one buffer each.
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
from ..ring.native import ffi, lib
from ..ring.opcodes import WRITEV
from .position import APPENDED, OWN

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
"""Bytes."""
_AT_ONCE: Final = 1 << 20
"""Bytes, and what is left of a part. Larger writes would pause less often, but get page cache
in larger blocks. A virtual machine that reports free blocks of 2 MiB to its host has to wait
until it gets such memory back: 1,400 us for 1 MiB instead of 250 (ext4, Linux 6.18)."""
_MOST_FLIGHTS: Final = 3
"""Writes of a file that are with the kernel. Of plain `open`, 1 MiB at a time: one 0.63, two
0.83, three 0.90 (with warm memory, ext4, Linux 6.18)."""
_MOST_PARTS: Final = 1024
"""That one write takes (IOV_MAX)."""
_AGAIN: Final = (-errno.EAGAIN, -errno.EINTR, NO_WORKER)
_PAUSE: Final = 0.0002
"""Seconds, between two looks of a thread that cannot sleep in the run."""


class Flight:
    """A write that is with the kernel."""

    __slots__ = ("_behind", "_held", "length", "parts", "result", "start")

    task: Final = None
    """No task sleeps on it: the run has it `settle`."""

    def __init__(self, behind: WriteBehind, start: int, length: int, parts: int, held: object) -> None:
        self._behind = behind
        self._held = held
        self.start = start
        """Where it goes to, in bytes."""
        self.length = length
        self.parts = parts
        self.result: int | None = None

    @property
    def end(self) -> int:
        return self.start + self.length

    @property
    def reached(self) -> int:
        """Where it has got to."""
        return self.start + max(self.result or 0, 0)

    def settle(self) -> None:
        """The run has its ``result``, and has processed all other events."""
        self._behind.land()


class WriteBehind:
    """Of one file. Who adds or waits has the file's turn."""

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
        """Files of the standard library, which would close the descriptor if they were collected."""
        self.size = 0
        """Bytes that are not known to be written."""
        self._parts: deque[bytes] = deque()
        self._start = 0
        """Where in the first of them we are."""
        self._written_to = 0
        """Where in the file that is to go; the file's position is past all parts."""
        self._run: Run | None = None
        """FLYING: of the run that writes."""
        self._flights: deque[Flight] = deque()
        self._appends = transfers.position.kind is APPENDED
        self._grows = False
        """FLYING: at the end of the file."""
        self._error: Exception | None = None
        self._tries = 0
        """How often in a row the kernel had no worker for the first write."""
        self._waiting: Task | None = None
        self._pwrite = os.pwrite  # which the module may not have any longer when we are finalised
        transfers.position.behind = self
        _all.add(self)

    def __del__(self) -> None:
        self.write_now()

    def write_now(self) -> None:
        """STUCK: tries once more, by the calling thread. For finalisers: it uses no name of this
        module, which may have none any longer."""
        if self._run is not None or self._raw.closed:
            return
        while self._parts:
            rest = memoryview(self._parts[0])[self._start :]
            if self._appends:
                self._went_out(self._raw.write(rest) or 0)
            else:
                self._went_out(self._pwrite(self._raw.fileno(), rest, self._written_to))

    def write_at_exit(self) -> None:
        """All that is left; also FLYING, of a guest run that its host has left behind."""
        run = self._run
        if run is not None and threading.get_ident() == run.owner:
            self._block_with(run)
        self.write_now()

    def appends_now(self) -> bool:
        """Whether the kernel's position is being moved, by writes at the end of the file."""
        return self._appends and self._run is not None

    @property
    def unplaced(self) -> int:
        """Bytes that are to be written, and that the file's position is not past."""
        return self.size if self._appends else 0

    async def make_room(self, length: int) -> None:
        """Waits until ``length`` bytes, in two parts at most, may be added. Raises what went wrong."""
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

    def add(self, *parts: bytes) -> None:
        """Takes them, one after the other; there has to be room."""
        run = current_run()
        assert run is not None
        for data in parts:
            self.leave(data)
        if self._run is None:
            self._write(run)
        else:
            self._write_more(run)

    def leave(self, data: bytes) -> None:
        """Takes data to be written later; also the last of a file that is thrown away, on
        whatever thread."""
        position = self._transfers.position
        if not self.size:
            self._written_to = position.at
        self._parts.append(data)
        self.size += len(data)
        if position.kind is OWN:
            position.at += len(data)

    async def wait(self) -> None:
        """Waits while FLYING. Raises what went wrong."""
        while self._run is not None:
            await self._sleep()
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:  # or its traceback would keep the file until garbage is collected
                del error

    async def finish(self) -> None:
        """Waits until all is written. Raises what went wrong."""
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
        """Waits while FLYING, for who may not await: a task, or the host of a guest run, which wait
        with the run; or, if the run can be waited for, another thread. In the middle of a tick
        nobody can."""
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
        """Waits while FLYING, on the run's own thread."""
        while self._run is not None and not run.closed:
            _flush(run.core)
            run.reap()
            if self._run is not None:
                time.sleep(_PAUSE)

    def land(self) -> None:
        """Takes the results that have come, in the order of the writes."""
        run, flights = self._run, self._flights
        if run is None:  # two that came together were taken together
            return
        while flights and flights[0].result == flights[0].length:
            self._went_out(flights.popleft().length)
            self._tries = 0
        if all(flight.result is not None for flight in flights):
            if flights:
                self._fall_short()
            self._run = self._transfers.position.written_by = None
            run.files_written -= 1
            self._transfers.position.ask()
            if self._parts and self._error is None:
                self._write(run)
        else:
            self._write_more(run)
        _flush(run.core)  # or the worker would wait for the tasks of this tick
        if self._waiting is not None:
            run.reschedule(self._waiting, READY)
            self._waiting = None

    def _fall_short(self) -> None:
        """The first flight has, and all have landed."""
        flights = list(self._flights)
        self._flights.clear()
        result = flights[0].result or 0
        self._tries = self._tries + 1 if result == NO_WORKER else 0
        if result < 0 and (result not in _AGAIN or self._tries == MOST_TRIES):
            self._tries = 0
            self._error = failure(result)
        with suppress(OSError, ValueError):  # it was closed below us
            self._cut_off(flights[0].reached, flights)
        self._went_out(max(result, 0))

    def _cut_off(self, end: int, flights: list[Flight]) -> None:
        """What was written past ``end``; a file that may only grow keeps it, to be overwritten."""
        if self._appends:
            # The kernel tries for the rest, and has not moved the position when that fails.
            self._raw.seek(0, os.SEEK_END)
            return
        fd = self._raw.fileno()
        furthest = max((flight.reached for flight in flights if (flight.result or 0) > 0), default=end)
        if furthest > end and self._transfers.position.is_ours and os.fstat(fd).st_size == furthest:
            os.ftruncate(fd, end)

    def _write(self, run: Run) -> None:
        """IDLE: the first write."""
        try:
            fd = self._raw.fileno()
            self._transfers.position.tell_kernel()
            self._grows = not self._appends and self._written_to == os.fstat(fd).st_size
        except (OSError, ValueError) as error:  # it was closed below us
            self._error = error
            return
        self._submit(run, fd)
        if self._flights:
            self._run = self._transfers.position.written_by = run
            run.files_written += 1
            self._write_more(run)

    def _write_more(self, run: Run) -> None:
        """FLYING: as many as there may be, of a full size each."""
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
            except ValueError as error:  # it was closed below us
                self._error = error
                return
            if not self._submit(run, fd):
                return

    def _submit(self, run: Run, fd: int) -> bool:
        """Of the parts that are not with the kernel, what it writes at once."""
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
        slot = _submit(run.core, WRITEV.number, fd, address, len(held), offset, 0, 0)
        if slot < 0:
            self._error = failure(slot)
            return False
        flights.append(Flight(self, start, length, len(held), (held, address)))
        run.operations[slot] = flights[-1]
        return True

    def _went_out(self, written: int) -> None:
        self.size -= written
        self._written_to += written
        start = self._start + written
        while self._parts and start >= len(self._parts[0]):
            start -= len(self._parts.popleft())
        self._start = start

    async def _sleep(self) -> None:
        if self._run is not current_run():
            raise RuntimeError("another run is still writing to this file, or was abandoned while it did")
        self._waiting = current_task()
        await wait_task_rescheduled(self._abort)

    def _abort(self, _: Callable[[], NoReturn]) -> Abort:
        self._waiting = None
        return Abort.SUCCEEDED

    def leave_to_parent(self) -> None:
        """In a forked child."""
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
