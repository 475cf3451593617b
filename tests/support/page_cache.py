"""Whether a read of a file can be served at once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

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
