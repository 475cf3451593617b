"""Opening files, and taking over open ones.

The standard library's `open` decides on everything: which arguments are allowed, the flags,
the kind of file, its encoding and the size of its buffer. It is called with an opener that
hands it the descriptor that the ring has opened. An opener that opens nothing tells before
that the arguments are good, and which flags they make.
"""

from __future__ import annotations

import functools
import io
import os
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar, overload

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from ..loop.current import current_run
from ..lowlevel.open_at import opened
from .buffer import FileBuffer
from .position import Position
from .raw import RawFile
from .text import TextFile, buffered
from .transfers import Transfers

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeGuard

    from _typeshed import (
        OpenBinaryMode,
        OpenBinaryModeReading,
        OpenBinaryModeUpdating,
        OpenBinaryModeWriting,
        OpenTextMode,
        StrOrBytesPath,
    )
    from trio._file_io import AsyncIOWrapper

    from ..lowlevel.file_systems import Status
    from .async_file import AsyncFile
    from .binary import BinaryFile
    from .buffered import BufferedFile, BufferedReaderFile

    _Opener = Callable[[str, int], int]

WrappedT = TypeVar("WrappedT")


@overload
async def open_file(
    file: StrOrBytesPath | int,
    mode: OpenTextMode = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: _Opener | None = None,
) -> TextFile: ...
@overload
async def open_file(
    file: StrOrBytesPath | int,
    mode: OpenBinaryMode,
    buffering: Literal[0],
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    opener: _Opener | None = None,
) -> RawFile: ...
@overload
async def open_file(
    file: StrOrBytesPath | int,
    mode: OpenBinaryModeReading | OpenBinaryModeUpdating,
    buffering: Literal[-1, 1] = -1,
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    opener: _Opener | None = None,
) -> BufferedReaderFile: ...
@overload
async def open_file(
    file: StrOrBytesPath | int,
    mode: OpenBinaryModeWriting,
    buffering: Literal[-1, 1] = -1,
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    opener: _Opener | None = None,
) -> BufferedFile: ...
@overload
async def open_file(
    file: StrOrBytesPath | int,
    mode: OpenBinaryMode,
    buffering: int = -1,
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    opener: _Opener | None = None,
) -> BinaryFile: ...
@overload
async def open_file(
    file: StrOrBytesPath | int,
    mode: str,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: _Opener | None = None,
) -> AsyncFile[Any]: ...


@enable_ki_protection
async def open_file(
    file: StrOrBytesPath | int,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: _Opener | None = None,
) -> AsyncFile[Any]:
    """`trio.open_file` without threads where that is faithful: a regular file that is opened by
    its name is opened, read and written by the ring. What the kernel has cached, of a name that is opened
    to be read and of the file's contents, is opened and read by the calling thread, which does not wait.

    Arguments and errors are those of `open`. An ``opener`` is called by the calling thread.
    Cancelled before the kernel has opened it, the file is not open; to wait for the other side of
    a FIFO may be cancelled as well. Linux 5.6; 5.15 for FIFOs, which before go by a thread each,
    and that waits on after a cancellation.

    *Fast and slow*: the position of a file that was opened by its name is kept here. Others may use
    a descriptor as well that was given as a number, by `wrap_file` or by an ``opener``; and any
    file's, from the first ``fileno()``, ``wrapped``, ``buffer`` or ``raw`` that a caller asked for
    on, and after a fork. Its position is the kernel's then, and reads and writes at it go by Trio's
    worker threads, since only read(2) and write(2) lock it. So do those on file systems that the
    ring was not tested on (it was on ext4, xfs, btrfs, tmpfs and overlays of these), and on
    devices. Fast at all times, without a thread: ``pread``, ``pread_into``, ``pwrite``, ``fsync()``
    and ``fdatasync()`` of the file, `Path.stat`.

    What a file has accepted is in its buffer, and on its way to the kernel if that was full, until
    ``flush``: `os._exit`, `os.execv` or a signal that kills lose it, and another handle on the file
    sees it only then. In particular a write to a regular file opened by its name that does not fit
    the buffer goes on behind its call, 8 MiB at most; every call but a further write waits for it,
    and in a daemon thread, which the end of the interpreter stops anywhere, it does not go on.
    An error comes from the next call that needs the file, and what could not be written
    stays to be tried again, as what is buffered does; `open` raises it from a large write, and
    drops that. Where the file grows, up to three writes are with the kernel: should the disk be
    full for one and not for the next, there are zeros between them until the kernel has
    answered for all. Everything else, as files without a buffer, is written while its call lasts.

    One file object may be used by two runs, one after the other; in the middle of a call of the
    one, the other gets a RuntimeError. In a run that is on epoll the same object does its work in
    Trio's worker threads.
    """
    arguments = (encoding, errors, newline)
    path: object = os.fspath(file) if isinstance(file, os.PathLike) else file
    if opener is not None or not closefd or not _is_path(path):
        await checkpoint()
        wrapped = open(file, mode, buffering, *arguments, closefd, opener)  # noqa: SIM115
        return over(wrapped, buffering, newline, ours=False)
    if buffering == 1:
        flags = _flags.__wrapped__(mode, buffering, *arguments, closefd)
        if "b" in mode:
            buffering = -1  # the same, and it has warned of it by now
    else:
        try:
            flags = _flags(mode, buffering, *arguments, closefd)
        except TypeError:  # perhaps only because one of them cannot be hashed
            flags = _flags.__wrapped__(mode, buffering, *arguments, closefd)
    run = current_run()
    if run is not None:
        fd, status = await opened(run, path, flags, _CREATED)
    else:
        fd, status = await trio.to_thread.run_sync(os.open, path, flags, _CREATED), None
    wrapped = open(path, mode, buffering, *arguments, closefd, lambda *_: fd)  # noqa: SIM115
    return over(wrapped, buffering, newline, status, ours=True)


@overload
def wrap_file(file: io.FileIO) -> RawFile: ...  # type: ignore[overload-overlap]
@overload
def wrap_file(file: WrappedT) -> AsyncIOWrapper[WrappedT]: ...
def wrap_file(file: Any) -> Any:
    """`trio.wrap_file`; of an `io.FileIO` a file as `open_file` makes them. Its position is the
    kernel's, which others may move: by threads, but for ``pread`` and the like.

    Any other file, as one with a buffer, which its other users go on to share, is wrapped
    by Trio: its methods run in worker threads.
    """
    if type(file) is not io.FileIO or file.closed:
        return trio.wrap_file(file)
    return RawFile(file, Transfers(Position(file, ours=False)))


_CREATED: Final = 0o666


class _Trial(Exception):  # noqa: N818  # never seen
    """The flags that `open` would open with."""


def _opens_nothing(_: str, flags: int) -> NoReturn:
    raise _Trial(flags)


def _is_path(path: object) -> TypeGuard[str | bytes]:
    """Not a descriptor, nor what `open` refuses."""
    return "\0" not in path if isinstance(path, str) else isinstance(path, bytes) and b"\0" not in path


@functools.lru_cache(maxsize=64)
def _flags(
    mode: str, buffering: int, encoding: str | None, errors: str | None, newline: str | None, closefd: bool
) -> int:
    """The flags for these arguments, or what `open` raises for them."""
    try:
        open(os.devnull, mode, buffering, encoding, errors, newline, closefd, _opens_nothing)  # noqa: SIM115
    except _Trial as trial:
        return int(trial.args[0])
    raise AssertionError


def over(
    wrapped: Any, buffering: int, newline: str | None, status: Status | None = None, *, ours: bool
) -> AsyncFile[Any]:
    """The asynchronous file over one of the standard library's, which has moved no data yet. ``ours``: nobody
    else has its descriptor."""
    if isinstance(wrapped, io.FileIO):
        return RawFile(wrapped, Transfers(Position(wrapped, status, ours=ours)))
    binary = wrapped.buffer if isinstance(wrapped, io.TextIOWrapper) else wrapped
    size = binary.raw._blksize if buffering <= 1 else buffering
    buffer = FileBuffer(binary, size, Transfers(Position(binary.raw, status, ours=ours)))
    if binary is wrapped:
        return buffered(wrapped, buffer)
    return TextFile(wrapped, buffer, newline)
