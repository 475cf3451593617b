"""`mkstemp`, `mkdtemp`, `gettempdir` and `gettempdirb` call the standard library's functions in a worker
thread of Trio's.

The caller has to remove what `mkstemp` and `mkdtemp` make. If the task is gone before it gets the result,
since its run has crashed, what was made is removed at once.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import trio
from trio.lowlevel import enable_ki_protection

from ..lowlevel.unclaimed import made_by_thread

if TYPE_CHECKING:
    from _typeshed import GenericPath


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
    return await made_by_thread(partial(tempfile.mkstemp, suffix, prefix, dir, text), _discard_file)


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
    return await made_by_thread(partial(tempfile.mkdtemp, suffix, prefix, dir), os.rmdir)


async def gettempdir() -> str:
    """Returns what `tempfile.gettempdir` returns. Its first call looks for a directory that can be written
    to."""
    return await trio.to_thread.run_sync(tempfile.gettempdir)


async def gettempdirb() -> bytes:
    """Returns what `gettempdir` returns, as bytes, by `tempfile.gettempdirb`."""
    return await trio.to_thread.run_sync(tempfile.gettempdirb)


def _discard_file(made: tuple[int, str | bytes]) -> None:
    fd, name = made
    os.close(fd)
    os.unlink(name)
