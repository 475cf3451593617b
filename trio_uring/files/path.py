"""`Path` is `trio.Path`, but the kernel does what it has operations for.

- Methods that are not defined here are inherited, and use Trio's threads: absolute, chmod, cwd, expanduser,
  full_match, group, home, is_junction, is_mount, lchmod, owner, readlink, resolve. The methods that read
  directories use threads too: glob, iterdir, rglob, walk.
- In a run on epoll all methods use threads. So does a method whose operation the kernel is too old for;
  each docstring names the version of Linux that brought it.
- Errors, results and the order of events are pathlib's: a name that cannot be opened is reported before a
  bad encoding, and text that cannot be encoded leaves an empty file.
- Arguments that later Pythons gave to pathlib's methods are accepted in all versions.
- Each method is a checkpoint. One that is cancelled has happened, or not, or, if it takes several steps, in
  part. In any case it has closed its descriptor, in the caller's thread: if the ring closed it, the file
  could still be open for writing when somebody executes it.
- The caller's thread looks at what the kernel has cached of a name, and of a small file. It does not wait
  (lowlevel/names.py).
- The caller's thread asks for the size of a file that was opened, as builtin `open` does. Whatever the
  size, the file is read until it ends. Threads read it on a file system that the ring is not for
  (`open_file` says which).
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
from ..loop.checkpoints import go_on, pass_cancel_point
from ..loop.current import current_run
from ..loop.trio_internals import context
from ..lowlevel.arguments import name_of
from ..lowlevel.file_systems import is_measured
from ..lowlevel.names import read_whole_at_once
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

    It compares and hashes as `trio.Path` and `pathlib.Path` do. Paths that are made of it, by ``/``,
    ``parent`` or ``rename``, are of this class too.
    """

    __slots__ = ()

    # Trio's methods make such a path of this one, in their threads.
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
        """Opens the file as `pathlib.Path.open` does, by `trio_uring.open_file`, also in a run on epoll.
        Linux 5.6."""
        if "b" not in mode:
            encoding = io.text_encoding(encoding)  # type: ignore[attr-defined]  # not in typeshed
        return await open_file(self, mode, buffering, encoding, errors, newline)

    @enable_ki_protection  # or Ctrl-C could come between an open and its close
    async def read_bytes(self) -> bytes:
        """Reads the file as `pathlib.Path.read_bytes` does. Linux 5.6.

        If the kernel has cached the name and all of the file, the caller's thread opens, reads and closes
        it in one step.
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
        """Reads the file as `pathlib.Path.read_text` does. Linux 5.6. The caller's thread decodes it."""
        encoding = io.text_encoding(encoding)  # type: ignore[attr-defined]  # not in typeshed
        _check_text_arguments(encoding, errors, newline)
        data = await self.read_bytes()
        return io.TextIOWrapper(io.BytesIO(data), encoding, errors, newline).read()

    async def write_bytes(self, data: ReadableBuffer) -> int:
        """Writes the file as `pathlib.Path.write_bytes` does, and returns the number of bytes. Linux 5.6.

        If it is cancelled after it has opened the file, that is empty or has a part of ``data``.
        """
        run = current_run()
        if run is None:
            return await super().write_bytes(data)
        view = data if type(data) is bytes else memoryview(data)
        return await _write_new(run, self, lambda: view)

    async def write_text(
        self,
        data: str,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> int:
        """Writes the file as `pathlib.Path.write_text` does, and returns the number of characters. Linux 5.6.

        The caller's thread encodes the text. If it is cancelled after it has opened the file, that is empty
        or has a part of the text.
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
        """Returns what `pathlib.Path.stat` returns. Linux 5.6."""
        if current_run() is None:
            return await super().stat(follow_symlinks=follow_symlinks)
        return await lowlevel.statx(self, follow_symlinks=follow_symlinks)

    async def lstat(self) -> os.stat_result:
        """Returns what `pathlib.Path.lstat` returns: a symbolic link is not followed. Linux 5.6."""
        return await self.stat(follow_symlinks=False)

    async def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Answers as `pathlib.Path.exists` does. Linux 5.6."""
        return await self._is(lambda mode: True, follow_symlinks=follow_symlinks)

    async def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Answers as `pathlib.Path.is_dir` does. Linux 5.6."""
        return await self._is(stat.S_ISDIR, follow_symlinks=follow_symlinks)

    async def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Answers as `pathlib.Path.is_file` does. Linux 5.6."""
        return await self._is(stat.S_ISREG, follow_symlinks=follow_symlinks)

    async def is_symlink(self) -> bool:
        """Answers as `pathlib.Path.is_symlink` does. Linux 5.6."""
        return await self._is(stat.S_ISLNK, follow_symlinks=False)

    async def is_socket(self) -> bool:
        """Answers as `pathlib.Path.is_socket` does. Linux 5.6."""
        return await self._is(stat.S_ISSOCK)

    async def is_fifo(self) -> bool:
        """Answers as `pathlib.Path.is_fifo` does. Linux 5.6."""
        return await self._is(stat.S_ISFIFO)

    async def is_block_device(self) -> bool:
        """Answers as `pathlib.Path.is_block_device` does. Linux 5.6."""
        return await self._is(stat.S_ISBLK)

    async def is_char_device(self) -> bool:
        """Answers as `pathlib.Path.is_char_device` does. Linux 5.6."""
        return await self._is(stat.S_ISCHR)

    async def samefile(self, other_path: StrPath) -> bool:
        """Answers as `pathlib.Path.samefile` does. ``other_path`` may also be a `Path`. Linux 5.6."""
        mine = await self.stat()
        return os.path.samestat(mine, await type(self)(other_path).stat())

    async def _is(self, is_kind: Callable[[int], bool], *, follow_symlinks: bool = True) -> bool:
        """Whether something is there whose mode ``is_kind`` accepts. Before Python 3.14 errors other than
        `_NOTHING_THERE` are raised, as by pathlib."""
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
        """Finds the paths that `pathlib.Path.iterdir` finds. Await it, as with `trio.Path`, for an iterator
        of all of them, or read it by ``async for``."""
        return Listing(type(self), entries(str(self)))

    def glob(self, pattern: str, **options: bool | None) -> Listing[Self]:
        """Finds the paths that `pathlib.Path.glob` finds, with the options that it has in this Python. Await
        it, or read it by ``async for``, as `iterdir`."""
        return Listing(type(self), matches(partial(self._wrapped_cls(self).glob, pattern, **options)))

    def rglob(self, pattern: str, **options: bool | None) -> Listing[Self]:
        """Finds the paths that `pathlib.Path.rglob` finds, with the options that it has in this Python. Await
        it, or read it by ``async for``, as `iterdir`."""
        return Listing(type(self), matches(partial(self._wrapped_cls(self).rglob, pattern, **options)))

    def walk(
        self,
        top_down: bool = True,
        on_error: Callable[[OSError], object] | None = None,
        follow_symlinks: bool = False,
    ) -> Walk[Self]:
        """Walks as `pathlib.Path.walk` does, also before Python 3.12, where pathlib has none. Read it by
        ``async for``.

        ``on_error`` is called in the task that reads. Directories without subdirectories may be read in
        advance, 4,096 entries at most: what changes in them meanwhile is not seen.
        """
        return Walk(self, top_down, on_error, follow_symlinks)

    # Names

    async def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        """Makes the file, or sets its times, as `pathlib.Path.touch` does. Linux 5.6.

        The kernel has no operation that sets times. So Trio's threads do it, if the file exists.
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
        """Removes the file as `pathlib.Path.unlink` does. Linux 5.11."""
        if not _kernel_has("unlinkat"):
            return await super().unlink(missing_ok)
        try:
            await lowlevel.unlinkat(self)
        except FileNotFoundError:
            if not missing_ok:
                raise

    async def rmdir(self) -> None:
        """Removes the directory as `pathlib.Path.rmdir` does. Linux 5.11."""
        if _kernel_has("unlinkat"):
            await lowlevel.unlinkat(self, directory=True)
        else:
            await super().rmdir()

    async def rename(self, target: StrPath) -> Self:
        """Renames the file as `pathlib.Path.rename` does, and returns the new path. Linux 5.11."""
        if not _kernel_has("renameat"):
            return await super().rename(target)
        await lowlevel.renameat(self, target)
        return type(self)(target)

    async def replace(self, target: StrPath) -> Self:
        """Renames the file as `pathlib.Path.replace` does, and returns the new path. Linux 5.11."""
        return await self.rename(target)

    async def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Makes the directory as `pathlib.Path.mkdir` does. Linux 5.15."""
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
        """Makes a symbolic link as `pathlib.Path.symlink_to` does. Linux 5.15."""
        if _kernel_has("symlinkat"):
            await lowlevel.symlinkat(target, self)
        else:
            await super().symlink_to(target, target_is_directory)

    async def hardlink_to(self, target: StrOrBytesPath) -> None:
        """Makes a hard link as `pathlib.Path.hardlink_to` does. Linux 5.15.

        If ``target`` is a symbolic link, the hard link is to that itself before Python 3.14, and to what it
        points to from then on.
        """
        if _kernel_has("linkat"):
            await lowlevel.linkat(target, self, follow_symlinks=sys.version_info >= (3, 14))
        else:
            await super().hardlink_to(target)

    if sys.version_info < (3, 12):

        async def link_to(self, target: StrOrBytesPath) -> None:
            """Makes a hard link as `pathlib.Path.link_to` does, which Python 3.12 has removed. Linux 5.15."""
            warnings.warn("link_to() is deprecated, see hardlink_to()", DeprecationWarning, stacklevel=2)
            if _kernel_has("linkat"):
                await lowlevel.linkat(self, target)
            else:
                await super().link_to(target)


_READ_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC
_NOTHING_THERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP)
"""The errors that say that nothing is there."""


def _kernel_has(operation: str) -> bool:
    """Whether the caller's run can make this operation: it is on io_uring, and the kernel is new enough."""
    return current_run() is not None and features.has_operation(operation)


def _check_text_arguments(encoding: str | None, errors: str | None, newline: str | None) -> None:
    """Raises TypeError for an argument that is neither str nor None, as builtin `open` does before it opens
    anything."""
    for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
        if not isinstance(value, (str, type(None))):
            raise TypeError(f"open() argument {name!r} must be str or None, not {type(value).__name__}")


@enable_ki_protection  # or Ctrl-C could come between an open and its close
async def _write_new(run: Run, path: Path, data: Callable[[], ReadableBuffer]) -> int:
    """Makes or empties the file, then calls ``data`` and writes all that it returns. Returns the number of
    bytes."""
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
