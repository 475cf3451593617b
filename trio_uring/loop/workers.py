"""The kernel's workers, and operations that may wait for as long as somebody else likes.

What the kernel cannot do at once it hands to a worker. For files there are few workers: four for each
CPU. To open a FIFO takes a worker until the other side is opened; to read or write a file without a
position may take one as long. If all workers waited, no file of the run could be read any more. So
each of these operations adds one to the number of workers that are allowed, from Linux 5.15 on.

The workers, and the number that is allowed, belong to the thread: all runs of a thread share them.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from ..ring.native import lib

if TYPE_CHECKING:
    from .run import Run


class _Workers(threading.local):
    """What is known of the calling thread's workers."""

    waiting = 0
    """Operations with the kernel that may wait."""
    added = 0
    """Workers that were allowed for such operations, beyond those of the kernel's default."""


_workers = _Workers()
os.register_at_fork(after_in_child=lambda: vars(_workers).clear())


class ExtraWorker:
    """A context manager: within it the kernel may use one worker more. Entered by tasks of the run."""

    __slots__ = ("has_worker",)

    def __init__(self, run: Run) -> None:
        self.has_worker = _workers.waiting < _workers.added or not lib.tu_add_workers(run.core, 1)
        """Whether the kernel allows that; it does from Linux 5.15 on."""
        _workers.waiting += 1
        _workers.added = max(_workers.added, _workers.waiting if self.has_worker else 0)

    def __enter__(self) -> bool:
        return self.has_worker

    def __exit__(self, *_: object) -> None:
        _workers.waiting -= 1
