"""What is in directories: `Path.iterdir`, `glob`, `rglob` and `walk`.

- The ring has no operation for it, so worker threads of Trio's read it: many entries for each
  call, and no thread waits between two calls.
- A call ends after 4,096 entries or 10 ms, and where more is wanted there is another one. So
  much is in memory at once, and between two calls a cancellation ends it. But `glob` and `rglob`
  are pathlib's own, and do not stop on the way to their next match.
- What a call has brought is there for who asks next, if the task that asked was cancelled meanwhile.
- A directory with more entries than one call reads is open until the rest is read, or its
  iterator is closed or forgotten.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Coroutine
from functools import partial
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import trio

from ..loop.checkpoints import checkpoint_at_once

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Generator, Iterable, Iterator

    from typing_extensions import Self

_MOST: Final = 4096
"""Entries that one call of a thread reads."""
_LONG: Final = 10e-3
"""Seconds, after which it reads no further."""
_BETWEEN_LOOKS: Final = 16
"""Entries from one look at the clock to the next."""

_SAYS_HERE: Final = sys.version_info >= (3, 13)
"""Whether the errors of pathlib's walk through the current directory have names that begin with it."""

PathT = TypeVar("PathT", bound=trio.Path)


class Listing(Coroutine[Any, Any, "Iterator[PathT]"], Generic[PathT]):
    """The paths that `Path.iterdir`, `Path.glob` or `Path.rglob` finds.

    Awaited, as `trio.Path`'s are, it is an iterator of all of them. ``async for`` reads them as they
    are asked for, each of which is a checkpoint: so a directory of any size takes little memory.
    Each path comes once, whichever way it is asked for. What makes a task of an asynchronous function,
    as `trio.run` and `trio.from_thread.run`, takes it as the coroutine of one.
    """

    def __init__(self, kind: type[PathT], texts: Generator[str, None, None]) -> None:
        self._kind = kind
        self._unread = texts
        self._read: deque[str] = deque()
        self._error: Exception | None = None
        """What has ended the reading, which is raised where it was met."""
        self._is_at_end = False
        self._is_reading = False
        self._sent_to: Coroutine[Any, Any, Iterator[PathT]] | None = None
        """What has been made of it by `send` or `throw`."""

    def __await__(self) -> Generator[Any, Any, Iterator[PathT]]:
        return self._read_all().__await__()

    def send(self, value: Any) -> Any:
        return self._coroutine().send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine().throw(*error)

    def close(self) -> None:
        if self._sent_to is not None:
            self._sent_to.close()

    def _coroutine(self) -> Coroutine[Any, Any, Iterator[PathT]]:
        if self._sent_to is None:
            self._sent_to = self._read_all()
        return self._sent_to

    async def _read_all(self) -> Iterator[PathT]:
        if self._is_at_end:
            await trio.lowlevel.checkpoint()
        while not self._is_at_end:
            await self._read_on()
        if self._error is not None:
            self._read.clear()
            raise self._taken_error()
        read, self._read = self._read, deque()
        return map(partial(_path, self._kind), read)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PathT:
        if self._read or self._is_at_end:
            await checkpoint_at_once()
        while not self._read:
            if self._error is not None:
                raise self._taken_error()
            if self._is_at_end:
                raise StopAsyncIteration
            await self._read_on()
        return _path(self._kind, self._read.popleft())

    async def aclose(self) -> None:
        """Closes the directory that is open, if one is; then there are no more paths."""
        if self._is_reading:
            raise _busy()
        self._is_at_end = True
        self._error = None
        self._read.clear()
        self._unread.close()
        await trio.lowlevel.checkpoint()

    async def _read_on(self) -> None:
        if self._is_reading:
            raise _busy()
        self._is_reading = True
        try:
            await trio.to_thread.run_sync(self._read_some)
        finally:
            self._is_reading = False

    def _read_some(self) -> None:
        """For a thread."""
        until = monotonic() + _LONG
        read = self._read
        enough = len(read) + _MOST
        try:
            while not self._is_at_end:
                wanted = len(read) + _BETWEEN_LOOKS
                read.extend(islice(self._unread, _BETWEEN_LOOKS))
                self._is_at_end = len(read) < wanted
                if len(read) >= enough or monotonic() > until:
                    return
        except Exception as error:
            self._error = error
            self._is_at_end = True

    def _taken_error(self) -> Exception:
        error, self._error = self._error, None
        assert error is not None
        return error


def _path(kind: type[PathT], text: str) -> PathT:
    path = kind(text)
    path._str = text  # type: ignore[attr-defined]  # or it would be put together of its parts
    return path


def _busy() -> trio.BusyResourceError:
    return trio.BusyResourceError("another task is reading the directory")


def entries(directory: str) -> Generator[str, None, None]:
    """The paths of what is in it. To be run by a thread, as `matches`."""
    prefix = "" if directory == "." else directory if directory.endswith("/") else f"{directory}/"
    with os.scandir(directory) as found:
        for entry in found:
            yield prefix + entry.name


def matches(find: Callable[[], Iterable[pathlib.Path]]) -> Generator[str, None, None]:
    yield from map(str, find())


class Walk(Generic[PathT]):
    """What `Path.walk` returns: an asynchronous iterator, whose every step is a checkpoint.

    Its ``aclose`` is for who breaks off and goes on holding it.
    """

    def __init__(
        self, path: PathT, top_down: bool, on_error: Callable[[OSError], object] | None, follow_symlinks: bool
    ) -> None:
        self._kind = type(path)
        self._is_top_down = top_down
        self._on_error = on_error
        self._follows = follow_symlinks
        self._stack = [_Directory(str(path))]
        """Those to come, the next one last."""
        self._given: _Directory | None = None
        """Whose subdirectories are to come once the caller, who may change the list, asks for more."""
        self._is_reading = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[PathT, list[str], list[str]]:
        if self._is_reading:
            raise _busy()
        stack = self._stack
        if self._given is not None:
            stack += self._given.subdirectories()
            self._given = None
        if not stack or stack[-1].is_read:
            await checkpoint_at_once()
        while stack:
            directory = stack[-1]
            if not directory.is_read:
                await self._read_on()
                continue
            stack.pop()
            if directory.error is not None:
                self._report(directory.error)
            elif self._is_top_down:
                self._given = directory
                return self._kind(directory.path), directory.names, directory.other_names
            elif directory.is_left:
                return self._kind(directory.path), directory.names, directory.other_names
            else:
                directory.is_left = True
                stack += [directory, *directory.subdirectories()]
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Closes the directory that is open, if one is; then there is nothing more to come."""
        if self._is_reading:
            raise _busy()
        self._end()
        await trio.lowlevel.checkpoint()

    def _end(self) -> None:
        self._stack.clear()
        self._given = None

    def _report(self, error: OSError) -> None:
        if self._on_error is not None:
            try:
                self._on_error(error)
            except BaseException:
                self._end()
                raise

    async def _read_on(self) -> None:
        self._is_reading = True
        try:
            await trio.to_thread.run_sync(self._read_some)
        finally:
            self._is_reading = False

    def _read_some(self) -> None:
        """For a thread: those on top of the stack, up to the first that has subdirectories, which
        come before the next."""
        until = monotonic() + _LONG
        left = _MOST
        for directory in reversed(self._stack):
            if directory.is_read:
                return
            left = directory.read(left, until, follow_symlinks=self._follows)
            if left <= 0 or directory.names or monotonic() > until:
                return


class _Directory:
    __slots__ = ("_unread", "error", "is_left", "is_read", "names", "other_names", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.names: list[str] = []
        """Of its subdirectories."""
        self.other_names: list[str] = []
        self.error: OSError | None = None
        """It could not be read."""
        self.is_read = False
        self.is_left = False
        """Its subdirectories have had their turn, as they have before it in a walk from the bottom up."""
        self._unread: Generator[os.DirEntry[str], None, None] | None = None

    def subdirectories(self) -> list[_Directory]:
        """The last one first."""
        base = "" if self.path == "." and not _SAYS_HERE else self.path
        return [_Directory(os.path.join(base, name)) for name in reversed(self.names)]

    def read(self, most: int, until: float, *, follow_symlinks: bool) -> int:
        """For a thread. Stops after ``most`` entries, or when the clock says ``until``. Returns how
        many fewer than ``most`` it has read; 0 if there are more."""
        if self._unread is None:
            self._unread = _scanned(self.path)
        try:
            for entry in self._unread:
                try:
                    is_directory = entry.is_dir(follow_symlinks=follow_symlinks)
                except OSError:
                    is_directory = False
                (self.names if is_directory else self.other_names).append(entry.name)
                most -= 1
                if most <= 0 or (not most % _BETWEEN_LOOKS and monotonic() > until):
                    return 0
        except OSError as error:
            self.error = error
        self.is_read = True
        self._unread = None
        return most


def _scanned(path: str) -> Generator[os.DirEntry[str], None, None]:
    """Closes the directory also when it is forgotten."""
    with os.scandir(path) as found:
        yield from found
