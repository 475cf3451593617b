"""Temporary files and directories: what the standard library's `tempfile` has, asynchronous.

- `tempfile` itself makes them and removes them, in a worker thread of Trio's: names, places, flags and
  errors are its own. A file that it has made is nobody else's, and so is read and written as
  one that `open_file` has opened by its name.
- What was made has an owner from then on: whatever becomes of the task, or of its run, it is closed and
  removed at the latest by the garbage collector or the end of the interpreter.
- To leave an ``async with`` closes and removes, also if that is cancelled, in a thread that waits for no
  other. A task that is thrown away, as its run has crashed, can wait for nothing any more
  (GeneratorExit): what it has made is closed and removed at once, by the calling thread. So it is
  in an asynchronous generator that is closed, which gets the same exception.
- In a run on epoll all of this is the same, and threads read and write.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Any, AnyStr, Generic, Literal, TypeVar, overload

import trio
from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from ..loop.checkpoints import checkpoint_at_once
from .async_file import AsyncFile, DataT
from .opening import _over

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed import GenericPath, OpenBinaryMode, OpenBinaryModeUpdating, OpenTextMode, WriteableBuffer
    from typing_extensions import Self

    from .buffered import BufferedReaderFile
    from .raw import RawFile
    from .text import TextFile

    _Name = str | bytes | None
    _Folder = GenericPath[str] | GenericPath[bytes] | None

FileT = TypeVar("FileT", bound=AsyncFile[Any])
MadeT = TypeVar("MadeT")


class TemporaryFile(Generic[FileT]):
    """`tempfile.TemporaryFile`, for ``async with``: a file without a name, which is gone when it is
    closed. Its methods are those of `open_file`'s."""

    @overload
    def __init__(
        self: TemporaryFile[BufferedReaderFile],
        mode: OpenBinaryModeUpdating = "w+b",
        buffering: Literal[-1, 1] = -1,
        encoding: None = None,
        newline: None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        *,
        errors: None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: TemporaryFile[RawFile],
        mode: OpenBinaryMode = "w+b",
        *,
        buffering: Literal[0],
        encoding: None = None,
        newline: None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        errors: None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: TemporaryFile[TextFile],
        mode: OpenTextMode,
        buffering: int = -1,
        encoding: str | None = None,
        newline: str | None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        *,
        errors: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: TemporaryFile[AsyncFile[Any]],
        mode: str,
        buffering: int = -1,
        encoding: str | None = None,
        newline: str | None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        *,
        errors: str | None = None,
    ) -> None: ...
    def __init__(
        self,
        mode: str = "w+b",
        buffering: int = -1,
        encoding: str | None = None,
        newline: str | None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        *,
        errors: str | None = None,
    ) -> None:
        if "b" not in mode:
            encoding = io.text_encoding(encoding)  # type: ignore[attr-defined]  # not in typeshed
        make: Any = tempfile.TemporaryFile
        self._make = partial(make, mode, buffering, encoding, newline, suffix, prefix, dir, errors=errors)
        self._layers = (buffering, newline)
        self._file: Any = None

    @enable_ki_protection
    async def __aenter__(self) -> FileT:
        """Makes the file."""
        made = await trio.to_thread.run_sync(self._make)
        self._file = _over(made, *self._layers, ours=True)
        file: FileT = self._file
        return file

    @enable_ki_protection
    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Closes the file."""
        if kind is GeneratorExit:
            self._file.close_at_once()
        else:
            await self._file.aclose()


class NamedTemporaryFile(Generic[FileT]):
    """`tempfile.NamedTemporaryFile`, for ``async with``: a file that others can open by its ``name``.

    With ``delete`` the name is taken away when the file is closed, or, with ``delete_on_close=False``,
    when the ``async with`` is left; the latter also before Python 3.12, whose `tempfile` has it not.
    """

    @overload
    def __init__(
        self: NamedTemporaryFile[BufferedReaderFile],
        mode: OpenBinaryModeUpdating = "w+b",
        buffering: Literal[-1, 1] = -1,
        encoding: None = None,
        newline: None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        delete: bool = True,
        *,
        errors: None = None,
        delete_on_close: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self: NamedTemporaryFile[RawFile],
        mode: OpenBinaryMode = "w+b",
        *,
        buffering: Literal[0],
        encoding: None = None,
        newline: None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        delete: bool = True,
        errors: None = None,
        delete_on_close: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self: NamedTemporaryFile[TextFile],
        mode: OpenTextMode,
        buffering: int = -1,
        encoding: str | None = None,
        newline: str | None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        delete: bool = True,
        *,
        errors: str | None = None,
        delete_on_close: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self: NamedTemporaryFile[AsyncFile[Any]],
        mode: str,
        buffering: int = -1,
        encoding: str | None = None,
        newline: str | None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        delete: bool = True,
        *,
        errors: str | None = None,
        delete_on_close: bool = True,
    ) -> None: ...
    def __init__(
        self,
        mode: str = "w+b",
        buffering: int = -1,
        encoding: str | None = None,
        newline: str | None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        delete: bool = True,
        *,
        errors: str | None = None,
        delete_on_close: bool = True,
    ) -> None:
        if "b" not in mode:
            encoding = io.text_encoding(encoding)  # type: ignore[attr-defined]  # not in typeshed
        make: Any = tempfile.NamedTemporaryFile
        if sys.version_info >= (3, 12):
            make = partial(make, delete_on_close=delete_on_close)
        arguments = (mode, buffering, encoding, newline, suffix, prefix, dir, delete)
        self._make = partial(make, *arguments, errors=errors)
        self._layers = (buffering, newline)
        self._deletes_on_close = delete and delete_on_close
        self._file: Any = None
        self._deletes = delete
        self._name = _Named(None, deletes=delete)

    @enable_ki_protection
    async def __aenter__(self) -> FileT:
        """Makes the file."""
        made = await trio.to_thread.run_sync(self._make)
        self._name = _Named(made, deletes=self._deletes)
        self._file = _over(made.file, *self._layers, ours=True)
        if hasattr(self._file, "_buffer"):
            self._file._buffer.kept.append(made)
        if self._deletes_on_close:
            self._file._when_closed = self._name.remove
        file: FileT = self._file
        return file

    @enable_ki_protection
    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Closes the file, and takes its name away."""
        if kind is GeneratorExit:
            try:
                self._file.close_at_once()
            finally:
                self._name.remove_now()
            return
        try:
            await self._file.aclose()
        finally:
            await self._name.remove()


class _Named:
    """What `tempfile` has for a file with a name: it takes that away, if it is to be deleted, when it is
    told to, or is garbage itself."""

    def __init__(self, made: Any, *, deletes: bool) -> None:
        self._made = made
        self._deletes = deletes

    async def remove(self) -> None:
        """When the file is closed."""
        if self._made is not None and self._deletes:
            await _surely(self.remove_now)

    def remove_now(self) -> None:
        """Not of a file that is still open, since somebody is in the middle of using it."""
        made = self._made
        if made is not None and self._deletes and made.file.closed:
            self._made = None
            made.__exit__(None, None, None)


class SpooledTemporaryFile(trio.abc.AsyncResource, Generic[DataT]):
    """`tempfile.SpooledTemporaryFile`: a file in memory, and on the disk once it is longer than
    ``max_size``, or `rollover` was called. Every method is a checkpoint.

    It has a descriptor only then: ``fileno``, which would have to wait, moves nothing to the disk. Who
    cannot write there still has the data in memory, after the error.
    """

    @overload
    def __init__(
        self: SpooledTemporaryFile[bytes],
        max_size: int = 0,
        mode: OpenBinaryMode = "w+b",
        buffering: int = -1,
        encoding: None = None,
        newline: None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        *,
        errors: None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: SpooledTemporaryFile[str],
        max_size: int = 0,
        *,
        mode: OpenTextMode,
        buffering: int = -1,
        encoding: str | None = None,
        newline: str | None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        errors: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: SpooledTemporaryFile[str],
        max_size: int,
        mode: OpenTextMode,
        buffering: int = -1,
        encoding: str | None = None,
        newline: str | None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        *,
        errors: str | None = None,
    ) -> None: ...
    def __init__(
        self,
        max_size: int = 0,
        mode: str = "w+b",
        buffering: int = -1,
        encoding: str | None = None,
        newline: str | None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        *,
        errors: str | None = None,
    ) -> None:
        self._bytes = io.BytesIO()
        self._memory: Any = self._bytes
        if "b" not in mode:
            encoding = io.text_encoding(encoding)  # type: ignore[attr-defined]  # not in typeshed
            self._memory = io.TextIOWrapper(self._bytes, encoding, errors, newline)
        make: Any = tempfile.TemporaryFile
        self._make = partial(make, mode, buffering, encoding, newline, suffix, prefix, dir, errors=errors)
        self._layers = (buffering, newline)
        self._mode = mode
        self._max_size = max_size
        self._moving = trio.Lock()
        self._file: AsyncFile[Any] | None = None
        """On the disk."""

    # What is known at once

    @property
    def _now(self) -> Any:
        return self._memory if self._file is None else self._file

    @property
    def closed(self) -> bool:
        return bool(self._now.closed)

    @property
    def encoding(self) -> str:
        return str(self._now.encoding)

    @property
    def errors(self) -> str | None:
        errors: str | None = self._now.errors
        return errors

    @property
    def newlines(self) -> str | tuple[str, ...] | None:
        newlines: str | tuple[str, ...] | None = self._now.newlines
        return newlines

    @property
    def mode(self) -> str:
        return self._mode if self._file is None else self._file.mode

    @property
    def name(self) -> Any:
        """The descriptor; None in memory."""
        return None if self._file is None else self._file.name

    def fileno(self) -> int:
        """The descriptor, as of `open_file`'s.

        Raises:
          io.UnsupportedOperation: it is in memory.
        """
        return int(self._now.fileno())

    def isatty(self) -> bool:
        return bool(self._now.isatty())

    def readable(self) -> bool:
        return bool(self._now.readable())

    def seekable(self) -> bool:
        return bool(self._now.seekable())

    def writable(self) -> bool:
        return bool(self._now.writable())

    # Calls

    async def read(self, size: int | None = -1, /) -> DataT:
        data: DataT = await self._call("read", size)
        return data

    async def read1(self, size: int = -1, /) -> bytes:
        data: bytes = await self._call("read1", size)
        return data

    async def readinto(self, buffer: WriteableBuffer, /) -> int:
        return int(await self._call("readinto", buffer))

    async def readinto1(self, buffer: WriteableBuffer, /) -> int:
        return int(await self._call("readinto1", buffer))

    async def readline(self, size: int | None = -1, /) -> DataT:
        line: DataT = await self._call("readline", size)
        return line

    async def readlines(self, hint: int | None = -1, /) -> list[DataT]:
        lines: list[DataT] = await self._call("readlines", hint)
        return lines

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> DataT:
        line = await self.readline()
        if line:
            return line
        raise StopAsyncIteration

    async def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return int(await self._call("seek", offset, whence))

    async def tell(self) -> int:
        return int(await self._call("tell"))

    async def flush(self) -> None:
        await self._call("flush")

    async def truncate(self, size: int | None = None, /) -> int:
        if size is not None and size > self._max_size:
            await self.rollover()
        return int(await self._call("truncate", size))

    async def write(self, data: Any, /) -> int:
        written = int(await self._call("write", data))
        await self._move_what_is_long()
        return written

    async def writelines(self, lines: Iterable[Any], /) -> None:
        await self._call("writelines", lines)
        await self._move_what_is_long()

    async def rollover(self) -> None:
        """Moves it to the disk, if it is not there yet."""
        await checkpoint_at_once()
        async with self._moving:
            await self._move()

    async def aclose(self) -> None:
        """Closes it, after it has been moved if it is being moved; it is gone then."""
        if self._moving.locked():
            with trio.CancelScope(shield=True):
                async with self._moving:
                    pass
        if self._file is not None:
            await self._file.aclose()
        else:
            self._memory.close()
            await checkpoint_at_once()

    async def _call(self, name: str, *arguments: Any) -> Any:
        if self._file is None:
            await checkpoint_at_once()
            if self._moving.locked():
                async with self._moving:
                    pass
        if self._file is None:
            return getattr(self._memory, name)(*arguments)
        return await getattr(self._file, name)(*arguments)

    async def _move_what_is_long(self) -> None:
        """After a write, which has happened: so it is not cancelled any more."""
        if self._file is None and self._max_size and self._memory.tell() > self._max_size:
            with trio.CancelScope(shield=True):
                async with self._moving:
                    await self._move()

    @enable_ki_protection
    async def _move(self) -> None:
        if self._file is not None:
            return
        position = self._memory.tell()
        self._memory.flush()
        with trio.CancelScope(shield=True):
            made = await trio.to_thread.run_sync(
                _made_with, self._make, self._bytes.getvalue(), limiter=_own()
            )
            file = _over(made, *self._layers, ours=True)
            await file.seek(position)
        self._file = file
        self._memory.close()


def _made_with(make: Callable[[], Any], data: bytes) -> Any:
    """For a thread: a file of the standard library's that has written nothing itself."""
    made = make()
    try:
        done = 0
        while done < len(data):
            done += os.pwrite(made.fileno(), data[done:], done)
    except BaseException:
        made.close()
        raise
    return made


class TemporaryDirectory(Generic[AnyStr]):
    """`tempfile.TemporaryDirectory`, for ``async with``, which gives its name.

    ``delete=False`` keeps it, also before Python 3.12, whose `tempfile` has it not.
    """

    name: AnyStr
    """Once it is made."""

    @overload
    def __init__(
        self: TemporaryDirectory[str],
        suffix: str | None = None,
        prefix: str | None = None,
        dir: GenericPath[str] | None = None,
        ignore_cleanup_errors: bool = False,
        *,
        delete: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self: TemporaryDirectory[bytes],
        suffix: bytes | None = None,
        prefix: bytes | None = None,
        dir: GenericPath[bytes] | None = None,
        ignore_cleanup_errors: bool = False,
        *,
        delete: bool = True,
    ) -> None: ...
    def __init__(
        self,
        suffix: Any = None,
        prefix: Any = None,
        dir: Any = None,
        ignore_cleanup_errors: bool = False,
        *,
        delete: bool = True,
    ) -> None:
        make: Any = tempfile.TemporaryDirectory
        if sys.version_info >= (3, 12):
            make = partial(make, delete=delete)
        self._make = partial(make, suffix, prefix, dir, ignore_cleanup_errors)
        self._deletes = delete
        self._directory: Any = None

    @enable_ki_protection
    async def __aenter__(self) -> AnyStr:
        """Makes the directory; its name."""
        directory = await trio.to_thread.run_sync(self._make)
        if sys.version_info < (3, 12) and not self._deletes:
            directory._finalizer.detach()
        self._directory = directory
        self.name = directory.name
        return self.name

    @enable_ki_protection
    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Removes the directory, with all that is in it."""
        if self._deletes and kind is GeneratorExit:
            self._directory.cleanup()
        elif self._deletes:
            await _surely(self._directory.cleanup)

    @enable_ki_protection
    async def cleanup(self) -> None:
        """Removes the directory now, with all that is in it. Cancelled, it is gone all the same."""
        await _surely(self._directory.cleanup)
        await checkpoint_if_cancelled()


@overload
async def mkstemp(
    suffix: str | None = None,
    prefix: str | None = None,
    dir: GenericPath[str] | None = None,
    text: bool = False,
) -> tuple[int, str]: ...
@overload
async def mkstemp(
    suffix: bytes | None = None,
    prefix: bytes | None = None,
    dir: GenericPath[bytes] | None = None,
    text: bool = False,
) -> tuple[int, bytes]: ...
@enable_ki_protection
async def mkstemp(suffix: Any = None, prefix: Any = None, dir: Any = None, text: bool = False) -> Any:
    """`tempfile.mkstemp`: descriptor and name of a new file, both for the caller to clean up."""
    return await _made_for_caller(partial(tempfile.mkstemp, suffix, prefix, dir, text), _discard_file)


@overload
async def mkdtemp(
    suffix: str | None = None, prefix: str | None = None, dir: GenericPath[str] | None = None
) -> str: ...
@overload
async def mkdtemp(
    suffix: bytes | None = None, prefix: bytes | None = None, dir: GenericPath[bytes] | None = None
) -> bytes: ...
@enable_ki_protection
async def mkdtemp(suffix: Any = None, prefix: Any = None, dir: Any = None) -> Any:
    """`tempfile.mkdtemp`: the name of a new directory, for the caller to remove."""
    return await _made_for_caller(partial(tempfile.mkdtemp, suffix, prefix, dir), os.rmdir)


async def gettempdir() -> str:
    """`tempfile.gettempdir`, which looks for a directory that it can write to when it is first asked."""
    return await trio.to_thread.run_sync(tempfile.gettempdir)


async def gettempdirb() -> bytes:
    """`tempfile.gettempdirb`. As `gettempdir`."""
    return await trio.to_thread.run_sync(tempfile.gettempdirb)


async def _made_for_caller(make: Callable[[], MadeT], discard: Callable[[MadeT], object]) -> MadeT:
    new = _Unclaimed(make, discard)
    await trio.to_thread.run_sync(new.make)
    return new.claim()


class _Unclaimed(Generic[MadeT]):
    """What a thread makes for a task, and discards if that is gone."""

    def __init__(self, make: Callable[[], MadeT], discard: Callable[[MadeT], object]) -> None:
        self._make = make
        self._discard = discard
        self._made: list[MadeT] = []

    def make(self) -> None:
        self._made.append(self._make())

    def claim(self) -> MadeT:
        return self._made.pop()

    def __del__(self) -> None:
        for made in self._made:
            self._discard(made)


def _discard_file(made: tuple[int, str | bytes]) -> None:
    fd, name = made
    os.close(fd)
    os.unlink(name)


def _own() -> trio.CapacityLimiter:
    """Of a thread that waits for no other: those that others have may be blocked for as long as they like."""
    return trio.CapacityLimiter(1)


async def _surely(clean_up: Callable[[], object]) -> None:
    """Also after a Ctrl-C that nobody has been told of yet: Trio raises it before it starts the thread."""
    try:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(clean_up, limiter=_own())
    except KeyboardInterrupt:
        await _surely(clean_up)
        raise
