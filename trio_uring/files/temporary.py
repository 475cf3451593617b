"""Temporary files and directories, as the standard library's `tempfile` has them, for tasks.

- `tempfile` itself makes and removes them, in a worker thread of Trio's. So names, places, flags and errors
  are its own. Nobody else has the file that it makes. So the file is read and written as one that
  `open_file` has opened by its name.
- Whatever becomes of the task or of its run, what was made is closed and removed, at the latest by the
  garbage collector or at the end of the interpreter.
- Leaving the ``async with`` closes and removes it, even if the task is cancelled, in a thread that waits for
  no other thread. A task that is thrown away because its run has crashed gets GeneratorExit, and cannot
  wait any more. So the calling thread then closes and removes at once. An asynchronous generator that is
  closed gets the same exception, and the same is done.
- All of this holds in a run on epoll too, where threads read and write.
"""

from __future__ import annotations

import io
import sys
import tempfile
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, AnyStr, Generic, Literal, TypeVar, overload

import trio
from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from .async_file import AsyncFile
from .opening import over
from .over_buffer import OverBuffer

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
    """Makes a file as `tempfile.TemporaryFile` does, for an ``async with``.

    The file has no name, and is gone when it is closed. Its methods are those of a file of `open_file`.
    """

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
    """Makes a file as `tempfile.NamedTemporaryFile` does, for an ``async with``.

    Others can open the file by its ``name``. With ``delete`` the name is removed when the file is closed, or,
    with ``delete_on_close=False``, when the ``async with`` is left. ``delete_on_close`` is accepted before
    Python 3.12 too, where `tempfile` does not have it.
    """

    _name: _Named
    """The name of the file. It is set when the file is made."""

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
        self._deletes = delete
        self._file: Any = None

    @enable_ki_protection
    async def __aenter__(self) -> FileT:
        """Makes the file."""
        made = await trio.to_thread.run_sync(self._make)
        self._name = _Named(made, deletes=self._deletes)
        self._file = over(made.file, *self._layers, ours=True)
        if isinstance(self._file, OverBuffer):
            self._file._buffer.kept.append(made)
        if self._deletes_on_close:
            self._file._when_closed = self._name.remove
        file: FileT = self._file
        return file

    @enable_ki_protection
    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Closes the file, and removes its name, if that is to be deleted."""
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
    """The name of a temporary file: what `tempfile` has ``made``, which removes the name when it is told to,
    or when it is garbage itself."""

    def __init__(self, made: Any, *, deletes: bool) -> None:
        self._made = made
        self._deletes = deletes
        self._removing = threading.Lock()
        """Held while the name is removed. Who comes second returns when the name is gone."""

    async def remove(self) -> None:
        """Removes the name in a thread, if it is to be deleted. Called by a task when the file is closed."""
        if self._made is not None and self._deletes:
            await surely(self.remove_now)

    def remove_now(self) -> None:
        """Removes the name, if it is to be deleted, in the calling thread. The name of a file that is still
        open stays, since somebody is in the middle of using it."""
        with self._removing:
            made = self._made
            if made is not None and self._deletes and made.file.closed:
                try:
                    made.__exit__(None, None, None)
                finally:
                    self._made = None


class TemporaryDirectory(Generic[AnyStr]):
    """Makes a directory as `tempfile.TemporaryDirectory` does, for an ``async with``.

    The ``async with`` gives the directory's name. ``delete=False`` keeps the directory, also before Python
    3.12, where `tempfile` does not have it.
    """

    name: AnyStr
    """The name of the directory. It is set when the directory is made."""

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
        """Makes the directory, and returns its name."""
        directory = await trio.to_thread.run_sync(self._make)
        if sys.version_info < (3, 12) and not self._deletes:
            directory._finalizer.detach()
        self._directory = directory
        self.name = directory.name
        return self.name

    @enable_ki_protection
    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Removes the directory and all that is in it, unless ``delete`` is false."""
        if self._deletes and kind is GeneratorExit:
            self._directory.cleanup()
        elif self._deletes:
            await surely(self._directory.cleanup)

    @enable_ki_protection
    async def cleanup(self) -> None:
        """Removes the directory and all that is in it, now. Even a call that is cancelled has done so."""
        await surely(self._directory.cleanup)
        await checkpoint_if_cancelled()


def thread_of_its_own() -> trio.CapacityLimiter:
    """Returns a limiter for one thread. So that thread waits for no other: the threads of Trio's own limiter
    may all be blocked, for any time."""
    return trio.CapacityLimiter(1)


async def surely(clean_up: Callable[[], object]) -> None:
    """Calls ``clean_up`` in a thread, even if the task is cancelled.

    If a Ctrl-C is pending, Trio raises KeyboardInterrupt before it starts the thread. Then this still cleans
    up, and raises it afterwards."""
    try:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(clean_up, limiter=thread_of_its_own())
    except KeyboardInterrupt:
        await surely(clean_up)
        raise
