"""Files that are read at once, and files of which the page cache has nothing."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from measure.cache import kept_warm
from trio_uring.files import transfers
from trio_uring.lowlevel import performing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def read_at_once(path: Path) -> Iterator[None]:
    """What has just been written is in the page cache, and is kept there: a machine may take it back any
    moment (DAMON's reclaim). Skips if the file system has no page cache, or does not say what is in it."""
    size = path.stat().st_size
    with kept_warm(path, size), path.open("rb") as file:
        try:
            got = os.preadv(file.fileno(), [bytearray(size)], 0, os.RWF_NOWAIT)
        except OSError as error:
            pytest.skip(f"this file system does not read at once: {error}")
        if got < size:
            pytest.skip("this file system has not kept in the page cache what was just written")
        yield


def find_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What asks the page cache is told that it has nothing. That no page is there would not do: asked for
    one, the kernel starts to read it, and returns it after all if the device has answered before the kernel
    looks again, as it does where the task loses its processor in between."""
    for module, name in (
        (transfers, "_read_at_once"),
        (transfers, "_read_measured_at_once"),
        (performing, "_read_measured_at_once"),
    ):
        monkeypatch.setattr(module, name, lambda *_: -errno.EAGAIN)
