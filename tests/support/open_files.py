"""Files of every kind, for the tests of `open_file`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from equivalence import EPOLL, URING

from trio_uring import open_file

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_uring.files.async_file import AsyncFile

on_both = pytest.mark.parametrize("backend", [URING, EPOLL], ids=lambda backend: backend.name)

KINDS = {"raw": ("rb", 0), "buffered": ("rb", 16), "text": ("r", 16)}
every_kind = pytest.mark.parametrize("kind", KINDS)


async def over(fd: int, kind: str) -> AsyncFile[Any]:
    mode, buffering = KINDS[kind]
    return await open_file(fd, mode, buffering, closefd=False)


def of(kind: str, data: bytes) -> Any:
    return data.decode() if kind == "text" else data


CALLS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "read": lambda file: file.read(100),
    "read all": lambda file: file.read(),
    "readinto": lambda file: file.readinto(bytearray(100)),
    "readline": lambda file: file.readline(),
    "readlines": lambda file: file.readlines(),
    "next": lambda file: file.__anext__(),
}
