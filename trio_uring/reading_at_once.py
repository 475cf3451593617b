"""Reads that are tried before they are handed to the ring.

What is in the page cache the ring reads within the call that submits it, so there is nothing
to wait for. But to submit, to sleep and to be woken takes Python as long as the kernel takes
to copy 100 KB. So the calling thread asks for what is there (RWF_NOWAIT) and then yields, and
the ring gets what is missing.

- Regular files only. On others the kernel refuses, or has nothing to gain; and a read with
  O_DIRECT has no page cache, and would wait for the device.
- A file system that cannot tell what would block refuses (EOPNOTSUPP); a filter may refuse
  the call. Then its file is not tried again. What else is wrong the ring tells.
- A try that finds nothing has the kernel read from the device at once, in a call of its own,
  where the ring would hand over the reads of all tasks together: half as many random reads of
  64 tasks. So a file is left to the ring for a while after it, each time for longer.
- The descriptor's own position is moved, as by the ring.

Reading ahead, by workers of the kernel's into the results of later calls, was measured
against this, and is slower (Linux 6.18, a virtual machine of 2 CPUs): to wake a worker and to
be woken takes 30 to 60 us, and 256 KiB are copied in 25. It would also return what others
have overwritten since.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING, Any, Final

from trio.lowlevel import checkpoint_if_cancelled

from ._native import ffi, lib
from .internals import context
from .sleep import is_cancelled, yield_shielded
from .transfers import new_bytes, read_into

if TYPE_CHECKING:
    import io

_read_at_once = lib.tu_read_at_once
_from_buffer: Any = ffi.from_buffer
_MOST_LEFT: Final = 63


class Reader:
    """Of one file. Who reads has the file's turn."""

    __slots__ = ("_left", "_missed", "_raw", "_tries")

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self._tries: bool | None = None
        """None until the first read."""
        self._missed = 0
        """Reads that were left to the ring after the last miss; 0 after a hit."""
        self._left = 0
        """Reads that are still left to it."""

    async def read_new(self, length: int) -> bytes | None:
        """Up to ``length`` bytes, empty at the end; None: non-blocking, and nothing there."""
        data = new_bytes(length)
        got = await self.read(data, length, data)
        if got is None:
            return None
        return data if got == length else data[:got]

    async def read(self, memory: Any, length: int, held: object) -> int | None:
        """`read_into` from this file; a checkpoint as well. ``memory`` may be ``held`` itself."""
        fd = self._raw.fileno()
        task = getattr(context, "task", None)
        run = None if task is None else getattr(task._runner.io_manager, "connections", None)
        if run is not None and self._tries is not False:
            if is_cancelled(task):
                await checkpoint_if_cancelled()
            if self._left:
                self._left -= 1
            elif self._tries or self._can_be_tried(fd):
                got = _read_at_once(fd, memory, length)
                if got > 0:
                    self._missed = 0
                    if not (run.budget and run.may_go_on()):
                        await yield_shielded()
                    return got
                if got == -errno.EAGAIN:
                    self._left = self._missed = min(2 * self._missed + 1, _MOST_LEFT)
                elif got:
                    self._tries = False
        if memory is held:
            memory = _from_buffer(memory)
        return await read_into(fd, memory, length, held)

    def _can_be_tried(self, fd: int) -> bool:
        """Whether the kernel says at once what it has of this file, and that is all it does."""
        direct = fcntl.fcntl(fd, fcntl.F_GETFL) & getattr(os, "O_DIRECT", 0)
        self._tries = stat.S_ISREG(os.fstat(fd).st_mode) and not direct
        return self._tries
