"""The same call of `os` and of `trio_uring.lowlevel`: what it returns or raises."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from equivalence import URING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
HUGE = (1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, (1 << 64) + 1)
NUMBERS = (0, 1, 4096, -1, -2, -(1 << 31), -(1 << 62), -(1 << 64), *HUGE)
PATHS: tuple[Any, ...] = (
    *("file", "dir", "full", "link", "dangling", "loop", "fifo", "missing", "missing/x", "file/x", "."),
    *("", "x" * 300, "x/" * 3000, "nul\0byte", b"nul\0byte", b"file", b"missing", "\u00fc", "\udcff"),
    *(Path("file"), Path("missing"), 3.5, None),
)


def make_tree() -> None:
    Path("file").write_bytes(b"0123456789")
    Path("dir").mkdir()
    Path("full").mkdir()
    Path("full/inner").write_text("inner")
    os.symlink("file", "link")
    os.symlink("nowhere", "dangling")
    os.symlink("loop", "loop")
    os.mkfifo("fifo")


def description(error: BaseException) -> tuple[object, ...]:
    if isinstance(error, OSError):
        return (type(error), error.errno, error.strerror, error.filename, error.filename2)
    return (type(error),)


def of_os(function: Callable[[], object]) -> object:
    try:
        return function()
    except (OSError, ValueError, TypeError, OverflowError, BufferError) as error:
        return description(error)


async def of_ours(function: Callable[[], Awaitable[object]]) -> object:
    with trio.testing.assert_checkpoints():
        try:
            return await function()
        except (OSError, ValueError, TypeError, OverflowError, BufferError) as error:
            result = description(error)
            await trio.lowlevel.checkpoint()  # an argument that is refused need not be one
            return result


def compare(function: Callable[[], object], ours: Callable[[], Awaitable[object]]) -> object:
    async def main() -> object:
        return await of_ours(ours)

    result = URING.run(main)
    assert result == of_os(function)
    return result


class Descriptor:
    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def file_that_is_closed() -> int:
    fd = os.open("/dev/null", os.O_RDONLY)
    high = fcntl.fcntl(fd, fcntl.F_DUPFD, 900)
    os.close(fd)
    os.close(high)
    return high
