"""What is wrong on purpose, to see that it is noticed: rounds that leave something, or never end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_kept: list[bytearray] = []


async def leak_memory() -> None:
    _kept.append(bytearray(b"x") * 2_000_000)


async def leak_descriptor() -> None:
    os.dup(0)


async def leak_task() -> None:
    """A task that waits for what never comes, with its sockets."""
    left, _ = trio.socket.socketpair()
    trio.lowlevel.spawn_system_task(left.recv, 1)


PLANTED: dict[str, Callable[[], Awaitable[object]]] = {
    "memory": leak_memory,
    "descriptor": leak_descriptor,
    "task": leak_task,
    "hang": trio.sleep_forever,
}
"""By the name of what is planted; "byte" is beside these, in what the server sends."""
