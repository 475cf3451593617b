"""How the functions of lowlevel/operations.py make their operations.

There is one function here for each kind of operation: a transfer at an offset, a transfer at the file's
position, an operation on an open file, on a path, or on two paths. `failure_of` makes the exception if
the kernel refuses one.

The row of an operation in ring/opcodes.py says which function of `os` does the same in a thread, and
which version of Linux brought it.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import checkpoint_if_cancelled

from ..loop.checkpoints import go_on, pass_cancel_point
from ..loop.current import current_run
from ..loop.operation import HERE, NULL, failure, perform
from ..loop.trio_internals import context
from ..loop.workers import ExtraWorker
from ..ring.features import has_operation
from ..ring.native import ffi, lib
from ..ring.opcodes import READ
from .arguments import address_of, as_unsigned, asks_of, directory_of, fileno_of, name_of, size_of
from .file_systems import has_position, is_measured
from .page_cache import PageCache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed import StrOrBytesPath

    from ..loop.readiness import HasFileno
    from ..loop.run import Run
    from ..ring.native import Pointer
    from ..ring.opcodes import Opcode

_read_measured_at_once = lib.tu_read_measured_at_once


def uring_run() -> Run:
    """Returns the run of the calling task. Raises RuntimeError if that is not on io_uring."""
    run = current_run()
    if run is None:
        raise RuntimeError("this run is not on io_uring, which trio_uring.lowlevel needs")
    return run


def checked(opcode: Opcode, result: int) -> int:
    """Returns the result of an operation without a path. Raises OSError if that is an error."""
    if result < 0:
        raise failure_of(opcode, result)
    return result


def failure_of(opcode: Opcode, result: int, path: object = None, other: object = None) -> OSError:
    """Returns the exception for -errno. If the kernel is too old for the operation, its message says which
    version is needed."""
    is_missing = result == -errno.EINVAL and not has_operation(opcode.name)
    remark = f" ({opcode.name} needs Linux {opcode.since})" if is_missing else ""
    return failure(result, path, other, remark)


async def transfer(
    opcode: Opcode,
    file: int | HasFileno,
    address: Pointer,
    length: int,
    offset: int,
    views: Sequence[memoryview],
) -> int:
    """Reads or writes at an offset. For READ, the calling thread first tries the page cache. Otherwise the
    ring makes the transfer, or a thread if the file is on a file system that is not measured.

    ``address`` and ``length`` are what the kernel gets for ``views``: for one of them its memory and its
    length, for several `vector_of` them and their number. Releases the views if it fails.
    """
    at, fd = size_of(offset), fileno_of(file)
    run = uring_run()
    try:
        if opcode is READ and (got := await _read_at_once(fd, address, length, at)) >= 0:
            return got
        if not _is_for_the_ring(fd):
            return await _by_thread(opcode.call, file, fd, views, at)
        return checked(
            opcode,
            await perform(run, opcode, fd, address, length, at, held=views, fileno=asks_of(file)),
        )
    except (OSError, trio.Cancelled, KeyboardInterrupt):
        # The traceback keeps our frames. The caller gets its buffers back without waiting for its end.
        for view in views:
            view.release()
        raise


async def _read_at_once(fd: int, address: Pointer, length: int, offset: int) -> int:
    """Reads what the page cache has, and returns the number of bytes, after a checkpoint. Returns -errno
    if the ring has to read; then it has not yielded."""
    cache = _missed.get(fd)
    if cache is not None and cache.left:
        cache.left -= 1
        return -errno.EAGAIN
    if pass_cancel_point(context.task):
        await checkpoint_if_cancelled()
    got = _read_measured_at_once(fd, address, length, offset)
    if got >= 0:
        _missed.pop(fd, None)
        await go_on()
    elif got in _NOT_THERE:
        if len(_missed) == _MOST_MISSED:
            _missed.clear()
        _missed.setdefault(fd, PageCache()).had_not(-errno.EAGAIN)
    return got


_NOT_THERE: Final = (-errno.EAGAIN, -errno.EOPNOTSUPP)
_MOST_MISSED: Final = 1000
_missed: dict[int, PageCache] = {}
"""The descriptors for which the last try has found nothing. Such a number may be another file's by now.
Then some reads are left to the ring for nothing."""


async def transfer_here(
    opcode: Opcode,
    file: int | HasFileno,
    address: Pointer,
    length: int,
    views: Sequence[memoryview],
) -> int:
    """Reads or writes at the file's own position. A thread does this. If the file has no position, the ring
    does it."""
    run, fd = uring_run(), fileno_of(file, moves=True)
    try:
        if _has_position(fd):
            return await _by_thread(opcode.call_here, file, fd, views)
        with ExtraWorker(run):
            return checked(
                opcode,
                await perform(run, opcode, fd, address, length, HERE, held=views, fileno=asks_of(file)),
            )
    except (OSError, trio.Cancelled, KeyboardInterrupt):
        for view in views:
            view.release()
        raise


async def _by_thread(name: str, file: int | HasFileno, fd: int, *args: object) -> int:
    """Calls a function of `os` in a thread. A thread may have to wait until it can start, and ``fd`` may be
    another file's by then. Then OSError (EBADF) is raised."""
    call: Callable[..., int] = getattr(os, name)
    asks = asks_of(file)

    def call_of_same() -> int:
        try:
            is_same = asks is None or asks() == fd
        except ValueError:
            is_same = False
        if not is_same:
            raise failure(-errno.EBADF)
        return call(fd, *args)

    return await trio.to_thread.run_sync(call_of_same)


def _is_for_the_ring(fd: int) -> bool:
    """Tells whether the ring may read and write ``fd``. True as well if that is no regular file, or not
    open: if that is an error, the ring reports it."""
    try:
        status = os.fstat(fd)
    except (OSError, OverflowError):
        return True
    return not stat.S_ISREG(status.st_mode) or is_measured(fd, status)


def _has_position(fd: int) -> bool:
    try:
        return has_position(fd, os.fstat(fd).st_mode)
    except (OSError, OverflowError):
        return False


async def of_file(
    opcode: Opcode,
    file: int | HasFileno,
    address: Pointer = NULL,
    length: int = 0,
    offset: int = 0,
    *,
    flags: int = 0,
) -> int:
    """Makes an operation on an open file, and returns its result."""
    fd = fileno_of(file)
    return checked(
        opcode,
        await perform(uring_run(), opcode, fd, address, length, offset, flags, fileno=asks_of(file)),
    )


async def of_path(
    opcode: Opcode, path: StrOrBytesPath, dir_fd: int | None, *, length: int = 0, flags: int = 0
) -> None:
    """Makes an operation on a path."""
    name = ffi.from_buffer(name_of(path))
    result = await perform(uring_run(), opcode, directory_of(dir_fd), name, length, flags=flags)
    if result < 0:
        raise failure_of(opcode, result, os.fspath(path))


async def of_paths(
    opcode: Opcode,
    source: StrOrBytesPath,
    source_dir_fd: int | None,
    destination: StrOrBytesPath,
    destination_dir_fd: int | None,
    flags: int,
) -> None:
    """Makes an operation on two paths."""
    name = name_of(destination)
    result = await perform(
        uring_run(),
        opcode,
        directory_of(source_dir_fd),
        ffi.from_buffer(name_of(source)),
        # The kernel takes this in the field that is the length in other operations.
        as_unsigned(directory_of(destination_dir_fd)),
        address_of(name),
        flags,
        held=name,
    )
    if result < 0:
        raise failure_of(opcode, result, os.fspath(source), os.fspath(destination))
