"""How directories are read: `Path.iterdir`, `glob`, `rglob` and `walk`.

- The ring has no operation that reads a directory. So worker threads of Trio's do it. Each call of a
  thread reads many entries, and no thread waits between two calls.
- A call ends after 4,096 entries or 10 ms, and there is another one if more is wanted. So no more entries
  than that are in memory at once, and a cancellation takes effect between two calls. But the searches of
  `glob` and `rglob` are pathlib's own, and do not stop on the way to their next match.
- If the task that asked is cancelled during a call, what the call brings is kept for whoever asks next.
- A directory with more entries than one call reads is open until the rest is read, or until its iterator is
  closed or garbage.
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
"""How many entries one call of a thread reads at most."""
_LONG: Final = 10e-3
"""After how many seconds a call reads no further."""
_BETWEEN_LOOKS: Final = 16
"""How many entries are read from one look at the clock to the next."""

_SAYS_HERE: Final = sys.version_info >= (3, 13)
"""Whether the names in the errors of pathlib's walk through the current directory begin with ``./``."""

PathT = TypeVar("PathT", bound=trio.Path)


class _Reading:
    """Reads directories in calls of worker threads: one call at a time, for one task at a time."""

    def __init__(self) -> None:
        self._is_reading = False
        """Whether a task has a thread read; in a walk, whether a task is in the middle of a step."""

    def __aiter__(self) -> Self:
        return self

    async def aclose(self) -> None:
        """Closes the directory that is open, if one is. Nothing comes any more then."""
        self._check_not_reading()
        self._end()
        await trio.lowlevel.checkpoint()

    def _check_not_reading(self) -> None:
        if self._is_reading:
            raise trio.BusyResourceError("another task is reading the directory")

    def _read_some(self) -> None:
        """Reads what one call of a thread may read. Called in a worker thread."""
        raise NotImplementedError

    def _end(self) -> None:
        """Forgets what was read, and reads no further."""
        raise NotImplementedError


class Listing(_Reading, Coroutine[Any, Any, "Iterator[PathT]"], Generic[PathT]):
    """The paths that `Path.iterdir`, `Path.glob` or `Path.rglob` finds.

    Awaiting it, as with `trio.Path`, gives an iterator of all paths. ``async for`` reads the paths as they
    are asked for: each step is a checkpoint, and a directory of any size takes little memory. Each path
    comes once, whichever way it is asked for.

    It is also a coroutine. So `trio.run`, `trio.from_thread.run` and others that make a task of an
    asynchronous function accept the methods that return it.
    """

    def __init__(self, kind: type[PathT], texts: Generator[str, None, None]) -> None:
        super().__init__()
        self._kind = kind
        self._unread = texts
        """Finds the paths. Only worker threads advance it."""
        self._read: deque[str] = deque()
        """The paths that were read, and that nobody has asked for yet."""
        self._error: Exception | None = None
        """The error that has ended the reading, until it is raised."""
        self._is_at_end = False
        self._sent_to: Coroutine[Any, Any, Iterator[PathT]] | None = None
        """The coroutine that `send` and `throw` run. It is made when one of them is first called."""

    def __await__(self) -> Generator[Any, Any, Iterator[PathT]]:
        return self._read_all().__await__()

    def send(self, value: Any) -> Any:
        return self._coroutine().send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine().throw(*error)

    def close(self) -> None:
        if self._sent_to is not None:
            self._sent_to.close()

    async def _read_on(self) -> None:
        self._check_not_reading()
        self._is_reading = True
        try:
            await trio.to_thread.run_sync(self._read_some)
        finally:
            self._is_reading = False

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

    async def __anext__(self) -> PathT:
        if self._read or self._is_at_end:
            await checkpoint_at_once()
            self._check_not_reading()  # the thread counts what it adds
        while not self._read:
            if self._error is not None:
                raise self._taken_error()
            if self._is_at_end:
                raise StopAsyncIteration
            await self._read_on()
        return _path(self._kind, self._read.popleft())

    def _end(self) -> None:
        self._is_at_end = True
        self._error = None
        self._read.clear()
        self._unread.close()

    def _read_some(self) -> None:
        """Reads some paths into `_read`."""
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
    path._str = text  # type: ignore[attr-defined]  # else pathlib would put it together from its parts
    return path


def entries(directory: str) -> Generator[str, None, None]:
    """Yields the path of each entry of the directory. Only a worker thread may run it."""
    prefix = "" if directory == "." else directory if directory.endswith("/") else f"{directory}/"
    with os.scandir(directory) as found:
        for entry in found:
            yield prefix + entry.name


def matches(find: Callable[[], Iterable[pathlib.Path]]) -> Generator[str, None, None]:
    """Yields each path that ``find`` finds. Only a worker thread may run it."""
    yield from map(str, find())


class Walk(_Reading, Generic[PathT]):
    """What `Path.walk` returns: an asynchronous iterator. Each of its steps is a checkpoint.

    Call ``aclose`` if you break off and keep the iterator: a directory may still be open.
    """

    def __init__(
        self, path: PathT, top_down: bool, on_error: Callable[[OSError], object] | None, follow_symlinks: bool
    ) -> None:
        super().__init__()
        self._kind = type(path)
        self._is_top_down = top_down
        self._on_error = on_error
        self._follows = follow_symlinks
        self._stack = [_Directory(str(path))]
        """The directories to come, the next one last."""
        self._given: _Directory | None = None
        """The directory that the last step gave, top down. Its subdirectories come with the next step, since
        the caller may change their list until then."""

    async def __anext__(self) -> tuple[PathT, list[str], list[str]]:
        self._check_not_reading()
        self._is_reading = True
        try:
            return await self._step()
        finally:
            self._is_reading = False

    async def _step(self) -> tuple[PathT, list[str], list[str]]:
        stack = self._stack
        if self._given is not None:
            stack += self._given.subdirectories()
            self._given = None
        if not stack or stack[-1].is_read:
            await checkpoint_at_once()
        while stack:
            directory = stack[-1]
            if not directory.is_read:
                await trio.to_thread.run_sync(self._read_some)
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

    def _end(self) -> None:
        self._stack.clear()
        self._given = None

    def _report(self, error: OSError) -> None:
        """Calls ``on_error``, if there is one. The walk ends if that raises."""
        if self._on_error is not None:
            try:
                self._on_error(error)
            except BaseException:
                self._end()
                raise

    def _read_some(self) -> None:
        """Reads the directories on top of the stack, up to the first that has subdirectories: those come
        before the next one."""
        until = monotonic() + _LONG
        left = _MOST
        for directory in reversed(self._stack):
            if directory.is_read:
                return
            left = directory.read(left, until, follow_symlinks=self._follows)
            if left <= 0 or directory.names or monotonic() > until:
                return


class _Directory:
    """A directory of a walk."""

    __slots__ = ("_unread", "error", "is_left", "is_read", "names", "other_names", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.names: list[str] = []
        """The names of its subdirectories."""
        self.other_names: list[str] = []
        self.error: OSError | None = None
        """Why it could not be read, or not to its end."""
        self.is_read = False
        self.is_left = False
        """Whether its subdirectories have been put on the stack, above it. They come before it in a walk from
        the bottom up; top down this stays False."""
        self._unread: Generator[os.DirEntry[str], None, None] | None = None

    def subdirectories(self) -> list[_Directory]:
        """Returns its subdirectories, the last one first."""
        base = "" if self.path == "." and not _SAYS_HERE else self.path
        return [_Directory(os.path.join(base, name)) for name in reversed(self.names)]

    def read(self, most: int, until: float, *, follow_symlinks: bool) -> int:
        """Reads entries until there are no more, ``most`` are read, or the clock says ``until``. Returns 0 if
        more may be left; else how many fewer than ``most`` it has read. Called in a worker thread."""
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
    """Yields the entries of the directory, and closes it at their end, or when the generator is garbage."""
    with os.scandir(path) as found:
        yield from found
