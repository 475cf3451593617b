"""How files are opened, also those that one may have to wait for, such as a FIFO.

- The calling thread itself opens a regular file for reading whose name the kernel has cached
  (lowlevel/names.py).
- An extra worker of the kernel's (loop/workers.py) opens what is on a file system that is not measured,
  and devices: a server or a driver may take long.
- The ring opens all else. It does what it can at once. For the rest, and whenever a file may be made or
  emptied, it takes one of the kernel's few workers, which waits as open(2) does: for a FIFO perhaps for
  ever. So that it need not wait, files are opened with O_NONBLOCK, and the flag is taken back.

With O_NONBLOCK, open(2) differs in these cases only:

- A FIFO to write that nobody reads refuses (ENXIO). An extra worker opens it again, and waits.
- A FIFO to read is open at once, with or without a writer. Then we wait for a writer.
- A file on which somebody has a lease refuses (EAGAIN), as some devices do. An extra worker opens it
  again, and waits.
- A block device is open, but may have no medium. It is closed, and an extra worker opens it again.

The functions are called by tasks of a run on io_uring.
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

from ..loop.checkpoints import go_on, pass_cancel_point, yield_shielded
from ..loop.operation import perform
from ..loop.trio_internals import context
from ..loop.workers import ExtraWorker
from ..ring.native import ffi
from ..ring.opcodes import OPENAT
from .arguments import directory_of, name_of
from .names import ELSEWHERE, SAID, made_plain, open_at_once
from .performing import failure_of
from .unclaimed import made_by_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from _typeshed import StrOrBytesPath

    from ..loop.run import Run
    from .file_systems import Status

_OPENED_AT_ONCE: Final = os.O_NONBLOCK | os.O_PATH | os.O_DIRECTORY
_NEW: Final = os.O_CREAT | os.O_EXCL
"""With these flags a new regular file is made."""
_MAKES: Final = os.O_CREAT | os.O_TRUNC
"""With these flags a file is made or emptied, which nobody can do at once."""
_NOT_TRIED: Final = -errno.EAGAIN
_WOULD_WAIT: Final = (errno.ENXIO, errno.EAGAIN)


# Ctrl-C between an open and what it returns would leave the descriptor to nobody.
@enable_ki_protection
async def opened(
    run: Run, path: StrOrBytesPath, flags: int, mode: int, dir_fd: int | None = None
) -> tuple[int, Status | None]:
    """Opens a file, as `os.open` does. Returns the descriptor, and its `os.fstat`; None for that if it was
    not looked at."""
    flags |= os.O_CLOEXEC
    if flags & _OPENED_AT_ONCE or flags & _NEW == _NEW:
        return await _open(run, path, flags, mode, dir_fd), None
    if flags & _MAKES:
        return await opened_after(run, path, flags, mode, dir_fd, _NOT_TRIED, None)
    if pass_cancel_point(context.task):
        await checkpoint_if_cancelled()
    fd, status = open_at_once(directory_of(dir_fd), name_of(path), flags)
    if fd >= 0 and stat.S_ISREG(status.st_mode):
        # This is `go_on`, inlined for speed.
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
    status: Status | None,
) -> tuple[int, Status | None]:
    """Does the rest of `opened`, after `open_at_once` has returned ``fd`` and ``status``."""
    if fd in SAID:
        await go_on()
        raise failure_of(OPENAT, fd, os.fspath(path))
    if fd >= 0:
        assert status is not None
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
        if plain := made_plain(fd, flags):
            return fd, plain
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
    """Opens a file by an extra worker, which may wait for as long as it takes; before Linux 5.15 by a
    thread."""
    with ExtraWorker(run) as has_worker:
        if has_worker:
            return await _open(run, path, flags, mode, dir_fd, waits=True)
        return await made_by_thread(
            partial(os.open, path, flags, mode, dir_fd=dir_fd),
            os.close,
            abandon_on_cancel=True,
            limiter=trio.CapacityLimiter(1),
        )


async def _wait_for_writer(run: Run, fd: int, flags: int) -> None:
    """Waits until a FIFO that is open for reading has a writer. Closes ``fd`` if that fails.

    The kernel tells when there is data, and when a writer has gone, but not when one has come. So the FIFO
    is opened a second time, in a way that waits. Meanwhile it has a reader, as while open(2) waits.
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
            await trio.lowlevel.checkpoint_if_cancelled()  # raises a plain Cancelled, not in a group
        raise
