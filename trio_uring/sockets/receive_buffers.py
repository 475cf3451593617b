"""The provided buffers of a run, which all its stream sockets receive into, and what is read ahead.

They are provided to the kernel before the first receive. When all are in use, a receive ends with
ENOBUFS. Its connection, if a task waits for it, is in the state NO_BUFFER until the tick has given them back.

All of this is for the run's own thread.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING, Any

from ..loop.operation import MOST
from ..ring import locked_memory
from ..ring.native import ffi, lib
from .states import NO_BUFFER

if TYPE_CHECKING:
    from ..loop.run import Run
    from ..ring.options import RingOptions
    from .run_socket import RunSocket


class ReceiveBuffers:
    """The provided buffers of one run."""

    def __init__(self, run: Run, options: RingOptions) -> None:
        self._run = run
        self._count = options.buffers
        self._size = options.buffer_size
        self._memory: Any = b""
        """The memory of all buffers, a buffer of cffi's, which is sliced into bytes. Empty at first."""
        self._waiting: deque[RunSocket] = deque()
        """The sockets that found no buffer left, in the order in which they get one."""
        self.refused = False
        """Whether there is no locked memory for the buffers, so that stream sockets work by readiness."""
        self.most_ahead = options.read_ahead
        """How many bytes of one connection are read ahead before its multishot is stopped."""
        self.most_of_multishot = min(max(options.read_ahead, options.buffer_size), MOST)
        """After how many bytes a multishot ends by itself, where the kernel can do that (Linux 6.17). The
        last buffer may go past that."""
        self.bytes_read_ahead = 0
        """How many bytes were read ahead since the run has begun."""
        self.shortages = 0
        """How often a receive found no buffer left."""

    def provide(self) -> bool:
        """Provides the buffers to the kernel, unless it has them. False if there is no locked memory for it.

        Raises:
          OSError: there is no address space for them.
        """
        if self._memory:
            return True
        if self.refused:
            return False
        size = self._count * self._size
        result, _ = locked_memory.patiently(
            lambda: lib.tu_provide_buffers(self._run.core, self._count, self._size)
        )
        if result == -errno.ENOMEM:
            if not locked_memory.is_short_of(size):
                raise OSError(errno.ENOMEM, f"No memory for the {size} bytes of RingOptions.buffers")
            self.refused = True
            locked_memory.warn_of_buffers(self._count)
            return False
        self._run.raise_on_error(result)
        self._memory = ffi.buffer(lib.tu_buffer_memory(self._run.core), size)
        return True

    def data(self, buffer: int, length: int) -> bytes:
        """Copies the first ``length`` bytes of a buffer, which the tick gives back. Where there was no
        memory for the copy, it is tried once more, since nobody can ask for the data later."""
        try:
            return self._copied(buffer, length)
        except MemoryError:
            return self._copied(buffer, length)

    def _copied(self, buffer: int, length: int) -> bytes:
        start = buffer * self._size
        data: bytes = self._memory[start : start + length]
        return data

    def wait_for_buffer(self, one: RunSocket) -> None:
        """Has a socket in the state NO_BUFFER submit its receive again when there are buffers."""
        self.shortages += 1
        if not self._waiting:
            self._run.unsettled.append(self)
        self._waiting.append(one)

    def settle(self) -> None:
        """Lets as many sockets submit their receives as there are buffers, all of which the next tick gives
        back. The others have a turn after that tick, for which the loop does not sleep. Called by the run
        only."""
        try:
            for _ in range(min(self._count, len(self._waiting))):
                one = self._waiting[0]
                if one.state is NO_BUFFER:
                    one.submit_for_waiter()
                self._waiting.popleft()
        finally:  # a task may get an exception, with which the run goes on
            if self._waiting:
                self._run.unsettled.append(self)
                self._run.force_wakeup()

    def close(self) -> None:
        """Lets go of the memory. Called when the ring is gone, and the buffers with it."""
        self._memory = b""
        self._waiting.clear()
