"""What the server does wrong on purpose, which has to be noticed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

_kept: list[object] = []


def leak_memory() -> None:
    _kept.append(bytearray(b"x") * 20_000_000)


def leak_descriptor() -> None:
    os.dup(0)


def leak_task() -> None:
    """One that waits for what never comes."""
    left, right = trio.socket.socketpair()
    _kept.append(right)
    trio.lowlevel.spawn_system_task(left.recv, 1)


LEAKS: dict[str, Callable[[], None]] = {
    "memory": leak_memory,
    "descriptor": leak_descriptor,
    "task": leak_task,
}
PLANTED = ("byte", "hang", *LEAKS)
"""A byte that the server sends is another one; a round never ends; or every rest is followed by a leak."""
