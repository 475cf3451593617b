"""The names of Trio's that are replaced while somebody wants io_uring: all of them, in one table.

- A name is replaced while it holds Trio's own function, which is taken then, and kept for good;
  and it is given back if it still holds ours. What somebody else has put there is his: before
  us, while we are there, and afterwards. What he has taken from there and calls is Trio's own or
  ours, and ours does outside of our runs, and on epoll, exactly what Trio's does.
- Trio's own, called by such a wrapper, reaches ours further down: those of streams call the
  sockets', and the sockets' call ``_nonblocking_helper`` (sockets/nonblocking.py). Where there is no such
  way (`Replaced.vital`) sockets work by readiness as long as the name is somebody else's.
- Files and paths (files/replacements.py) are replaced only while somebody wants those as well.
- What makes a run, ``TheIOManager`` and ``setup_runner``, is wrapped, whatever it is. Each
  wrapper calls what it was put over, for good: one that somebody has wrapped in turn is not
  put over him again, but another one is.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..files import replacements
from ..loop.trio_internals import Replaced, SocketType, is_trios_own, name_of, trio_run
from ..sockets import connecting, nonblocking, receiving, sockets, streams, tls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

TABLE: Final[tuple[Replaced, ...]] = (
    *sockets.REPLACEMENTS,
    *receiving.REPLACEMENTS,
    *connecting.REPLACEMENTS,
    *nonblocking.REPLACEMENTS,
    *streams.REPLACEMENTS,
    *tls.REPLACEMENTS,
)

# No thread has this identifier.
_NO_THREAD: Final = 0
# More exceptions than come between by chance.
_TRIES: Final = 10


_Row: TypeAlias = "tuple[Replaced, Mapping[str, Any], str, Callable[..., Any]]"


def _rows(table: Iterable[Replaced]) -> tuple[_Row, ...]:
    """Each with the names that its owner has now. What a Trio lacks is `check_trio`'s to tell."""
    return tuple(
        (replaced, vars(replaced.owner), name, ours)
        for replaced in table
        if replaced.owner is not None
        for name, ours in replaced.functions.items()
    )


_ROWS: Final = _rows(TABLE)


@functools.cache
def _file_rows() -> tuple[_Row, ...]:
    return _rows(replacements.table())


def wrapped_names(*, files: bool) -> tuple[str, ...]:
    """The names that hold somebody else's function now: neither Trio's own nor ours."""
    return tuple(
        name_of(replaced.owner, name)
        for replaced, names, name, ours in (*_ROWS, *(_file_rows() if files else ()))
        if (found := names.get(name)) not in (ours, None) and not is_trios_own(found)
    )


def _put(rows: Iterable[_Row]) -> None:
    for replaced, names, name, ours in rows:
        found = names.get(name)
        if found is not ours and is_trios_own(found):
            if name not in replaced.original:
                _dress(ours, found)
                replaced.original[name] = found
            setattr(replaced.owner, name, ours)
    _mark_coroutine_functions()


def _take_back(rows: Iterable[_Row]) -> None:
    for replaced, names, name, ours in rows:
        if names.get(name) is ours:
            setattr(replaced.owner, name, replaced.original[name])


def _put_methods() -> None:
    _put(_ROWS)
    if "_uring_excluded" not in vars(SocketType):
        SocketType._uring_excluded = _EXCLUDED


def _take_methods_back() -> None:
    _take_back(_ROWS)
    if "_uring_excluded" in vars(SocketType):
        del SocketType._uring_excluded


class _Excluded:
    """The attribute that a socket that works by readiness has: all, while a vital name is not ours."""

    def __get__(self, instance: object, owner: object = None) -> bool:
        if all(names.get(name) is ours for names, name, ours in _VITAL):
            raise AttributeError("_uring_excluded")
        return True


_EXCLUDED: Final = _Excluded()
_VITAL: Final = tuple((names, name, ours) for replaced, names, name, ours in _ROWS if replaced.vital)


def _dress(ours: Callable[..., Any], trios: Any) -> None:
    """Ours is to look like what it stands for."""
    functools.update_wrapper(ours, trios, updated=())
    if inspect.iscoroutinefunction(trios) and not inspect.iscoroutinefunction(ours):
        _coroutine_functions.append(ours)


def _mark_coroutine_functions() -> None:
    """For `mock.patch`, and for others who ask: these are plain functions that return a coroutine."""
    if sys.version_info >= (3, 12):
        while _coroutine_functions:
            inspect.markcoroutinefunction(_coroutine_functions.pop())
    elif _coroutine_functions and (asyncio := sys.modules.get("asyncio.coroutines")):
        while _coroutine_functions:
            vars(_coroutine_functions.pop())["_is_coroutine"] = asyncio._is_coroutine


_coroutine_functions: list[Callable[..., Any]] = []


class Wrapped:
    """One of the two names that make a run, and our wrappers of what was found there."""

    def __init__(self, name: str, wrap: Callable[[Any], Any]) -> None:
        self._name = name
        self._wrap = wrap
        self._below: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        """What each of our wrappers was put over, for as long as somebody may call that."""
        self._latest: Any = None
        """The wrapper that was put last. The next run will most likely find the same."""

    @property
    def is_ours(self) -> bool:
        """Whether nobody has put something else over ours. A class made of ours is ours."""
        found = vars(trio_run)[self._name]
        return any(self._is_wrapper(one) for one in (found.__mro__ if isinstance(found, type) else (found,)))

    def put(self) -> None:
        if self.is_ours:
            return
        found = vars(trio_run)[self._name]
        if self._latest is None or self._below[self._latest] is not found:
            self._latest = self._wrap(found)
            self._below[self._latest] = found
        vars(trio_run)[self._name] = self._latest

    def take_back(self) -> None:
        found = vars(trio_run)[self._name]
        if self._is_wrapper(found):
            vars(trio_run)[self._name] = self._below[found]

    def _is_wrapper(self, found: Any) -> bool:
        try:
            return found in self._below
        except TypeError:  # it has no hash, as ours have
            return False


class Holder:
    """Somebody who wants Trio's names replaced: until it is released, or thrown away by an exception
    that came before."""

    __slots__ = ("_names", "files", "number", "thread")

    def __init__(self, names: Replacement, thread: int, *, files: bool) -> None:
        self._names = names
        self.files = files
        self.number = next(_numbers)
        self.thread = thread

    def release(self) -> None:
        """May be called again, and in a forked child, which has released it already."""
        self._names.release(self)

    def __del__(self, is_over: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_over():
            self.release()


_numbers = itertools.count()


class Replacement:
    """Holds Trio's names replaced while somebody wants that.

    A holder is of a thread, because a forked child has the forking thread only; what is
    installed belongs to no thread.
    """

    def __init__(self, manager: Wrapped, setup: Wrapped) -> None:
        self.setup = setup
        self._manager = manager
        self._lock = threading.RLock()
        self._holders: dict[int, tuple[int, bool]] = {}
        """By their numbers: their threads, and whether they want files."""
        self._has_files = False
        self._installed: Holder | None = None
        os.register_at_fork(
            before=self._before_fork,
            after_in_parent=self._after_fork,
            after_in_child=self._after_fork_in_child,
        )

    def install(self, *, wanted: bool, files: bool = False) -> None:
        """For all threads, with ``files`` or without, until it is no longer ``wanted``."""
        with self._lock:
            before = self._installed
            if wanted and before is not None and before.files == files:
                return
            self._installed = self.acquire(_NO_THREAD, files=files) if wanted else None
            if before is not None:
                before.release()

    def acquire(self, thread: int | None = None, *, files: bool = False) -> Holder:
        """For ``thread``, by default this one."""
        holder = Holder(self, threading.get_ident() if thread is None else thread, files=files)
        rows = _file_rows() if files else ()
        with self._lock:
            # The holder comes first: who is interrupted now gives back what he has put so far.
            self._holders[holder.number] = holder.thread, files
            try:
                if files:
                    self._has_files = True
                    _put(rows)
                _put_methods()
                self._manager.put()
                self.setup.put()
            except BaseException:
                holder.release()
                raise
        return holder

    def release(self, holder: Holder) -> None:
        _completely(self._release, holder.number)

    def _release(self, number: int) -> None:
        with self._lock:
            self._holders.pop(number, None)
            if self._has_files and not any(files for _, files in self._holders.values()):
                _take_back(_file_rows())
                self._has_files = False
            if not self._holders:
                self.setup.take_back()
                self._manager.take_back()
                _take_methods_back()

    def _before_fork(self) -> None:
        self._lock.acquire()

    def _after_fork(self) -> None:
        self._lock.release()

    def _after_fork_in_child(self) -> None:
        for number, (thread, _) in list(self._holders.items()):
            if thread not in (threading.get_ident(), _NO_THREAD):
                self._release(number)
        self._lock.release()


def _completely(step: Callable[[int], None], number: int) -> None:
    """Makes a step, which may be made again, to its end, whatever comes between: a signal handler that
    raises, or a want of memory. Then the first exception of this time is raised."""
    first: BaseException | None = None
    for _ in range(_TRIES):
        try:
            step(number)
            break
        except BaseException as error:
            first = first or error
    if first is not None:
        try:
            raise first
        finally:  # or its traceback would refer back to us
            first = None
