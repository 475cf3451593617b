"""The functions of `trio_uring.lowlevel`, one for each operation of the kernel's."""

from __future__ import annotations

import errno
import os
import stat
from struct import Struct
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import checkpoint_if_cancelled

from ..loop.current import current_manager
from ..loop.operation import FTRUNCATE, HERE, MOST, NULL, READ, WRITE, failure, perform
from ..loop.sleep import is_cancelled
from ..loop.trio_internals import context
from ..loop.workers import Waiting
from ..ring.native import ffi, lib
from .arguments import (
    AT_FDCWD,
    FURTHEST,
    address_of,
    as_unsigned,
    asks_of,
    bytes_of,
    directory_of,
    fileno_of,
    name_of,
    offset_of,
    pointer_to,
    size_of,
    vector_of,
)
from .file_systems import has_position, is_measured
from .names import SAID, go_on, mode_at_once, status_at_once
from .open_at import opened
from .page_cache import PageCache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed import ReadableBuffer, StrOrBytesPath, WriteableBuffer

    from ..loop.manager import UringManager
    from ..loop.readiness import HasFileno
    from ..ring.native import Pointer

_AT_SYMLINK_NOFOLLOW: Final = 0x100
_AT_REMOVEDIR: Final = 0x200
_AT_SYMLINK_FOLLOW: Final = 0x400
_AT_NO_AUTOMOUNT: Final = 0x800
_AT_EMPTY_PATH: Final = 0x1000
_STATX_BASIC_STATS: Final = 0x7FF


async def openat(path: StrOrBytesPath, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    """`os.open`: a new descriptor, which child processes do not inherit. Linux 5.6.

    To wait for the other side of a FIFO takes none of the workers that the kernel has for files.
    Before Linux 5.15 it takes a thread, which waits on after a cancellation.
    """
    fd, _ = await opened(_manager(), path, flags, mode, dir_fd)
    return fd


async def close(fd: int) -> None:
    """`os.close`; a checkpoint, and closed even if that is cancelled.

    Not by way of the ring: a descriptor that the kernel closes later could still be open
    for writing when the file is executed (ETXTBSY).
    """
    os.close(fd)
    await trio.lowlevel.checkpoint()


async def read(file: int | HasFileno, buffer: WriteableBuffer, offset: int | None = None) -> int:
    """Reads into ``buffer``; the number of bytes, 0 at the end. Without an offset as `readv`.
    What the page cache has the calling thread reads, which does not wait. Linux 5.6."""
    view = bytes_of(buffer, writable=True)
    if offset is not None:
        return await _transfer(READ, file, pointer_to(view), min(len(view), MOST), offset, (view,))
    return await _transfer_here(READ, os.readv, file, pointer_to(view), min(len(view), MOST), (view,))


async def write(file: int | HasFileno, data: ReadableBuffer, offset: int | None = None) -> int:
    """Writes from ``data``; the number of bytes, which may be fewer. Without an offset as
    `writev`. Linux 5.6."""
    view = bytes_of(data)
    if offset is not None:
        return await _transfer(WRITE, file, pointer_to(view), min(len(view), MOST), offset, (view,))
    return await _transfer_here(WRITE, os.writev, file, pointer_to(view), min(len(view), MOST), (view,))


async def readv(file: int | HasFileno, buffers: Sequence[WriteableBuffer], offset: int | None = None) -> int:
    """Reads into several buffers (1,024 at most), one after the other; the number of bytes. Linux 5.1.

    Without an offset a file that has a position is read by a worker thread, since an operation
    of the ring does not lock the position; with one, no thread is needed.
    """
    views = [bytes_of(buffer, writable=True) for buffer in buffers]
    if offset is not None:
        return await _transfer(_READV, file, vector_of(views), len(views), offset, views)
    return await _transfer_here(_READV, os.readv, file, vector_of(views), len(views), views)


async def writev(file: int | HasFileno, buffers: Sequence[ReadableBuffer], offset: int | None = None) -> int:
    """Writes from several buffers (1,024 at most), one after the other; the number of bytes. Linux 5.1.

    Without an offset a file that has a position is written by a worker thread, since an operation
    of the ring does not lock the position; with one, no thread is needed.
    """
    views = [bytes_of(buffer) for buffer in buffers]
    if offset is not None:
        return await _transfer(_WRITEV, file, vector_of(views), len(views), offset, views)
    return await _transfer_here(_WRITEV, os.writev, file, vector_of(views), len(views), views)


async def fsync(file: int | HasFileno) -> None:
    """`os.fsync`: data and metadata are on the device. Linux 5.1."""
    await _of_file(_FSYNC, file)


async def fdatasync(file: int | HasFileno) -> None:
    """`os.fdatasync`: data, and what is needed to find it, are on the device. Linux 5.1."""
    await _of_file(_FSYNC, file, flags=_FSYNC_DATASYNC)


async def fallocate(file: int | HasFileno, mode: int, offset: int, length: int) -> None:
    """fallocate(2): reserves space, or punches holes, by ``mode``. Linux 5.6."""
    await _of_file(_FALLOCATE, file, ffi.cast("void *", size_of(length)), mode, size_of(offset))


async def ftruncate(file: int | HasFileno, length: int) -> None:
    """`os.ftruncate`: cut off, or filled up with zeros. Linux 6.9."""
    await _of_file(FTRUNCATE, file, offset=size_of(length))


async def statx(
    path: StrOrBytesPath, *, dir_fd: int | None = None, follow_symlinks: bool = True
) -> os.stat_result:
    """`os.stat`. Linux 5.6."""
    manager = _manager()
    directory, name = directory_of(dir_fd), name_of(path)
    if is_cancelled(context.task):
        await checkpoint_if_cancelled()
    status = status_at_once(directory, name, 0 if follow_symlinks else os.O_NOFOLLOW)
    if not isinstance(status, int):
        await go_on()
        return status
    if status in SAID:
        await go_on()
        raise failure(status, os.fspath(path))
    flags = _AT_NO_AUTOMOUNT if follow_symlinks else _AT_NO_AUTOMOUNT | _AT_SYMLINK_NOFOLLOW
    result, found = await _statx(manager, name, directory, flags)
    if result < 0:
        raise failure(result, os.fspath(path))
    return _stat_result(found)


async def fstat(file: int | HasFileno) -> os.stat_result:
    """`os.fstat`. Linux 5.6."""
    fd = fileno_of(file)
    if fd == AT_FDCWD:  # else this would be the working directory
        raise failure(-errno.EBADF)
    result, found = await _statx(_manager(), b"\0", fd, _AT_EMPTY_PATH)
    if result < 0:
        raise failure(result)
    return _stat_result(found)


async def unlinkat(path: StrOrBytesPath, *, dir_fd: int | None = None, directory: bool = False) -> None:
    """`os.unlink`, or `os.rmdir` of a ``directory``. Linux 5.11."""
    await _of_path(_UNLINKAT, path, dir_fd, flags=_AT_REMOVEDIR if directory else 0)


async def mkdirat(path: StrOrBytesPath, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
    """`os.mkdir`. Linux 5.15."""
    await _of_path(_MKDIRAT, path, dir_fd, length=mode)


async def renameat(
    source: StrOrBytesPath,
    destination: StrOrBytesPath,
    *,
    source_dir_fd: int | None = None,
    destination_dir_fd: int | None = None,
    flags: int = 0,
) -> None:
    """`os.replace`; ``flags`` are those of renameat2(2). Linux 5.11."""
    await _of_paths(_RENAMEAT, source, source_dir_fd, destination, destination_dir_fd, flags)


async def linkat(
    source: StrOrBytesPath,
    destination: StrOrBytesPath,
    *,
    source_dir_fd: int | None = None,
    destination_dir_fd: int | None = None,
    follow_symlinks: bool = False,
) -> None:
    """`os.link`: a hard link. Linux 5.15.

    By default to ``source`` itself also where that is a symbolic link, as link(2) does, and
    `os.link` before Python 3.14. With ``follow_symlinks`` to what it points to, for which
    the earlier `os.link` has to be given a directory's descriptor too.
    """
    flags = _AT_SYMLINK_FOLLOW if follow_symlinks else 0
    await _of_paths(_LINKAT, source, source_dir_fd, destination, destination_dir_fd, flags)


async def symlinkat(target: StrOrBytesPath, path: StrOrBytesPath, *, dir_fd: int | None = None) -> None:
    """`os.symlink`: ``path`` will point to ``target``. Linux 5.15."""
    target_name, name = name_of(target), name_of(path)
    result = await perform(
        _manager(),
        _SYMLINKAT,
        directory_of(dir_fd),
        ffi.from_buffer(target_name),
        offset=address_of(name),
        held=name,
    )
    if result < 0:
        raise failure(result, os.fspath(target), os.fspath(path))


async def splice(
    source: int | HasFileno,
    destination: int | HasFileno,
    count: int,
    *,
    source_offset: int | None = None,
    destination_offset: int | None = None,
    flags: int = 0,
) -> int:
    """splice(2): moves up to ``count`` bytes, without copying them through the program; one
    of the two is a pipe. The number of bytes, 0 at the end. Linux 5.7."""
    if -FURTHEST <= count < 0:
        raise ValueError("count must not be negative")
    source_fd = fileno_of(source, moves=source_offset is None)
    fd = fileno_of(destination, moves=destination_offset is None)
    asks_source, asks_destination = asks_of(source), asks_of(destination)

    def fileno() -> int:
        if asks_source is not None and asks_source() != source_fd:
            return -1
        return fd if asks_destination is None else asks_destination()

    result = await perform(
        _manager(),
        _SPLICE,
        fd,
        ffi.cast("void *", offset_of(source_offset)),
        min(size_of(count), MOST),
        offset_of(destination_offset),
        flags,
        other_fd=source_fd,
        fileno=fileno if asks_source or asks_destination else None,
    )
    return _checked(result)


# The numbers of <linux/io_uring.h>; loop/operation.py has those that files use as well.
_READV: Final = 1
_WRITEV: Final = 2
_FSYNC: Final = 3
_FALLOCATE: Final = 17
_STATX: Final = 21
_SPLICE: Final = 30
_RENAMEAT: Final = 35
_UNLINKAT: Final = 36
_MKDIRAT: Final = 37
_SYMLINKAT: Final = 38
_LINKAT: Final = 39
_FSYNC_DATASYNC: Final = 1

_STATX_RESULT: Final = Struct("=IIQIIIHxxQQQQ" + "qIxxxx" * 4 + "IIII")
_STATX_SIZE: Final = 256
_STATX_MODE: Final = Struct("=H")
_STATX_MODE_AT: Final = 28


def _manager() -> UringManager:
    manager = current_manager()
    if manager is None:
        raise RuntimeError("this run is not on io_uring, which trio_uring.lowlevel needs")
    return manager


def _checked(result: int) -> int:
    if result < 0:
        raise failure(result)
    return result


async def _read_at_once(fd: int, address: Pointer, length: int, offset: int) -> int:
    """What the page cache has for a task that is not cancelled; < 0: the ring gets the read."""
    cache = _missed.get(fd)
    if cache is not None and cache.left:
        cache.left -= 1
        return -errno.EAGAIN
    if is_cancelled(context.task):
        await checkpoint_if_cancelled()
    got = lib.tu_read_measured_at_once(fd, address, length, offset)
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
"""By the descriptor, where the last try has found nothing. The number may be another file's by now:
then some reads are left to the ring for nothing."""


async def _transfer(
    opcode: int,
    file: int | HasFileno,
    address: Pointer,
    length: int,
    offset: int,
    views: Sequence[memoryview],
) -> int:
    """At an offset."""
    at, fd = size_of(offset), fileno_of(file)
    manager = _manager()
    try:
        if opcode == READ and (got := await _read_at_once(fd, address, length, at)) >= 0:
            return got
        if not _is_for_the_ring(fd):
            call = os.preadv if opcode in (READ, _READV) else os.pwritev
            return await _by_thread(call, file, fd, views, at)
        return _checked(
            await perform(manager, opcode, fd, address, length, at, held=views, fileno=asks_of(file))
        )
    except (OSError, trio.Cancelled, KeyboardInterrupt):
        # The traceback keeps our frames: the buffers are not to wait for its end.
        for view in views:
            view.release()
        raise


async def _transfer_here(
    opcode: int,
    call: Callable[[int, Sequence[memoryview]], int],
    file: int | HasFileno,
    address: Pointer,
    length: int,
    views: Sequence[memoryview],
) -> int:
    """At the position; of what has none, the ring's."""
    manager, fd = _manager(), fileno_of(file, moves=True)
    try:
        if _has_position(fd):
            return await _by_thread(call, file, fd, views)
        with Waiting(manager):
            return _checked(
                await perform(manager, opcode, fd, address, length, HERE, held=views, fileno=asks_of(file))
            )
    except (OSError, trio.Cancelled, KeyboardInterrupt):
        for view in views:
            view.release()
        raise


async def _by_thread(call: Callable[..., int], file: int | HasFileno, fd: int, *args: object) -> int:
    """The thread may have to wait for its turn, and ``fd`` may be another file's by then."""
    asks = asks_of(file)

    def transfer() -> int:
        try:
            is_same = asks is None or asks() == fd
        except ValueError:
            is_same = False
        if not is_same:
            raise failure(-errno.EBADF)
        return call(fd, *args)

    return await trio.to_thread.run_sync(transfer)


def _is_for_the_ring(fd: int) -> bool:
    """Also what is wrong: the ring tells."""
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


async def _of_file(
    opcode: int,
    file: int | HasFileno,
    address: Pointer = NULL,
    length: int = 0,
    offset: int = 0,
    *,
    flags: int = 0,
) -> int:
    fd = fileno_of(file)
    return _checked(
        await perform(_manager(), opcode, fd, address, length, offset, flags, fileno=asks_of(file))
    )


async def _of_path(
    opcode: int, path: StrOrBytesPath, dir_fd: int | None, *, length: int = 0, flags: int = 0
) -> int:
    name = ffi.from_buffer(name_of(path))
    result = await perform(_manager(), opcode, directory_of(dir_fd), name, length, flags=flags)
    if result < 0:
        raise failure(result, os.fspath(path))
    return result


async def _of_paths(
    opcode: int,
    source: StrOrBytesPath,
    source_dir_fd: int | None,
    destination: StrOrBytesPath,
    destination_dir_fd: int | None,
    flags: int,
) -> None:
    name = name_of(destination)
    result = await perform(
        _manager(),
        opcode,
        directory_of(source_dir_fd),
        ffi.from_buffer(name_of(source)),
        # The kernel has this in the field that is the length elsewhere.
        as_unsigned(directory_of(destination_dir_fd)),
        address_of(name),
        flags,
        held=name,
    )
    if result < 0:
        raise failure(result, os.fspath(source), os.fspath(destination))


async def mode_of(manager: UringManager, path: StrOrBytesPath, *, follow_symlinks: bool) -> int:
    """The mode of what a name leads to, or -errno."""
    name = name_of(path)
    if is_cancelled(context.task):
        await checkpoint_if_cancelled()
    mode = mode_at_once(AT_FDCWD, name, 0 if follow_symlinks else os.O_NOFOLLOW)
    if mode >= 0 or mode in SAID:
        await go_on()
        return mode
    flags = _AT_NO_AUTOMOUNT if follow_symlinks else _AT_NO_AUTOMOUNT | _AT_SYMLINK_NOFOLLOW
    result, found = await _statx(manager, name, AT_FDCWD, flags)
    return result if result < 0 else _STATX_MODE.unpack_from(found, _STATX_MODE_AT)[0]


async def _statx(manager: UringManager, name: bytes, dir_fd: int, flags: int) -> tuple[int, bytearray]:
    found = bytearray(_STATX_SIZE)
    pointer, address = ffi.from_buffer(name), address_of(found)
    result = await perform(manager, _STATX, dir_fd, pointer, _STATX_BASIC_STATS, address, flags, held=found)
    return result, found


def _stat_result(found: bytearray) -> os.stat_result:
    """From a struct statx."""
    (
        _,
        block_size,
        _,
        links,
        uid,
        gid,
        mode,
        inode,
        size,
        blocks,
        _,
        atime,
        atime_ns,
        _,
        _,
        ctime,
        ctime_ns,
        mtime,
        mtime_ns,
        rdev_major,
        rdev_minor,
        dev_major,
        dev_minor,
    ) = _STATX_RESULT.unpack_from(found)
    device = os.makedev(dev_major, dev_minor)
    times = ((atime, atime_ns), (mtime, mtime_ns), (ctime, ctime_ns))
    return os.stat_result(
        (
            *(mode, inode, device, links, uid, gid, size),
            *(seconds for seconds, _ in times),
            *(seconds + fraction * 1e-9 for seconds, fraction in times),
            *(seconds * 1_000_000_000 + fraction for seconds, fraction in times),
            *(block_size, blocks, os.makedev(rdev_major, rdev_minor)),
        )
    )
