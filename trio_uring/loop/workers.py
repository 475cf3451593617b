"""Operations that may wait for as long as somebody else likes, and the kernel's workers.

What the ring cannot do at once a worker of the kernel's does, and of those for files there are
few: four for each CPU. An open of a FIFO keeps one until its other side is opened, and so may a
read or a write of what has no position. With all of them waiting no file of the run could be
read any more. So each of these operations is allowed a worker more, from Linux 5.15 on.

The workers belong to the thread, as does how many there may be, whatever runs it makes.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from ..ring.native import lib

if TYPE_CHECKING:
    from .run import Run


class _Workers(threading.local):
    """Of this thread."""

    waiting = 0
    """Operations that may wait, and are with the kernel."""
    added = 0
    """Workers that were allowed for them."""


_workers = _Workers()
os.register_at_fork(after_in_child=lambda: vars(_workers).clear())


class Waiting:
    """While it lasts, the kernel may use one worker more."""

    __slots__ = ("has_worker",)

    def __init__(self, run: Run) -> None:
        self.has_worker = _workers.waiting < _workers.added or not lib.tu_add_workers(run.core, 1)
        """Whether it may: False before Linux 5.15."""
        _workers.waiting += 1
        _workers.added = max(_workers.added, _workers.waiting if self.has_worker else 0)

    def __enter__(self) -> bool:
        return self.has_worker

    def __exit__(self, *_: object) -> None:
        _workers.waiting -= 1
