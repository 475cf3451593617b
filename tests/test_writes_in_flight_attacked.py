"""What broke, or could have broken, several writes of a file at the same time."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import os
import struct
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import URING
from file_limits import files_no_longer_than

from trio_uring import RingOptions, open_file, run, write_behind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PART = 1 << 14
AT_ONCE = RingOptions(checkpoint_budget=64)
"""So that no tick comes between writes."""
PIECES = [bytes([number]) * PART for number in range(1, 20)]
SET_FLAGS, APPEND_ONLY = 0x40086602, 0x20
"""Of <linux/fs.h>: what chattr(1) does."""
KEEP_SIZE = 1
"""Of fallocate(2), which Python has without it alone."""


@pytest.fixture(autouse=True)
def _small_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "_AT_ONCE", PART)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    size = f"size={16 * PART}"
    mount = ["mount", "-t", "tmpfs", "-o", size, "none", str(place)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def farthest(path: Path) -> int:
    """Where a file of this file system ends at the latest."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    possible, impossible = 0, 1 << 63
    while impossible - possible > 1:
        middle = (possible + impossible) // 2
        try:
            os.lseek(fd, middle, os.SEEK_SET)
            possible = middle
        except OSError:
            impossible = middle
    os.close(fd)
    return possible


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_a_write_past_where_files_end_falls_short(tmp_path: Path, pieces: int) -> None:
    path = tmp_path / "file"
    end = farthest(path)
    start = end - 3 * PART // 2

    async def main() -> None:
        file = await open_file(path, "wb", 1000)
        await file.seek(start)
        for piece in PIECES[:pieces]:
            await file.write(piece)
        if pieces == 1:
            await file.aclose()
            return
        with pytest.raises(OSError) as raised:  # noqa: PT011
            await file.flush()
        assert raised.value.errno in (errno.EFBIG, errno.EINVAL)
        assert path.stat().st_size > start + PART
        with pytest.raises(OSError):  # noqa: PT011
            await file.aclose()

    run(main, ring=AT_ONCE)
    with open(path, "rb") as file:
        file.seek(start)
        assert b"".join(PIECES[:pieces]).startswith(file.read())


def test_what_cannot_be_cut_off_is_overwritten(small_disk: Path) -> None:
    path, filler = small_disk / "file", small_disk / "filler"

    async def main() -> None:
        async with await open_file(path, "wb", 1000) as file:
            # Room for the second write, and for nothing else.
            arguments = (ctypes.c_int(file.fileno()), KEEP_SIZE, ctypes.c_long(PART), ctypes.c_long(PART))
            assert ctypes.CDLL(None).fallocate(*arguments) == 0
            with open(filler, "wb", buffering=0) as other, suppress(OSError):
                while True:
                    other.write(bytes(4096))
            try:
                fcntl.ioctl(file.fileno(), SET_FLAGS, struct.pack("l", APPEND_ONLY))
            except OSError as error:
                pytest.skip(f"cannot have a file refuse to be cut: {error}")
            for piece in PIECES[:3]:
                await file.write(piece)
            with pytest.raises(OSError) as raised:  # noqa: PT011
                await file.flush()
            assert raised.value.errno == errno.ENOSPC
            assert await file.tell() == 3 * PART
            fcntl.ioctl(file.fileno(), SET_FLAGS, struct.pack("l", 0))
            filler.unlink()

    run(main, ring=AT_ONCE)
    assert path.read_bytes() == b"".join(PIECES[:3])


@pytest.mark.parametrize("call", ["flush", "tell"])
def test_a_file_that_is_thrown_away_after_an_error_is_written_at_once(tmp_path: Path, call: str) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        file = await open_file(path, "wb", 1000)
        with files_no_longer_than(PART):
            for piece in PIECES[:3]:
                await file.write(piece)
            with suppress(OSError):
                await getattr(file, call)()
        with pytest.warns(ResourceWarning, match="unclosed file"):
            del file

    gc.disable()  # which would close the descriptor first
    try:
        URING.run(main)
        assert path.read_bytes() == b"".join(PIECES[:3])
    finally:
        gc.enable()


def test_a_write_of_nothing_to_a_buffer_that_is_too_long_is_no_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    large = bytes(write_behind.MOST_BEHIND + 1)

    async def write_half(file: Any, ticks: int) -> bool:
        """A write that is cancelled in its middle leaves the rest to the buffer."""

        async def stop(scope: trio.CancelScope) -> None:
            for _ in range(ticks):
                await trio.lowlevel.checkpoint()
            scope.cancel()

        with files_no_longer_than(len(large) // 2):
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope, suppress(OSError):
                    nursery.start_soon(stop, scope)
                    await file.write(large)
                    return True
        return False

    async def main() -> None:
        for attempt in range(100):
            async with await open_file(path, "wb", 1000) as file:
                if not await write_half(file, attempt % 5):
                    continue
                for piece in (b"", *PIECES):
                    await file.write(piece)
            return
        pytest.skip("it could not be stopped in its middle")

    run(main, ring=AT_ONCE)
    assert path.read_bytes() == large + b"".join(PIECES)
