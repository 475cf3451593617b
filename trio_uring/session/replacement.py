"""The names of Trio that we replace while somebody wants io_uring: all of them, in one table.

- A name is replaced if it has Trio's own function for its value. That function is kept for good, and is
  given back later if the name still has ours. A name to which somebody else has assigned a function of
  his own is left alone: before us, while we are there, and afterwards. His function may call Trio's or
  ours. Ours does exactly what Trio's does in runs that are on epoll.
- If his function calls Trio's own, that reaches ours further down: the methods of streams call those of
  sockets, and these call ``_nonblocking_helper`` (sockets/wrapped_methods.py). Where it does not
  (`Replaced.vital`), sockets work by readiness as long as the name is somebody else's.
- Names of files and paths (files/replacements.py), and those of Trio's own steps (accelerate/), are replaced
  only while somebody wants these too. Each of the two is a group.
- The two names that make a run, ``TheIOManager`` and ``setup_runner``, are wrapped, whatever their values
  are. A wrapper of ours calls the value that it has replaced, for good. If somebody wraps our wrapper,
  his is not wrapped by the same one again, but by a new one.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..accelerate import replacements as accelerate_replacements
from ..files import replacements as file_replacements
from ..loop.steps import Steps
from ..loop.trio_internals import Replaced, SocketType, is_trios_own, name_of, trio_run
from ..pipes import streams as pipes
from ..sockets import below, connecting, handing_over, receiving, sending, streams, tls, wrapped_methods

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..ring.options import RingOptions

TABLE: Final[tuple[Replaced, ...]] = (
    *sending.REPLACEMENTS,
    *handing_over.REPLACEMENTS,
    *receiving.REPLACEMENTS,
    *connecting.REPLACEMENTS,
    *wrapped_methods.REPLACEMENTS,
    *streams.REPLACEMENTS,
    *tls.REPLACEMENTS,
    *pipes.REPLACEMENTS,
)

# No thread has this identifier.
_NO_THREAD: Final = 0


_Row: TypeAlias = "tuple[Replaced, Mapping[str, Any], str, Callable[..., Any]]"
"""What is replaced, the present values of all names of its owner, one of its names, and our function."""


def _rows(table: Iterable[Replaced]) -> tuple[_Row, ...]:
    """A row for each name. An owner that this Trio does not have is left out: `check_trio` raises for it."""
    return tuple(
        (replaced, vars(replaced.owner), name, ours)
        for replaced in table
        if replaced.owner is not None
        for name, ours in replaced.functions.items()
    )


_ROWS: Final = _rows(TABLE)


_TABLES: Final[Mapping[str, Callable[[], tuple[Replaced, ...]]]] = {
    "files": file_replacements.table,
    "accelerate": accelerate_replacements.table,
}
"""The table of each group, by the name of the option of `RingOptions` that asks for it."""


@functools.cache
def _rows_of(group: str) -> tuple[_Row, ...]:
    return _rows(_TABLES[group]())


def groups_of(options: RingOptions) -> frozenset[str]:
    """The groups that a run with these options wants."""
    return frozenset(group for group in _TABLES if getattr(options, group))


def wrapped_names(groups: Iterable[str]) -> tuple[str, ...]:
    """The names that have somebody else's function now, neither Trio's own nor ours; of those that are
    always replaced, and of ``groups``. Any thread."""
    return below.WRAPPED + tuple(
        name_of(replaced.owner, name)
        for replaced, names, name, ours in itertools.chain(_ROWS, *map(_rows_of, groups))
        if (found := names.get(name)) not in (ours, None, replaced.original.get(name))
        and not is_trios_own(found)
    )


def _put(rows: Iterable[_Row]) -> None:
    """Replaces the names that have Trio's own functions."""
    for replaced, names, name, ours in rows:
        found = names.get(name)
        known = replaced.original.get(name, ours)
        if found is not ours and (found is known or is_trios_own(found)):
            if name not in replaced.original:
                _dress(ours, found)
                replaced.original[name] = found
            setattr(replaced.owner, name, ours)
    _mark_coroutine_functions()


def _take_back(rows: Iterable[_Row]) -> None:
    """Gives the names that have ours their former functions back."""
    for replaced, names, name, ours in rows:
        if names.get(name) is ours:
            setattr(replaced.owner, name, replaced.original[name])


def _put_methods() -> None:
    _put(_ROWS)
    if "_uring_excluded" not in vars(SocketType):
        SocketType._uring_excluded = _EXCLUDED


def _take_methods_back() -> None:
    _take_back(_ROWS)
    # A holder that is collected meanwhile may take it away first.
    with contextlib.suppress(AttributeError):
        del SocketType._uring_excluded


class _Excluded:
    """``_uring_excluded`` on the class of Trio's sockets: all of them have it while a vital name is not
    ours."""

    def __get__(self, instance: object, owner: object = None) -> bool:
        for names, name, ours in _VITAL:  # of every new socket: a call of `all` takes several times as long
            if names.get(name) is not ours:
                return True
        raise AttributeError("_uring_excluded")


_EXCLUDED: Final = _Excluded()
_VITAL: Final = tuple((names, name, ours) for replaced, names, name, ours in _ROWS if replaced.vital)


def _dress(ours: Callable[..., Any], trios: Any) -> None:
    """Makes a function of ours look like the one of Trio's that it replaces."""
    functools.update_wrapper(ours, trios, updated=())
    if inspect.iscoroutinefunction(trios) and not inspect.iscoroutinefunction(ours):
        _coroutine_functions.append(ours)


def _mark_coroutine_functions() -> None:
    """Marks those of our functions that replace coroutine functions, and are plain functions that return a
    coroutine: `mock.patch` and others ask what they are."""
    if sys.version_info >= (3, 12):
        while _coroutine_functions:
            inspect.markcoroutinefunction(_coroutine_functions.pop())
    elif _coroutine_functions and (asyncio := sys.modules.get("asyncio.coroutines")):
        while _coroutine_functions:
            vars(_coroutine_functions.pop())["_is_coroutine"] = asyncio._is_coroutine


_coroutine_functions: list[Callable[..., Any]] = []
"""Functions of ours that are still to be marked."""


class Wrapped:
    """One of the two names that make a run, and our wrappers of its values."""

    def __init__(self, name: str, wrap: Callable[[Any], Any]) -> None:
        self._name = name
        self._wrap = wrap
        self._below: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        """The value that each wrapper of ours has replaced, for as long as somebody may call the wrapper."""
        self._latest: Any = None
        """The last wrapper. It is used again if the name has the same value again."""

    @property
    def is_ours(self) -> bool:
        """Whether the name has a wrapper of ours for its value, or a subclass of one."""
        found = vars(trio_run)[self._name]
        values = found.__mro__ if isinstance(found, type) else (found,)
        return any(self._is_wrapper(value) for value in values)

    def put(self) -> None:
        """Replaces the value of the name by a wrapper of ours, unless it is one already."""
        if self.is_ours:
            return
        found = vars(trio_run)[self._name]
        if self._latest is None or self._below[self._latest] is not found:
            self._latest = self._wrap(found)
            self._below[self._latest] = found
        vars(trio_run)[self._name] = self._latest

    def take_back(self) -> None:
        """Gives the name its former value back, if it has a wrapper of ours now."""
        found = vars(trio_run)[self._name]
        if self._is_wrapper(found):
            vars(trio_run)[self._name] = self._below[found]

    def _is_wrapper(self, found: Any) -> bool:
        try:
            return found in self._below
        except TypeError:  # it cannot be hashed, and so is none of ours
            return False


class Holder:
    """Keeps Trio's names replaced until it is released. It is also released when it is thrown away, as by an
    exception that comes before its user could release it."""

    __slots__ = ("_is_released", "_names", "groups", "number", "thread")

    def __init__(self, names: Replacement, thread: int, groups: frozenset[str]) -> None:
        self._names = names
        self._is_released = False
        self.groups = groups
        self.number = next(_numbers)
        self.thread = thread

    def release(self) -> None:
        """Gives up the holder's wish. Does nothing if it was released before, as in a forked child. Any
        thread."""
        if not self._is_released:
            self._names.release(self)
            self._is_released = True

    def __del__(self, is_over: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_over():
            self.release()


_numbers = itertools.count()


class Replacement:
    """Replaces Trio's names while there is a holder. For any thread.

    A holder belongs to a thread, since a forked child has only the thread that forked: the holders of
    other threads are released there. What is installed belongs to no thread.
    """

    def __init__(self, manager: Wrapped, setup: Wrapped) -> None:
        self.setup = setup
        self._manager = manager
        self._lock = threading.RLock()
        self._holders: dict[int, tuple[int, frozenset[str]]] = {}
        """The thread of each holder, and the groups that it wants, by the holder's number."""
        self._groups: frozenset[str] = frozenset()
        """The groups that are replaced now."""
        self._installed: Holder | None = None
        os.register_at_fork(
            before=self._before_fork,
            after_in_parent=self._after_fork,
            after_in_child=self._after_fork_in_child,
        )

    def install(self, groups: frozenset[str] | None) -> None:
        """Has the names replaced for all threads, and those of ``groups``; None: no longer."""
        with self._lock:
            before = self._installed
            if before is not None and before.groups == groups:
                return
            self._installed = None if groups is None else self.acquire(groups, _NO_THREAD)
            if before is not None:
                before.release()

    def acquire(self, groups: frozenset[str] = frozenset(), thread: int | None = None) -> Holder:
        """A new holder, for ``thread``, by default the calling one."""
        holder = Holder(self, threading.get_ident() if thread is None else thread, groups)
        rows = [_rows_of(group) for group in groups]
        with self._lock:
            # The holder comes first: if this is interrupted, its release gives back what was replaced so far.
            self._holders[holder.number] = holder.thread, groups
            try:
                if groups:
                    self._groups |= groups
                    _put(itertools.chain(*rows))
                _put_methods()
                self._manager.put()
                self.setup.put()
            except BaseException:
                holder.release()
                raise
        return holder

    def release(self, holder: Holder) -> None:
        """Gives the names back that no holder wants any more. Called by `Holder.release`."""
        steps = Steps()
        steps.complete(self._release, holder.number)
        steps.end()

    def _release(self, number: int) -> None:
        with self._lock:
            self._holders.pop(number, None)
            for group in self._groups.difference(*(groups for _, groups in self._holders.values())):
                _take_back(_rows_of(group))
                self._groups -= {group}
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
