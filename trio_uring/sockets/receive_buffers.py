"""The provided buffers of a run, which all its stream sockets receive into, and what is read ahead.

The kernel is told of the buffers before the first receive. When all are in use, a receive ends with
ENOBUFS, and its connection is SHORT until the next tick has given them back.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING, Any

from ..ring import locked_memory
from ..ring.native import ffi, lib
from .run_socket import SHORT

if TYPE_CHECKING:
    from ..loop.run import Run
    from ..ring.options import RingOptions
    from .run_socket import RunSocket


class ReceiveBuffers:
    def __init__(self, run: Run, options: RingOptions) -> None:
        self._run = run
        self._count = options.buffers
        self._size = options.buffer_size
        self._memory: Any = b""
        """All buffers; empty before the first connection. A part of cffi's buffer is bytes."""
        self._short: deque[RunSocket] = deque()
        """Those that found no buffer left, in their order."""
        self.refused = False
        """There is no locked memory for the buffers: stream sockets work by readiness."""
        self.read_ahead = options.read_ahead
        """Bytes of one connection at which its receiving pauses."""
        self.bytes_read_ahead = 0
        self.shortages = 0

    def are_provided(self) -> bool:
        """Has the kernel know of the buffers, if it does not yet. False: it has no locked memory for that.

        Raises:
          OSError: there are no addresses for them.
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
        """A copy of what the kernel has put into a buffer. That goes back with the tick: so where there
        was no memory for the copy, it is made once more."""
        try:
            return self._copied(buffer, length)
        except MemoryError:
            return self._copied(buffer, length)

    def _copied(self, buffer: int, length: int) -> bytes:
        start = buffer * self._size
        data: bytes = self._memory[start : start + length]
        return data

    def wait_for_one(self, one: RunSocket) -> None:
        """Has a socket, which is SHORT, armed again when there are buffers."""
        self.shortages += 1
        if not self._short:
            self._run.unsettled.append(self)
        self._short.append(one)

    def settle(self) -> None:
        """Arms as many as there will be buffers for: the next tick gives all back. Whoever is left has a
        turn then, for which the loop is not to sleep."""
        for _ in range(min(self._count, len(self._short))):
            one = self._short.popleft()
            if one.state is SHORT:
                one.arm_for_waiter()
        if self._short:
            self._run.unsettled.append(self)
            self._run.force_wakeup()

    def close(self) -> None:
        """Gives the memory up, which ends with the ring."""
        self._memory = b""
        self._short.clear()
