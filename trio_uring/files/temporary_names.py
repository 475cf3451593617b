"""`mkstemp`, `mkdtemp`, `gettempdir` and `gettempdirb`: the standard library's functions, in a worker
thread of Trio's.

What `mkstemp` and `mkdtemp` make is for the caller to remove. If the task that called is gone by then, as
its run has crashed, it is removed at once.
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
