"""Opening files: also what one may have to wait for, as for the other side of a FIFO.

A regular file that is to be read, and whose name the kernel has cached, is opened by the calling
thread (lowlevel/names.py), and what a server or a driver opens by a worker of the kernel's that is
allowed for it (loop/workers.py). The ring opens what else it can at once. For the rest, and whenever
a file may be made or emptied, it takes one of the kernel's few workers, who waits as open(2) does:
with a FIFO, for ever. So all is opened with O_NONBLOCK, and the flag taken back. Then

- to write, a FIFO that nobody reads refuses (ENXIO), and is opened once more, by a worker that is
  allowed for it;
- to read, a FIFO is open, with or without a writer, who is then waited for;
- a file that somebody has a lease on refuses (EAGAIN), as some devices do, and is opened once more;
- a block device is open, but perhaps has no medium, and is opened once more;
- nothing else makes a difference between the two.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from ..loop.checkpoints import pass_cancel_point, yield_shielded
from ..loop.operation import perform
from ..loop.trio_internals import context
from ..loop.workers import ExtraWorker
from ..ring.native import ffi
from ..ring.opcodes import OPENAT
from .arguments import directory_of, name_of
from .names import ELSEWHERE, SAID, go_on, open_at_once
from .performing import failure_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from _typeshed import StrOrBytesPath

    from ..loop.run import Run
    from .file_systems import Status

_OPENED_AT_ONCE: Final = os.O_NONBLOCK | os.O_PATH | os.O_DIRECTORY
_NEW: Final = os.O_CREAT | os.O_EXCL
"""What these make is a regular file."""
_WOULD_WAIT: Final = (errno.ENXIO, errno.EAGAIN)


# Ctrl-C between an open and what it returns would leave the descriptor to nobody.
@enable_ki_protection
async def opened(
    run: Run, path: StrOrBytesPath, flags: int, mode: int, dir_fd: int | None = None
) -> tuple[int, Status | None]:
    """`os.open`: the descriptor, and its `os.fstat` where that was looked at."""
    flags |= os.O_CLOEXEC
    if flags & _OPENED_AT_ONCE or flags & _NEW == _NEW:
        return await _open(run, path, flags, mode, dir_fd), None
    if pass_cancel_point(context.task):
        await checkpoint_if_cancelled()
    fd, status = open_at_once(directory_of(dir_fd), name_of(path), flags)
    if fd >= 0 and stat.S_ISREG(status.st_mode):
        # `go_on`, without its frame.
        if not (run.budget and run.spend()):
            try:
                await yield_shielded()
            except BaseException:
                os.close(fd)
                raise
        return fd, status
    return await opened_after(run, path, flags, mode, dir_fd, fd, status)


@enable_ki_protection
async def opened_after(
    run: Run,
    path: StrOrBytesPath,
    flags: int,
    mode: int,
    dir_fd: int | None,
    fd: int,
    status: Status,
) -> tuple[int, Status | None]:
    """`opened`, after `open_at_once` has answered ``fd`` and ``status``."""
    if fd in SAID:
        await go_on()
        raise failure_of(OPENAT, fd, os.fspath(path))
    if fd >= 0:
        try:
            await go_on()
        except BaseException:
            os.close(fd)
            raise
        if stat.S_ISREG(status.st_mode):
            return fd, status
    else:
        try:
            if fd == ELSEWHERE:
                with ExtraWorker(run):
                    fd = await _open(run, path, flags | os.O_NONBLOCK, mode, dir_fd, waits=True)
            else:
                fd = await _open(run, path, flags | os.O_NONBLOCK, mode, dir_fd)
        except OSError as error:
            if error.errno not in _WOULD_WAIT:
                raise
            return await _open_waiting(run, path, flags, mode, dir_fd), None
        status = os.fstat(fd)
    if stat.S_ISBLK(status.st_mode):
        os.close(fd)
        return await _open_waiting(run, path, flags, mode, dir_fd), None
    if stat.S_ISFIFO(status.st_mode) and flags & os.O_ACCMODE == os.O_RDONLY:
        await _wait_for_writer(run, fd, flags)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    return fd, status


async def _open(
    run: Run,
    path: StrOrBytesPath,
    flags: int,
    mode: int,
    dir_fd: int | None,
    *,
    waits: bool = False,
) -> int:
    name = ffi.from_buffer(name_of(path))
    result = await perform(run, OPENAT, directory_of(dir_fd), name, mode, flags=flags, waits=waits)
    if result < 0:
        raise failure_of(OPENAT, result, os.fspath(path))
    return result


async def _open_waiting(run: Run, path: StrOrBytesPath, flags: int, mode: int, dir_fd: int | None) -> int:
    """By a worker of its own, which may wait for as long as it takes."""
    with ExtraWorker(run) as has_worker:
        if has_worker:
            return await _open(run, path, flags, mode, dir_fd, waits=True)
        opening = _OpeningThread()
        try:
            return await trio.to_thread.run_sync(
                partial(opening.open, path, flags, mode, dir_fd=dir_fd),
                abandon_on_cancel=True,
                limiter=trio.CapacityLimiter(1),
            )
        except trio.Cancelled:
            opening.is_wanted = False
            raise


class _OpeningThread:
    """What it opens after it was abandoned it closes."""

    is_wanted = True

    def open(self, path: StrOrBytesPath, flags: int, mode: int, dir_fd: int | None) -> int:
        fd = os.open(path, flags, mode, dir_fd=dir_fd)
        if not self.is_wanted:
            os.close(fd)
        return fd


async def _wait_for_writer(run: Run, fd: int, flags: int) -> None:
    """With a FIFO that is open to read, but was not waited for. Closes it if that fails.

    The kernel tells of data, and of a writer that has gone, but not of one that has come: so a
    second open waits for that. We are a reader meanwhile, as who waits in open(2) is.
    """
    failures: list[OSError] = []

    async def first(wait: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
        try:
            await wait()
        except OSError as error:
            failures.append(error)
        scope.cancel()

    async def opened_again() -> None:
        os.close(await _open_waiting(run, f"/proc/self/fd/{fd}", flags, 0, None))

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first, partial(trio.lowlevel.wait_readable, fd), nursery.cancel_scope)
            nursery.start_soon(first, opened_again, nursery.cancel_scope)
        if failures:
            raise failures[0]
    except BaseException as stop:
        os.close(fd)
        if not isinstance(stop, GeneratorExit):
            await trio.lowlevel.checkpoint_if_cancelled()  # and not with a group
        raise
