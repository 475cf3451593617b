"""`Path`: `trio.Path`, with the kernel doing what it has operations for.

- What is not defined here is inherited, and goes through Trio's threads: absolute,
  chmod, cwd, expanduser, full_match, group, home, is_junction, is_mount, lchmod, owner,
  readlink, resolve. So does what reads directories: glob, iterdir, rglob, walk.
- In a run on epoll everything does. So does a method whose operation the kernel is
  too old for; each docstring names the version that brought it.
- Errors, results and the order of events are pathlib's: a name that cannot be opened
  is reported before a bad encoding, and text that cannot be encoded leaves an empty file.
- Arguments that later Pythons gave to pathlib's methods are taken in all.
- Each method is a checkpoint. A cancelled one has happened, or not, or, if it takes
  several steps, in part. A descriptor is closed in any case, by the caller's thread:
  closed by the kernel, it could still be open for writing when the file is executed.
- What the kernel has cached of a name, and of a small file, is looked at by the caller's thread, which
  does not wait (lowlevel/names.py).
- The size of a file that was opened is asked for in the caller's thread, as by
  builtin open. Whatever it says, the file is read until it ends; on a file system that the
  ring is not for (`open_file` says which), by threads.
"""

from __future__ import annotations

import errno
import io
import os
import pathlib
import stat
import sys
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, overload

import trio
from trio.lowlevel import enable_ki_protection

from .. import lowlevel
from ..loop.checkpoints import pass_cancel_point
from ..loop.current import current_run
from ..loop.trio_internals import context
from ..lowlevel.arguments import name_of
from ..lowlevel.file_systems import is_measured
from ..lowlevel.names import go_on, read_whole_at_once
from ..lowlevel.open_at import opened, opened_after
from ..lowlevel.operations import mode_of
from ..lowlevel.performing import failure_of
from ..ring import features
from ..ring.opcodes import STATX
from .directories import Listing, Walk, entries, matches
from .memory import pinned
from .opening import open_file
from .position import Position
from .transfers import Transfers, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import (
        OpenBinaryMode,
        OpenBinaryModeReading,
        OpenBinaryModeUpdating,
        OpenBinaryModeWriting,
        OpenTextMode,
        ReadableBuffer,
        StrOrBytesPath,
        StrPath,
    )
    from typing_extensions import Self

    from ..loop.run import Run
    from .async_file import AsyncFile
    from .binary import BinaryFile
    from .buffered import BufferedFile, BufferedReaderFile
    from .raw import RawFile
    from .text import TextFile


class Path(trio.Path, pathlib.PurePosixPath):
    """A `trio.Path` that starts no thread for what the kernel has an operation for.

    Compares and hashes as `trio.Path` and `pathlib.Path` do; what is made of it,
    by ``/`` or ``parent`` or ``rename``, is of this class too.
    """

    __slots__ = ()

    # Trio's methods make one of it in their threads.
    _wrapped_cls: ClassVar[type[pathlib.Path]] = pathlib.PosixPath

    def __repr__(self) -> str:
        return f"trio_uring.Path({str(self)!r})"

    # Contents

    @overload  # type: ignore[override]  # of Trio's overloads, each with a file of its own
    async def open(
        self,
        mode: OpenTextMode = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> TextFile: ...
    @overload
    async def open(
        self,
        mode: OpenBinaryMode,
        buffering: Literal[0],
        encoding: None = None,
        errors: None = None,
        newline: None = None,
    ) -> RawFile: ...
    @overload
    async def open(
        self,
        mode: OpenBinaryModeReading | OpenBinaryModeUpdating,
        buffering: Literal[-1, 1] = -1,
        encoding: None = None,
        errors: None = None,
        newline: None = None,
    ) -> BufferedReaderFile: ...
    @overload
    async def open(
        self,
        mode: OpenBinaryModeWriting,
        buffering: Literal[-1, 1] = -1,
        encoding: None = None,
        errors: None = None,
        newline: None = None,
    ) -> BufferedFile: ...
    @overload
    async def open(
        self,
        mode: OpenBinaryMode,
        buffering: int = -1,
        encoding: None = None,
        errors: None = None,
        newline: None = None,
    ) -> BinaryFile: ...
    @overload
    async def open(
        self,
        mode: str,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> AsyncFile[Any]: ...
    async def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> AsyncFile[Any]:
        """`pathlib.Path.open`, by `trio_uring.open_file`: also in a run on epoll. Linux 5.6."""
        if "b" not in mode:
            encoding = io.text_encoding(encoding)  # type: ignore[attr-defined]  # not in typeshed
        return await open_file(self, mode, buffering, encoding, errors, newline)

    @enable_ki_protection  # or Ctrl-C could come between an open and its close
    async def read_bytes(self) -> bytes:
        """`pathlib.Path.read_bytes`. Linux 5.6.

        What the kernel has cached, the name and all of the file, is opened, read and closed by the
        caller's thread, in one step.
        """
        run = current_run()
        if run is None:
            return await super().read_bytes()
        if pass_cancel_point(context.task):
            await trio.lowlevel.checkpoint_if_cancelled()
        data, fd, tried = read_whole_at_once(name_of(self))
        if data is not None:
            await go_on()
            return data
        fd, status = await opened_after(run, self, _READ_FLAGS, 0, None, fd, tried)
        parts: list[bytes] = []
        with io.FileIO(str(self), "rb", opener=lambda *_: fd) as raw:
            await Transfers(Position(raw, status, ours=True)).read_to_end(parts)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read_text(
        self, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> str:
        """`pathlib.Path.read_text`. Linux 5.6. Decodes in the caller's thread."""
        encoding = io.text_encoding(encoding)  # type: ignore[attr-defined]  # not in typeshed
        _check_text_arguments(encoding, errors, newline)
        data = await self.read_bytes()
        return io.TextIOWrapper(io.BytesIO(data), encoding, errors, newline).read()

    async def write_bytes(self, data: ReadableBuffer) -> int:
        """`pathlib.Path.write_bytes`: the number of bytes. Linux 5.6.

        Cancelled: the file is there, empty or with a part of ``data``.
        """
        run = current_run()
        if run is None:
            return await super().write_bytes(data)
        view = memoryview(data)
        return await _write_new(run, self, lambda: view)

    async def write_text(
        self,
        data: str,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> int:
        """`pathlib.Path.write_text`: the number of characters. Linux 5.6.

        Encodes in the caller's thread. Cancelled: as `write_bytes`.
        """
        if not isinstance(data, str):
            raise TypeError(f"data must be str, not {type(data).__name__}")
        encoding = io.text_encoding(encoding)  # type: ignore[attr-defined]  # not in typeshed
        run = current_run()
        if run is None:
            return await super().write_text(data, encoding, errors, newline)
        _check_text_arguments(encoding, errors, newline)

        def encoded() -> bytes:
            buffer = io.BytesIO()
            text = io.TextIOWrapper(buffer, encoding, errors, newline)
            text.write(data)
            text.flush()
            return buffer.getvalue()

        await _write_new(run, self, encoded)
        return len(data)

    # What is there

    async def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """`pathlib.Path.stat`. Linux 5.6."""
        if current_run() is None:
            return await super().stat(follow_symlinks=follow_symlinks)
        return await lowlevel.statx(self, follow_symlinks=follow_symlinks)

    async def lstat(self) -> os.stat_result:
        """`pathlib.Path.lstat`. As `stat`."""
        return await self.stat(follow_symlinks=False)

    async def exists(self, *, follow_symlinks: bool = True) -> bool:
        """`pathlib.Path.exists`. As `stat`."""
        return await self._is(lambda mode: True, follow_symlinks=follow_symlinks)

    async def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """`pathlib.Path.is_dir`. As `stat`."""
        return await self._is(stat.S_ISDIR, follow_symlinks=follow_symlinks)

    async def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """`pathlib.Path.is_file`. As `stat`."""
        return await self._is(stat.S_ISREG, follow_symlinks=follow_symlinks)

    async def is_symlink(self) -> bool:
        """`pathlib.Path.is_symlink`. As `stat`."""
        return await self._is(stat.S_ISLNK, follow_symlinks=False)

    async def is_socket(self) -> bool:
        """`pathlib.Path.is_socket`. As `stat`."""
        return await self._is(stat.S_ISSOCK)

    async def is_fifo(self) -> bool:
        """`pathlib.Path.is_fifo`. As `stat`."""
        return await self._is(stat.S_ISFIFO)

    async def is_block_device(self) -> bool:
        """`pathlib.Path.is_block_device`. As `stat`."""
        return await self._is(stat.S_ISBLK)

    async def is_char_device(self) -> bool:
        """`pathlib.Path.is_char_device`. As `stat`."""
        return await self._is(stat.S_ISCHR)

    async def samefile(self, other_path: StrPath) -> bool:
        """`pathlib.Path.samefile`; also with another `Path`. As `stat`."""
        mine = await self.stat()
        return os.path.samestat(mine, await type(self)(other_path).stat())

    async def _is(self, is_kind: Callable[[int], bool], *, follow_symlinks: bool = True) -> bool:
        run = current_run()
        try:
            if run is None:
                return is_kind((await super().stat(follow_symlinks=follow_symlinks)).st_mode)
            mode = await mode_of(run, self, follow_symlinks=follow_symlinks)
        except OSError as error:
            mode = -(error.errno or 0)
        except ValueError:  # no path can have this name
            await trio.lowlevel.checkpoint()
            return False
        if mode >= 0:
            return is_kind(mode)
        if -mode not in _NOTHING_THERE and sys.version_info < (3, 14):
            raise failure_of(STATX, mode, os.fspath(self))
        return False

    # Directories

    def iterdir(self) -> Listing[Self]:
        """`pathlib.Path.iterdir`, to be awaited as `trio.Path`'s, or read by ``async for``."""
        return Listing(type(self), entries(str(self)))

    def glob(self, pattern: str, **options: bool | None) -> Listing[Self]:
        """`pathlib.Path.glob`, with the options that it has in the version that runs. As `iterdir`."""
        return Listing(type(self), matches(partial(self._wrapped_cls(self).glob, pattern, **options)))

    def rglob(self, pattern: str, **options: bool | None) -> Listing[Self]:
        """`pathlib.Path.rglob`. As `glob`."""
        return Listing(type(self), matches(partial(self._wrapped_cls(self).rglob, pattern, **options)))

    def walk(
        self,
        top_down: bool = True,
        on_error: Callable[[OSError], object] | None = None,
        follow_symlinks: bool = False,
    ) -> Walk[Self]:
        """`pathlib.Path.walk`, also for Pythons before 3.12, which have none: to be read by ``async for``.

        ``on_error`` is called in the task that reads. Directories without subdirectories are
        read some in advance, 4,096 entries at most: what is changed in them meanwhile is not seen.
        """
        return Walk(self, top_down, on_error, follow_symlinks)

    # Names

    async def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        """`pathlib.Path.touch`. Linux 5.6.

        Only if the file is new: for the times of one that exists the kernel has no
        operation, and Trio's threads set them.
        """
        if current_run() is None:
            return await super().touch(mode, exist_ok)
        try:
            os.close(await lowlevel.openat(self, os.O_CREAT | os.O_WRONLY | os.O_EXCL, mode))
        except FileExistsError:
            if not exist_ok:
                raise
        else:
            return None
        return await super().touch(mode, exist_ok)

    async def unlink(self, missing_ok: bool = False) -> None:
        """`pathlib.Path.unlink`. Linux 5.11."""
        if not _kernel_has("unlinkat"):
            return await super().unlink(missing_ok)
        try:
            await lowlevel.unlinkat(self)
        except FileNotFoundError:
            if not missing_ok:
                raise

    async def rmdir(self) -> None:
        """`pathlib.Path.rmdir`. Linux 5.11."""
        if _kernel_has("unlinkat"):
            await lowlevel.unlinkat(self, directory=True)
        else:
            await super().rmdir()

    async def rename(self, target: StrPath) -> Self:
        """`pathlib.Path.rename`: the new path. Linux 5.11."""
        if not _kernel_has("renameat"):
            return await super().rename(target)
        await lowlevel.renameat(self, target)
        return type(self)(target)

    async def replace(self, target: StrPath) -> Self:
        """`pathlib.Path.replace`: the new path. Linux 5.11."""
        return await self.rename(target)

    async def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """`pathlib.Path.mkdir`. Linux 5.15."""
        if not _kernel_has("mkdirat"):
            return await super().mkdir(mode, parents, exist_ok)
        try:
            await lowlevel.mkdirat(self, mode)
        except FileNotFoundError:
            if not parents or self.parent == self:
                raise
            await self.parent.mkdir(parents=True, exist_ok=True)
            await self.mkdir(mode, parents=False, exist_ok=exist_ok)
        except OSError:
            # Which error an existing directory gives is up to the file system.
            if not exist_ok or not await self.is_dir():
                raise

    async def symlink_to(self, target: StrOrBytesPath, target_is_directory: bool = False) -> None:
        """`pathlib.Path.symlink_to`. Linux 5.15."""
        if _kernel_has("symlinkat"):
            await lowlevel.symlinkat(target, self)
        else:
            await super().symlink_to(target, target_is_directory)

    async def hardlink_to(self, target: StrOrBytesPath) -> None:
        """`pathlib.Path.hardlink_to`: of a symbolic link itself, and of what it points to
        from Python 3.14 on. Linux 5.15."""
        if _kernel_has("linkat"):
            await lowlevel.linkat(target, self, follow_symlinks=sys.version_info >= (3, 14))
        else:
            await super().hardlink_to(target)

    if sys.version_info < (3, 12):

        async def link_to(self, target: StrOrBytesPath) -> None:
            """`pathlib.Path.link_to`, which Python 3.12 has no longer. Linux 5.15."""
            warnings.warn("link_to() is deprecated, see hardlink_to()", DeprecationWarning, stacklevel=2)
            if _kernel_has("linkat"):
                await lowlevel.linkat(self, target)
            else:
                await super().link_to(target)


_READ_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC
_NOTHING_THERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP)


def _kernel_has(operation: str) -> bool:
    """Whether the caller's run can make it: it is on io_uring, and the kernel new enough."""
    return current_run() is not None and features.has_operation(operation)


def _check_text_arguments(encoding: str | None, errors: str | None, newline: str | None) -> None:
    """As builtin open does, before it opens anything."""
    for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
        if not isinstance(value, (str, type(None))):
            raise TypeError(f"open() argument {name!r} must be str or None, not {type(value).__name__}")


@enable_ki_protection  # or Ctrl-C could come between an open and its close
async def _write_new(run: Run, path: Path, data: Callable[[], ReadableBuffer]) -> int:
    """Makes or empties the file, and writes all of what ``data`` then returns."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    fd, status = await opened(run, path, flags, 0o666)
    if status is not None and stat.S_ISREG(status.st_mode) and is_measured(fd, status):
        try:
            return await write_whole(run, fd, data())
        finally:
            os.close(fd)
    with io.FileIO(str(path), "wb", opener=lambda *_: fd) as raw, pinned(raw, "write", data()) as memory:
        transfers = Transfers(Position(raw, status, ours=True))
        written = 0
        while written < memory.length:
            rest = memory.address + written
            written += await transfers.write(rest, memory.length - written, memory.held) or 0
    return written
