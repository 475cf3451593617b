"""Whether a read of a file can be served at once, and files of which none can."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from measure.cache import resident

if TYPE_CHECKING:
    from pathlib import Path


def skip_unless_told_at_once(path: Path) -> None:
    """What has just been written is in the page cache, if the file system has one and says so."""
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            got = os.preadv(file.fileno(), [bytearray(size)], 0, os.RWF_NOWAIT)
        except OSError as error:
            pytest.skip(f"this file system does not read at once: {error}")
    if got < size:
        pytest.skip("this file system has not kept in the page cache what was just written")


def drop(path: Path) -> None:
    """Has the kernel forget the contents, so that the next read is for the device. What else holds a page
    for a moment (a journal, or who takes memory back) keeps it, so this is asked for until none is left."""
    size = path.stat().st_size
    for _ in range(100):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if not resident(path, size):
            return
    pytest.skip("this file system keeps in the page cache what it is asked to forget")
