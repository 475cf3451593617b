"""What the server does wrong on purpose, which has to be noticed."""

from __future__ import annotations

import os
import time
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


def block() -> None:
    """The whole loop."""
    time.sleep(100_000)


AFTER_REST: dict[str, Callable[[], None]] = {
    "memory": leak_memory,
    "descriptor": leak_descriptor,
    "task": leak_task,
    "block": block,
}
"""What is done after every rest."""
PLANTED = ("byte", "hang", *AFTER_REST)
"""Beside these: a byte that the server sends is another one, and a round never ends."""
