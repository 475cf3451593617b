"""Several writes of a file that are with the kernel at the same time."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import os
import random
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from answers import give_answers
from file_limits import disk_of, files_no_longer_than

from trio_uring import RingOptions, open_file, run
from trio_uring.files import write_behind
from trio_uring.loop.operation import MOST_TRIES, NO_WORKER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PART = 1 << 14
AT_ONCE = RingOptions(checkpoint_budget=64)
"""So that no tick comes between writes."""
KEEP_SIZE = 1
"""Of fallocate(2), which Python has without it alone."""
SET_FLAGS, APPEND_ONLY = 0x40086602, 0x20
"""Of <linux/fs.h>: what chattr(1) does."""
PIECES = [bytes([number]) * PART for number in range(1, 60)]


@pytest.fixture(autouse=True)
def _small_writes(still_clock: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "_AT_ONCE", PART)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disk_of(16 * PART, tmp_path / "disk") as place:
        yield place


def in_flight(file: Any) -> int:
    return len(file._buffer._behind._flights) if file._buffer._behind is not None else 0


async def most_in_flight(file: Any) -> int:
    """While PIECES are written to it."""
    most = 0
    for piece in PIECES:
        await file.write(piece)
        most = max(most, in_flight(file))
    return most


def test_where_a_file_grows_several_are_in_flight(tmp_path: Path) -> None:
    async def main() -> None:
        async with await open_file(tmp_path / "file", "wb", 1000) as file:
            assert await most_in_flight(file) == 3

    run(main, ring=AT_ONCE)
    assert (tmp_path / "file").read_bytes() == b"".join(PIECES)


@pytest.mark.parametrize("mode", ["ab", "r+b"])
def test_what_is_appended_and_what_overwrites_is_in_flight_alone(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "file"
    before = bytes(len(PIECES) * PART)
    path.write_bytes(before)

    async def main() -> None:
        async with await open_file(path, mode, 1000) as file:
            assert await most_in_flight(file) == 1

    run(main, ring=AT_ONCE)
    assert path.read_bytes() == (before if mode == "ab" else b"") + b"".join(PIECES)


def test_a_write_that_falls_short_leaves_nothing_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    limit = 3 * PART // 2

    async def main() -> None:
        async with await open_file(path, "wb", 1000) as file:
            with files_no_longer_than(limit):
                for piece in PIECES[:3]:
                    await file.write(piece)
                assert in_flight(file) == 3
                with pytest.raises(OSError) as raised:  # noqa: PT011
                    await file.flush()
                assert raised.value.errno == errno.EFBIG
                assert await file.tell() == 3 * PART
                assert path.stat().st_size == limit
            await file.write(PIECES[3])

    run(main, ring=AT_ONCE)
    assert path.read_bytes() == b"".join(PIECES[:4])


def test_what_was_written_behind_a_failed_write_is_cut_off_and_written_again(small_disk: Path) -> None:
    path, filler = small_disk / "file", small_disk / "filler"

    async def main() -> None:
        async with await open_file(path, "wb", 1000) as file:
            # Room for the second write, and for nothing else.
            fallocate(file._own_fileno(), PART, PART)
            fill(filler)
            for piece in PIECES[:3]:
                await file.write(piece)
            assert in_flight(file) == 3
            with pytest.raises(OSError) as raised:  # noqa: PT011
                await file.flush()
            assert raised.value.errno == errno.ENOSPC
            assert path.stat().st_size < PART
            assert await file.tell() == 3 * PART
            filler.unlink()
            await file.flush()
            assert path.read_bytes() == b"".join(PIECES[:3])

    run(main, ring=AT_ONCE)
    assert path.read_bytes() == b"".join(PIECES[:3])


@pytest.mark.parametrize(
    ("mode", "failures"),
    [("wb", 1), ("wb", 3), ("ab", MOST_TRIES - 1), ("ab", MOST_TRIES), ("r+b", MOST_TRIES)],
)
def test_a_write_that_the_kernel_has_no_worker_for_is_made_again(
    tmp_path: Path, mode: str, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3 * PART) if mode == "r+b" else b"")
    answers = [NO_WORKER] * failures
    give_answers(monkeypatch, write_behind, answers)

    async def main() -> None:
        async with await open_file(path, mode, 1000) as file:
            for piece in PIECES[:3]:
                await file.write(piece)
            if failures == MOST_TRIES:
                with pytest.raises(OSError, match="could start no worker"):
                    await file.flush()
            await file.flush()

    run(main, ring=AT_ONCE)
    assert not answers
    assert path.read_bytes() == b"".join(PIECES[:3])


def fallocate(fd: int, offset: int, length: int) -> None:
    """Room beyond the end of the file, which Python cannot ask for."""
    arguments = (ctypes.c_int(fd), KEEP_SIZE, ctypes.c_long(offset), ctypes.c_long(length))
    assert ctypes.CDLL(None).fallocate(*arguments) == 0


def fill(filler: Path) -> None:
    with open(filler, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_when_all_have_landed_the_file_is_the_beginning_of_what_was_accepted(tmp_path: Path) -> None:
    chance = random.Random(5)
    path = tmp_path / "file"
    accepted = bytearray()
    most = errors = 0

    async def main() -> None:
        nonlocal most, errors
        async with await open_file(path, "wb", 1000) as file:
            for _ in range(400):
                data = chance.randbytes(chance.choice([300, 3000, PART, PART, 3 * PART]))
                with files_no_longer_than(max(len(accepted) - chance.randrange(-PART, 4 * PART), 0)):
                    try:
                        await file.write(data)
                        accepted.extend(data)
                        most = max(most, in_flight(file))
                        if not chance.randrange(8):
                            await file.flush()
                    except OSError:
                        errors += 1
                    if not in_flight(file):
                        assert accepted.startswith(path.read_bytes())
            await file.flush()
            assert path.read_bytes() == accepted

    run(main, ring=AT_ONCE)
    assert most == 3
    assert errors > 20


def test_who_moves_a_position_that_is_shared_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        async with await open_file(path, "wb", 1000) as file:
            for number, piece in enumerate(PIECES):
                await file.write(piece)
                if not number % 5:
                    while in_flight(file) and in_flight(file) < 3:
                        await trio.lowlevel.checkpoint()
                    os.write(file.fileno(), b"other")

    run(main, ring=AT_ONCE)
    data = path.read_bytes()
    assert data.count(b"other") == len(PIECES[::5])
    assert data.replace(b"other", b"") == b"".join(PIECES)


def test_what_could_not_be_written_before_a_file_was_shared_is_written_where_it_belongs(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        async with await open_file(path, "wb", 1000) as file:
            await file.write(PIECES[0])
            with files_no_longer_than(PART // 2):
                await file.write(PIECES[1])
                fd = file.fileno()
            os.write(fd, b"other")
            with pytest.raises(OSError):  # noqa: PT011
                await file.flush()
            await file.write(b"more")

    run(main, ring=AT_ONCE)
    assert path.read_bytes() == PIECES[0] + PIECES[1] + b"othermore"


def test_o_append_that_is_set_later_is_heeded(tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        async with await open_file(path, "wb", 1000) as file:
            for piece in PIECES[:20]:
                await file.write(piece)
            flags = fcntl.fcntl(file.fileno(), fcntl.F_GETFL)
            fcntl.fcntl(file.fileno(), fcntl.F_SETFL, flags | os.O_APPEND)
            for piece in PIECES[20:]:
                await file.write(piece)

    run(main, ring=AT_ONCE)
    assert path.read_bytes() == b"".join(PIECES)


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
    os.truncate(path, start)

    async def main() -> None:
        file = await open_file(path, "r+b", 1000)
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
            fallocate(file._own_fileno(), PART, PART)
            fill(filler)
            try:
                fcntl.ioctl(file._own_fileno(), SET_FLAGS, struct.pack("l", APPEND_ONLY))
            except OSError as error:
                pytest.skip(f"cannot have a file refuse to be cut: {error}")
            for piece in PIECES[:3]:
                await file.write(piece)
            with pytest.raises(OSError) as raised:  # noqa: PT011
                await file.flush()
            assert raised.value.errno == errno.ENOSPC
            assert await file.tell() == 3 * PART
            fcntl.ioctl(file._own_fileno(), SET_FLAGS, struct.pack("l", 0))
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
        run(main, ring=AT_ONCE)
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
