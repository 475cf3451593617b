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
import sys
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Any, AnyStr, Generic, Literal, TypeVar, overload

import trio
from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from .async_file import AsyncFile
from .opening import over

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import GenericPath, OpenBinaryMode, OpenBinaryModeUpdating, OpenTextMode

    from .buffered import BufferedReaderFile
    from .raw import RawFile
    from .text import TextFile

    _Name = str | bytes | None
    _Folder = GenericPath[str] | GenericPath[bytes] | None

FileT = TypeVar("FileT", bound=AsyncFile[Any])


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
        self._file = over(made, *self._layers, ours=True)
        file: FileT = self._file
        return file

    @enable_ki_protection
    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Closes the file."""
        if kind is GeneratorExit:
            self._file._close_at_once()
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
        self._file = over(made.file, *self._layers, ours=True)
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
                self._file._close_at_once()
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
            await surely(self.remove_now)

    def remove_now(self) -> None:
        """Not of a file that is still open, since somebody is in the middle of using it."""
        made = self._made
        if made is not None and self._deletes and made.file.closed:
            self._made = None
            made.__exit__(None, None, None)


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
            await surely(self._directory.cleanup)

    @enable_ki_protection
    async def cleanup(self) -> None:
        """Removes the directory now, with all that is in it. Cancelled, it is gone all the same."""
        await surely(self._directory.cleanup)
        await checkpoint_if_cancelled()


def thread_of_its_own() -> trio.CapacityLimiter:
    """The limit of a thread that waits for no other: those may be blocked for as long as they like."""
    return trio.CapacityLimiter(1)


async def surely(clean_up: Callable[[], object]) -> None:
    """Cleans up in a thread, whatever is cancelled; also after a Ctrl-C that nobody has been told of yet,
    which Trio raises before it starts the thread."""
    try:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(clean_up, limiter=thread_of_its_own())
    except KeyboardInterrupt:
        await surely(clean_up)
        raise
