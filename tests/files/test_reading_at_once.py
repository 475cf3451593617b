"""Reads of files that are tried at once: what is in the page cache needs no operation of the
ring, and what is observed is the same as if it had been one."""

from __future__ import annotations

import mmap
import os
import random
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing
from child_process import SUPPORT, output_of
from equivalence import URING, io_statistics
from page_cache import find_nothing, read_at_once

from trio_uring import open_file
from trio_uring._tasks import uncleared_bytes
from trio_uring.files import memory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from trio_uring.files.async_file import AsyncFile

MIB = 1 << 20
PIECE = MIB // 4
CONTENT = b"".join(number.to_bytes(8, "little") for number in range(2 * MIB // 8))


@attrs.frozen
class Read:
    call: Callable[[Any], Awaitable[Any]]
    buffering: int = -1

    async def open(self, path: Path) -> AsyncFile[bytes]:
        return await open_file(path, "rb", self.buffering)


READS = {
    "read": Read(lambda file: file.read(PIECE)),
    "read by way of the buffer": Read(lambda file: file.read(5)),
    "read1": Read(lambda file: file.read1(PIECE)),
    "readinto": Read(lambda file: file.readinto(bytearray(PIECE))),
    "readinto1": Read(lambda file: file.readinto1(bytearray(PIECE))),
    "peek": Read(lambda file: file.peek()),
    "read without a buffer": Read(lambda file: file.read(PIECE), 0),
    "readinto without a buffer": Read(lambda file: file.readinto(bytearray(PIECE)), 0),
    "readline without a buffer": Read(lambda file: file.readline(5), 0),
}
every_read = pytest.mark.parametrize("read", READS.values(), ids=READS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def cached(path: Path) -> Iterator[Path]:
    with read_at_once(path):
        yield path


def entered() -> int:
    return io_statistics().entered


@every_read
def test_a_read_from_the_page_cache_does_not_enter_the_ring(cached: Path, read: Read) -> None:
    async def main() -> None:
        async with await read.open(cached) as file:
            await trio.lowlevel.checkpoint()
            before = entered()
            assert await read.call(file)
            assert entered() == before

    URING.run(main)


@every_read
def test_a_read_from_the_page_cache_is_a_checkpoint(path: Path, read: Read) -> None:
    async def main() -> None:
        async with await read.open(path) as file:
            with trio.testing.assert_checkpoints():
                await read.call(file)

    URING.run(main)


@every_read
def test_a_read_in_a_cancelled_scope_raises_and_moves_nothing(path: Path, read: Read) -> None:
    async def main() -> None:
        async with await read.open(path) as file:
            await file.read(3)  # so that there is something in the buffer, which is to stay
            await file.seek(PIECE)
            with trio.CancelScope() as scope:
                scope.cancel()
                await read.call(file)
            assert scope.cancelled_caught
            assert await file.tell() == os.lseek(file.fileno(), 0, os.SEEK_CUR) == PIECE
            assert await file.read() == CONTENT[PIECE:]

    URING.run(main)


def test_what_a_cancelled_read_took_from_the_buffer_is_there_again(path: Path) -> None:
    async def main() -> None:
        async with await open_file(path, "rb") as file:
            start = await file.read(5)
            with trio.CancelScope() as scope:
                scope.cancel()
                await file.read(PIECE)
            assert scope.cancelled_caught
            assert await file.tell() == 5
            assert start + await file.read() == CONTENT

    URING.run(main)


def test_tasks_take_turns_between_reads_from_the_page_cache(cached: Path) -> None:
    order: list[str] = []

    async def reader(name: str) -> None:
        async with await open_file(cached, "rb") as file:
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(4):
                await file.read(PIECE)
                order.append(name)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader, "a")
            nursery.start_soon(reader, "b")

    URING.run(main)
    pairs = [{*order[at : at + 2]} for at in range(0, len(order), 2)]
    assert pairs == [{"a", "b"}] * 4


def test_what_is_not_in_the_page_cache_is_read_all_the_same(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())
        # Every second stretch of 64 KiB, so that reads stop in their middle.
        for start in range(0, len(CONTENT), 1 << 17):
            os.posix_fadvise(file.fileno(), start, 1 << 16, os.POSIX_FADV_DONTNEED)

    async def main() -> None:
        async with await open_file(path, "rb") as file:
            parts = [await file.read(PIECE + 3)]
            while parts[-1] and len(parts) < 20:
                parts.append(await file.read(PIECE + 3))
            assert {len(part) for part in parts[:-2]} == {PIECE + 3}
            assert b"".join(parts) == CONTENT

    URING.run(main)


def test_a_read_that_found_nothing_leaves_the_next_to_the_ring_and_no_other(
    cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with await open_file(cached, "rb") as file:
            await trio.lowlevel.checkpoint()
            with monkeypatch.context() as patched:
                find_nothing(patched)
                assert await file.read(PIECE) == CONTENT[:PIECE]
            before = entered()
            assert await file.read(PIECE) == CONTENT[PIECE : 2 * PIECE]
            left = entered()
            assert left > before
            assert await file.read(PIECE) == CONTENT[2 * PIECE : 3 * PIECE]
            assert entered() == left

    URING.run(main)


def test_a_read_returns_what_others_have_written_before_it(path: Path) -> None:
    async def main() -> None:
        async with await open_file(path, "rb") as file:
            for start in range(0, len(CONTENT), PIECE):
                new = bytes([start // PIECE + 1]) * PIECE
                with path.open("r+b") as other:
                    other.seek(start)
                    other.write(new)
                assert await file.read(PIECE) == new
            assert await file.read(PIECE) == b""
            with path.open("ab") as other:
                other.write(b"more")
            assert await file.read(PIECE) == b"more"

    URING.run(main)


def test_a_file_that_is_cut_off_ends_there(path: Path) -> None:
    async def main() -> None:
        async with await open_file(path, "rb") as file:
            assert await file.read(PIECE) == CONTENT[:PIECE]
            assert await file.read(PIECE) == CONTENT[PIECE : 2 * PIECE]
            os.truncate(path, 2 * PIECE + 100)
            assert await file.read(PIECE) == CONTENT[2 * PIECE : 2 * PIECE + 100]
            assert await file.read(PIECE) == b""

    URING.run(main)


def test_a_read_past_the_page_cache_is_left_to_the_ring(path: Path) -> None:
    """The calling thread would wait for the device."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_DIRECT)

    with path.open("rb") as file:
        os.fsync(file.fileno())

    async def main() -> None:
        try:
            file = await open_file(path, "rb", opener=opener)
        except OSError as error:
            pytest.skip(f"this file system has no O_DIRECT: {error}")
        with mmap.mmap(-1, MIB) as memory:
            before = entered()
            assert await file.readinto(memory) == MIB
            assert memory[:] == CONTENT[:MIB]
            assert entered() > before
        await file.aclose()

    URING.run(main)


# The kernel's name is as of Linux 2.6, and its first two preadv2 tell of the end of a file that goes on, as
# those of Linux 5.9 and 5.10 may.
FALSE_ENDS = """
import ctypes, sys, trio, trio_uring
sys.path.insert(0, {support!r})
import refusing
ctypes.CDLL(None).personality(0x0020000)

async def main():
    async with await trio_uring.open_file({path!r}, "rb", {buffering}) as file:
        answers[:] = [refusing.RETURN_0] * 2
        print(len(await file.read(100)), len(await file.read()), len(await file.read()))
    answers[:] = [refusing.RETURN_0]
    print(len(await trio_uring.Path({path!r}).read_bytes()), len(answers))

answers = []
refusing.refuse("preadv2", lambda *_: answers.pop() if answers else 0)
trio_uring.run(main)
"""


@pytest.mark.parametrize("buffering", [0, -1], ids=["unbuffered", "buffered"])
def test_an_end_that_the_kernel_only_tells_of_is_none(path: Path, buffering: int) -> None:
    program = FALSE_ENDS.format(support=str(SUPPORT), path=str(path), buffering=buffering)
    assert output_of(program) == f"100 {len(CONTENT) - 100} 0\n{len(CONTENT)} 0\n"


def test_large_results_do_not_begin_where_processors_copy_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, other = _begins_at(16), _begins_at(48)
    given = [slow, other]
    monkeypatch.setattr(memory, "uncleared_bytes", lambda length: given.pop(0))
    assert memory.new_bytes(len(slow)) is other
    given = [other, slow]
    assert memory.new_bytes(len(other)) is other


def _begins_at(place: int) -> bytes:
    """Bytes whose first one is at this place of its page."""
    choices = random.Random(place)
    kept = []  # so that each is elsewhere; they take no memory before they are written to
    for _ in range(10_000):
        kept.append(data := uncleared_bytes(choices.randrange(1 << 16, 1 << 17)))
        if (id(data) + bytes.__basicsize__ - 1) % mmap.PAGESIZE == place:
            return data
    raise AssertionError("there is no memory that begins there")
