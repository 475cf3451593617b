"""`mkstemp`, `mkdtemp`, `gettempdir` and `gettempdirb` call the standard library's functions in a worker
thread of Trio's.

The caller has to remove what `mkstemp` and `mkdtemp` make. If the task is gone before it gets the result,
since its run has crashed, what was made is removed at once.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import trio
from trio.lowlevel import enable_ki_protection

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import GenericPath

MadeT = TypeVar("MadeT")


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
    """Makes a file as `tempfile.mkstemp` does. Returns its descriptor, which the caller has to close, and its
    name, which the caller has to remove."""
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
    """Makes a directory as `tempfile.mkdtemp` does. Returns its name; the caller has to remove it."""
    return await _made_for_caller(partial(tempfile.mkdtemp, suffix, prefix, dir), os.rmdir)


async def gettempdir() -> str:
    """Returns what `tempfile.gettempdir` returns. Its first call looks for a directory that can be written
    to."""
    return await trio.to_thread.run_sync(tempfile.gettempdir)


async def gettempdirb() -> bytes:
    """Returns what `gettempdir` returns, as bytes, by `tempfile.gettempdirb`."""
    return await trio.to_thread.run_sync(tempfile.gettempdirb)


async def _made_for_caller(make: Callable[[], MadeT], discard: Callable[[MadeT], object]) -> MadeT:
    """Returns what ``make``, called in a thread, returns. Calls ``discard`` with it if the task is gone."""
    new = _Unclaimed(make, discard)
    await trio.to_thread.run_sync(new.make)
    return new.claim()


class _Unclaimed(Generic[MadeT]):
    """What a thread makes for a task. It is discarded if nobody claims it before this object is garbage."""

    def __init__(self, make: Callable[[], MadeT], discard: Callable[[MadeT], object]) -> None:
        self._make = make
        self._discard = discard
        self._made: list[MadeT] = []

    def make(self) -> None:
        """Called in a thread."""
        self._made.append(self._make())

    def claim(self) -> MadeT:
        """Returns what was made, which is the caller's from now on. Called by the task."""
        return self._made.pop()

    def __del__(self) -> None:
        for made in self._made:
            self._discard(made)


def _discard_file(made: tuple[int, str | bytes]) -> None:
    fd, name = made
    os.close(fd)
    os.unlink(name)
