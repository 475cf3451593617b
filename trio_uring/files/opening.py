"""Opening files, and wrapping open ones.

The standard library's `open` decides on everything: which arguments are allowed, the flags, the kind of
file, its encoding and the size of its buffer. It is called twice. First its opener opens nothing: that it
is called shows that the arguments are good, and it is given the flags. Then the ring opens the file, and
the opener of the second call hands `open` that descriptor.
"""

from __future__ import annotations

import functools
import io
import os
import stat
import sys
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar, overload

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from ..loop.current import current_run
from ..lowlevel.open_at import opened
from ..lowlevel.unclaimed import made_by_thread
from .buffer import FileBuffer
from .made_later import BufferedLater
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
    """Opens a file as `trio.open_file` does, but without threads where that is faithful.

    The ring opens, reads and writes a regular file that is opened by its name. What the kernel has cached,
    of the name of a file that is opened to be read and of the file's contents, is opened and read by the
    calling thread, which does not wait.

    Arguments and errors are those of `open`. An ``opener`` is called by the calling thread. A call that is
    cancelled before the kernel has opened the file leaves nothing open. A call that waits for the other side
    of a FIFO can be cancelled too. Needs Linux 5.6, and 5.15 for FIFOs: on an older kernel a thread opens
    each FIFO, and waits on after a cancellation.

    *Fast and slow*: the file object keeps the position of a file that was opened by its name. The kernel
    keeps it once others may use the descriptor too: from the beginning if the descriptor was given as a
    number, by `wrap_file` or by an ``opener``; otherwise after a fork, or after a caller has asked for
    ``fileno()``, ``wrapped``, ``buffer`` or ``raw``. Reads and writes at the kernel's position go by Trio's
    worker threads, since only read(2) and write(2) lock it. ``pread``, ``pread_into``, ``pwrite``,
    ``fsync()`` and ``fdatasync()`` of such a file, and `Path.stat`, still take no thread. On file systems
    that the ring was not tested on, and on devices such as /dev/zero, all reads and writes go by threads.
    So do those of non-blocking terminals, and before Linux 6.4 of non-blocking pipes.
    The ring was tested on ext4, xfs, btrfs, tmpfs and overlays of these.

    *Written behind*: what a file has accepted is in its buffer, or on its way to the kernel, until ``flush``.
    `os._exit`, `os.execv` or a signal that kills the process lose it, and another handle on the file sees it
    only then. A write that does not fit the buffer of a regular file opened by its name goes on after its
    call has returned, for 8 MiB at most. Every call but a further write waits for it. In a daemon thread,
    which the end of the interpreter stops anywhere, no write outlasts its call.

    An error of such a write is raised by the next call that needs the file. What could not be written stays,
    and is tried again, as what is buffered is; a file of `open` raises from the large write itself, and drops
    its data. Where the file grows, up to three writes are with the kernel. If the disk is full for one and
    not for the next, there are zeros between them until the kernel has answered for all. All other writes,
    as to files without a buffer, end with their call.

    Two runs may use one file object, one after the other. In the middle of a call of the one, the other gets
    a RuntimeError. In a run on epoll the same object does its work in Trio's worker threads.
    """
    arguments = (encoding, errors, newline)
    path: object = file if isinstance(file, str) or not isinstance(file, os.PathLike) else os.fspath(file)
    if opener is not None or not closefd or not _is_path(path):
        await checkpoint()
        wrapped = open(file, mode, buffering, *arguments, closefd, opener)  # noqa: SIM115
        return over(wrapped, buffering, newline, ours=False)
    if buffering == 1:
        flags = _flags.__wrapped__(mode, buffering, *arguments, closefd)
        if "b" in mode:
            buffering = -1  # means the same, and `open` has warned by now
    else:
        try:
            flags = _flags(mode, buffering, *arguments, closefd)
        except TypeError:  # perhaps only because an argument cannot be hashed
            flags = _flags.__wrapped__(mode, buffering, *arguments, closefd)
    run = current_run()
    if run is not None:
        fd, status = await opened(run, path, flags, _CREATED)
        if "b" in mode and status is not None and stat.S_ISREG(status.st_mode):
            binary = _binary_file(fd, path, mode.replace("U", ""), flags, buffering)
            return over(binary, buffering, newline, status, ours=True)
    else:
        fd = await made_by_thread(functools.partial(os.open, path, flags, _CREATED), os.close)
        status = None
    wrapped = open(path, mode, buffering, *arguments, closefd, lambda *_: fd)  # noqa: SIM115
    return over(wrapped, buffering, newline, status, ours=True)


@overload
def wrap_file(file: io.FileIO) -> RawFile: ...  # type: ignore[overload-overlap]
@overload
def wrap_file(file: WrappedT) -> AsyncIOWrapper[WrappedT]: ...
def wrap_file(file: Any) -> Any:
    """Wraps an open file, as `trio.wrap_file` does. An `io.FileIO` becomes a file like those of `open_file`.

    Its position, if it has one, is the kernel's, since others may move it. So threads read and write there,
    while ``pread`` and the like take none: `open_file` says which.

    Trio itself wraps any other file, for example one with a buffer, which its other users go on sharing. Its
    methods run in worker threads.
    """
    if type(file) is not io.FileIO or file.closed:
        return trio.wrap_file(file)
    return RawFile(file, Transfers(Position(file, ours=False)))


_CREATED: Final = 0o666
"""The permissions of a new file, before the umask, as with `open`."""


class _Trial(Exception):  # noqa: N818  # never seen
    """Brings the flags that `open` would open with. Raised by an opener that opens nothing."""


def _opens_nothing(_: str, flags: int) -> NoReturn:
    raise _Trial(flags)


def _is_path(path: object) -> TypeGuard[str | bytes]:
    """Whether ``path`` is the name of a file: neither a descriptor, nor something that `open` refuses."""
    return "\0" not in path if isinstance(path, str) else isinstance(path, bytes) and b"\0" not in path


@functools.lru_cache(maxsize=64)
def _flags(
    mode: str, buffering: int, encoding: str | None, errors: str | None, newline: str | None, closefd: bool
) -> int:
    """Returns the flags that `open` makes of these arguments. Raises what `open` raises for them."""
    try:
        open(os.devnull, mode, buffering, encoding, errors, newline, closefd, _opens_nothing)  # noqa: SIM115
    except _Trial as trial:
        return int(trial.args[0])
    raise AssertionError


def _binary_file(
    fd: int, path: str | bytes, mode: str, flags: int, buffering: int
) -> io.FileIO | BufferedLater:
    """Returns what `open` returns for a binary file that was opened by its name, but makes no buffered file.
    ``flags`` are those that it was opened with."""
    try:
        sys.audit("open", path, mode.replace("b", ""), flags | os.O_CLOEXEC)
        raw = io.FileIO(fd, mode)
    except BaseException:
        os.close(fd)
        raise
    raw.name = path
    if not buffering:
        return raw
    return BufferedLater(raw, _default_size(raw) if buffering < 0 else buffering)


def _default_size(raw: Any) -> int:
    """Returns the size of the buffer that `open` makes over a raw file if it is given none: a block of the
    file. Since the default size is 128 KiB, it is the least as well."""
    size: int = raw._blksize
    return size if io.DEFAULT_BUFFER_SIZE == 8192 else max(min(size, 8 << 20), io.DEFAULT_BUFFER_SIZE)


def over(
    wrapped: Any, buffering: int, newline: str | None, status: Status | None = None, *, ours: bool
) -> AsyncFile[Any]:
    """Returns the asynchronous file over ``wrapped``, a file of the standard library's that has moved no data
    yet, or a `BufferedLater`. ``ours``: it was opened by its name, and nobody else has its descriptor.
    ``status`` is the `os.fstat`, if the caller has it."""
    if isinstance(wrapped, io.FileIO):
        return RawFile(wrapped, Transfers(Position(wrapped, status, ours=ours)))
    binary = wrapped.buffer if isinstance(wrapped, io.TextIOWrapper) else wrapped
    size = _default_size(binary.raw) if buffering <= 1 else buffering
    buffer = FileBuffer(binary, size, Transfers(Position(binary.raw, status, ours=ours)))
    if binary is wrapped:
        return buffered(wrapped, buffer)
    return TextFile(wrapped, buffer, newline)
