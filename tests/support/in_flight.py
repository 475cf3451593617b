"""Operations that the kernel has, for the tests of this folder."""

from __future__ import annotations

import os

import trio
import trio.testing
from equivalence import io_statistics


class Pipe:
    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.reader)
        os.close(self.writer)

    def rest(self) -> bytes:
        """What nobody has read; the reader is non-blocking after that."""
        os.set_blocking(self.reader, False)
        try:
            return os.read(self.reader, 100)
        except BlockingIOError:
            return b""


async def in_flight(count: int) -> None:
    """Returns when every task sleeps and the kernel has ``count`` operations."""
    await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(0)
    assert io_statistics().operations_in_flight >= count


def is_pinned(buffer: bytearray) -> bool:
    try:
        buffer.append(0)
    except BufferError:
        return True
    buffer.pop()
    return False
