"""The functions of `trio_uring.lowlevel`, one for each operation of the kernel's.

ring/opcodes.py has a row for each operation. Tasks of a run on io_uring call these functions.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import checkpoint_if_cancelled

from ..loop.checkpoints import go_on, pass_cancel_point
from ..loop.operation import MOST, failure, perform
from ..loop.trio_internals import context
from ..ring.native import ffi
from ..ring.opcodes import (
    FALLOCATE,
    FSYNC,
    FTRUNCATE,
    LINKAT,
    MKDIRAT,
    READ,
    READV,
    RENAMEAT,
    SPLICE,
    STATX,
    SYMLINKAT,
    UNLINKAT,
    WRITE,
    WRITEV,
)
from .arguments import (
    AT_FDCWD,
    FURTHEST,
    address_of,
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
from .file_status import STATX_BASIC_STATS, STATX_SIZE, mode_in, stat_result_of
from .names import SAID, mode_at_once, status_at_once
from .open_at import opened
from .performing import (
    checked,
    failure_of,
    of_file,
    of_path,
    of_paths,
    transfer,
    transfer_here,
    uring_run,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import ReadableBuffer, StrOrBytesPath, WriteableBuffer

    from ..loop.readiness import HasFileno
    from ..loop.run import Run

__all__ = [
    "close",
    "fallocate",
    "fdatasync",
    "fstat",
    "fsync",
    "ftruncate",
    "linkat",
    "mkdirat",
    "openat",
    "read",
    "readv",
    "renameat",
    "splice",
    "statx",
    "symlinkat",
    "unlinkat",
    "write",
    "writev",
]

_AT_SYMLINK_NOFOLLOW: Final = 0x100
_AT_REMOVEDIR: Final = 0x200
_AT_SYMLINK_FOLLOW: Final = 0x400
_AT_NO_AUTOMOUNT: Final = 0x800
_AT_EMPTY_PATH: Final = 0x1000
_FSYNC_DATASYNC: Final = 1


async def openat(path: StrOrBytesPath, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    """`os.open`: a new descriptor, which child processes do not inherit. Linux 5.6.

    Waiting for the other side of a FIFO takes none of the workers that the kernel has for files. Before
    Linux 5.15 it takes a thread, which goes on waiting after a cancellation.
    """
    fd, _ = await opened(uring_run(), path, flags, mode, dir_fd)
    return fd


async def close(fd: int) -> None:
    """`os.close`, followed by a checkpoint: the descriptor is closed even if that raises Cancelled.

    The ring is not used. It may close the descriptor later, and a file that is still open for
    writing cannot be executed (ETXTBSY).
    """
    os.close(fd)
    await trio.lowlevel.checkpoint()


async def read(file: int | HasFileno, buffer: WriteableBuffer, offset: int | None = None) -> int:
    """Reads into ``buffer``, and returns the number of bytes, 0 at the end of the file. Without an offset
    a thread may be needed, as for `readv`. The calling thread reads what the page cache has, and does
    not wait for that. Linux 5.6."""
    view = bytes_of(buffer, writable=True)
    if offset is not None:
        return await transfer(READ, file, pointer_to(view), min(len(view), MOST), offset, (view,))
    return await transfer_here(READ, file, pointer_to(view), min(len(view), MOST), (view,))


async def write(file: int | HasFileno, data: ReadableBuffer, offset: int | None = None) -> int:
    """Writes from ``data``, and returns the number of bytes, which may be fewer. Without an offset a thread
    may be needed, as for `writev`. Linux 5.6."""
    view = bytes_of(data)
    if offset is not None:
        return await transfer(WRITE, file, pointer_to(view), min(len(view), MOST), offset, (view,))
    return await transfer_here(WRITE, file, pointer_to(view), min(len(view), MOST), (view,))


async def readv(file: int | HasFileno, buffers: Sequence[WriteableBuffer], offset: int | None = None) -> int:
    """Reads into several buffers (1,024 at most), one after the other. Returns the number of bytes, 0 at
    the end of the file. Linux 5.1.

    Without an offset, a worker thread reads a file that has a position, since an operation of the ring
    does not lock the position. With an offset, no thread is needed.
    """
    views = [bytes_of(buffer, writable=True) for buffer in buffers]
    if offset is not None:
        return await transfer(READV, file, vector_of(views), len(views), offset, views)
    return await transfer_here(READV, file, vector_of(views), len(views), views)


async def writev(file: int | HasFileno, buffers: Sequence[ReadableBuffer], offset: int | None = None) -> int:
    """Writes from several buffers (1,024 at most), one after the other. Returns the number of bytes, which
    may be fewer. Linux 5.1.

    Without an offset, a worker thread writes a file that has a position, since an operation of the ring
    does not lock the position. With an offset, no thread is needed.
    """
    views = [bytes_of(buffer) for buffer in buffers]
    if offset is not None:
        return await transfer(WRITEV, file, vector_of(views), len(views), offset, views)
    return await transfer_here(WRITEV, file, vector_of(views), len(views), views)


async def fsync(file: int | HasFileno) -> None:
    """`os.fsync`: waits until data and metadata are on the device. Linux 5.1."""
    await of_file(FSYNC, file)


async def fdatasync(file: int | HasFileno) -> None:
    """`os.fdatasync`: waits until the data, and what is needed to find it, is on the device. Linux 5.1."""
    await of_file(FSYNC, file, flags=_FSYNC_DATASYNC)


async def fallocate(file: int | HasFileno, mode: int, offset: int, length: int) -> None:
    """fallocate(2): reserves space or punches holes, as ``mode`` says. Linux 5.6."""
    await of_file(FALLOCATE, file, ffi.cast("void *", size_of(length)), mode, size_of(offset))


async def ftruncate(file: int | HasFileno, length: int) -> None:
    """`os.ftruncate`: cuts the file off at ``length``, or fills it up with zeros. Linux 6.9."""
    await of_file(FTRUNCATE, file, offset=size_of(length))


async def statx(
    path: StrOrBytesPath, *, dir_fd: int | None = None, follow_symlinks: bool = True
) -> os.stat_result:
    """`os.stat`: returns the status of a path. Linux 5.6."""
    run = uring_run()
    directory, name = directory_of(dir_fd), name_of(path)
    if pass_cancel_point(context.task):
        await checkpoint_if_cancelled()
    status = status_at_once(directory, name, 0 if follow_symlinks else os.O_NOFOLLOW)
    if not isinstance(status, int):
        await go_on()
        return status
    if status in SAID:
        await go_on()
        raise failure_of(STATX, status, os.fspath(path))
    flags = _AT_NO_AUTOMOUNT if follow_symlinks else _AT_NO_AUTOMOUNT | _AT_SYMLINK_NOFOLLOW
    result, found = await _statx(run, name, directory, flags)
    if result < 0:
        raise failure_of(STATX, result, os.fspath(path))
    return stat_result_of(found)


async def fstat(file: int | HasFileno) -> os.stat_result:
    """`os.fstat`: returns the status of an open file. Linux 5.6."""
    fd = fileno_of(file)
    if fd == AT_FDCWD:  # else this would be the working directory
        raise failure(-errno.EBADF)
    result, found = await _statx(uring_run(), b"\0", fd, _AT_EMPTY_PATH)
    if result < 0:
        raise failure_of(STATX, result)
    return stat_result_of(found)


async def unlinkat(path: StrOrBytesPath, *, dir_fd: int | None = None, directory: bool = False) -> None:
    """`os.unlink`: removes a file, or with ``directory`` an empty directory, as `os.rmdir`. Linux 5.11."""
    await of_path(UNLINKAT, path, dir_fd, flags=_AT_REMOVEDIR if directory else 0)


async def mkdirat(path: StrOrBytesPath, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
    """`os.mkdir`: makes a directory. Linux 5.15."""
    await of_path(MKDIRAT, path, dir_fd, length=mode)


async def renameat(
    source: StrOrBytesPath,
    destination: StrOrBytesPath,
    *,
    source_dir_fd: int | None = None,
    destination_dir_fd: int | None = None,
    flags: int = 0,
) -> None:
    """`os.replace`: renames a file or directory. ``flags`` are those of renameat2(2). Linux 5.11."""
    await of_paths(RENAMEAT, source, source_dir_fd, destination, destination_dir_fd, flags)


async def linkat(
    source: StrOrBytesPath,
    destination: StrOrBytesPath,
    *,
    source_dir_fd: int | None = None,
    destination_dir_fd: int | None = None,
    follow_symlinks: bool = False,
) -> None:
    """`os.link`: makes a hard link. Linux 5.15.

    If ``source`` is a symbolic link, the new link is to ``source`` itself, as with link(2), and with
    `os.link` before Python 3.14. With ``follow_symlinks`` it is to what ``source`` points to. (For that,
    `os.link` before Python 3.14 has to be given a directory's descriptor too.)
    """
    flags = _AT_SYMLINK_FOLLOW if follow_symlinks else 0
    await of_paths(LINKAT, source, source_dir_fd, destination, destination_dir_fd, flags)


async def symlinkat(target: StrOrBytesPath, path: StrOrBytesPath, *, dir_fd: int | None = None) -> None:
    """`os.symlink`: makes ``path`` a symbolic link to ``target``. Linux 5.15."""
    target_name, name = name_of(target), name_of(path)
    result = await perform(
        uring_run(),
        SYMLINKAT,
        directory_of(dir_fd),
        ffi.from_buffer(target_name),
        offset=address_of(name),
        held=name,
    )
    if result < 0:
        raise failure_of(SYMLINKAT, result, os.fspath(target), os.fspath(path))


async def splice(
    source: int | HasFileno,
    destination: int | HasFileno,
    count: int,
    *,
    source_offset: int | None = None,
    destination_offset: int | None = None,
    flags: int = 0,
) -> int:
    """`os.splice`: moves up to ``count`` bytes from ``source`` to ``destination``, without copying them
    through the program. One of the two has to be a pipe. Returns the number of bytes, 0 at the end of
    ``source``. Linux 5.7."""
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
        uring_run(),
        SPLICE,
        fd,
        ffi.cast("void *", offset_of(source_offset)),
        min(size_of(count), MOST),
        offset_of(destination_offset),
        flags,
        other_fd=source_fd,
        fileno=fileno if asks_source or asks_destination else None,
    )
    return checked(SPLICE, result)


async def mode_of(run: Run, path: StrOrBytesPath, *, follow_symlinks: bool) -> int:
    """Returns the mode of what a name leads to, or -errno. Not public: for other modules of this
    package."""
    name = name_of(path)
    if pass_cancel_point(context.task):
        await checkpoint_if_cancelled()
    mode = mode_at_once(AT_FDCWD, name, 0 if follow_symlinks else os.O_NOFOLLOW)
    if mode >= 0 or mode in SAID:
        await go_on()
        return mode
    flags = _AT_NO_AUTOMOUNT if follow_symlinks else _AT_NO_AUTOMOUNT | _AT_SYMLINK_NOFOLLOW
    result, found = await _statx(run, name, AT_FDCWD, flags)
    return result if result < 0 else mode_in(found)


async def _statx(run: Run, name: bytes, dir_fd: int, flags: int) -> tuple[int, bytearray]:
    found = bytearray(STATX_SIZE)
    pointer, address = ffi.from_buffer(name), address_of(found)
    result = await perform(run, STATX, dir_fd, pointer, STATX_BASIC_STATS, address, flags, held=found)
    return result, found
