"""`pread`, `pread_into` and `pwrite`, `fsync` and `fdatasync` of files."""

from __future__ import annotations

import io
import os
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from equivalence import URING, Backend
from open_files import on_both

import trio_uring
from trio_uring import lowlevel, open_file

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

CONTENT = bytes(range(256)) * 400
every_buffering = pytest.mark.parametrize("buffering", [0, -1, 7])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@on_both
@every_buffering
def test_they_neither_use_nor_move_the_position(backend: Backend, path: Path, buffering: int) -> None:
    async def main() -> None:
        async with await open_file(path, "r+b", buffering) as file:
            assert await file.read(3) == CONTENT[:3]
            assert await file.pread(10, 1000) == CONTENT[1000:1010]
            memory = bytearray(20)
            assert await file.pread_into(memory, 5000) == 20
            assert memory == CONTENT[5000:5020]
            assert await file.pwrite(b"xyz", 3) == 3
            assert await file.tell() == 3
            assert await file.read(4) == b"xyz" + CONTENT[6:7]
            assert await file.pread(10, len(CONTENT) - 4) == CONTENT[-4:]
            assert await file.pread(10, len(CONTENT)) == await file.pread(0, 0) == b""
            assert await file.pwrite(b"end", len(CONTENT) + 10) == 3
            assert await file.pread(100, len(CONTENT)) == bytes(10) + b"end"

    backend.run(main)


@on_both
def test_what_is_buffered_comes_first(backend: Backend, path: Path) -> None:
    async def main() -> None:
        async with await open_file(path, "r+b") as file:
            await file.write(b"abc")
            assert await file.pread(5, 0) == b"abc" + CONTENT[3:5]
            await file.write(b"def")
            assert await file.pwrite(b"X", 3) == 1
            assert path.read_bytes()[:7] == b"abcXef" + CONTENT[6:7]
            await file.write(bytes(3_000_000))
            assert await file.pread(3_000_001, 6) == bytes(3_000_000)

    backend.run(main)


@on_both
def test_what_was_read_ahead_is_not_older_than_what_was_written_at_an_offset(
    backend: Backend, path: Path
) -> None:
    async def main() -> None:
        async with await open_file(path, "r+b") as file:
            assert await file.read(10) == CONTENT[:10]
            await file.pwrite(b"new", 10)
            assert await file.read(3) == b"new"
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(file.pwrite, bytes([number]), 100 + number)
                    nursery.start_soon(file.read, 1)
            await file.seek(100)
            assert await file.read(20) == bytes(range(20))

    backend.run(main)


def late(call: Callable[..., int], is_made: trio.Event, going_on: threading.Event) -> Callable[..., int]:
    """``call`` for a thread, which tells a task when it is made, and returns only when it may go on."""

    def late_call(*arguments: object) -> int:
        done = call(*arguments)
        if not going_on.is_set():
            trio.from_thread.run_sync(is_made.set)
            assert going_on.wait(60)
        return done

    return late_call


def test_a_transfer_that_a_write_at_an_offset_has_overtaken_leaves_nothing_ahead(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_read, is_written = threading.Event(), threading.Event()
    preadv, pwrite = os.preadv, os.pwrite

    def late_preadv(fd: int, buffers: Sequence[bytearray], offset: int) -> int:
        got = preadv(fd, buffers, offset)
        has_read.set()
        assert is_written.wait(60)
        return got

    def noticed_pwrite(fd: int, data: bytes, offset: int) -> int:
        assert has_read.wait(60)
        done = pwrite(fd, data, offset)
        is_written.set()
        return done

    monkeypatch.setattr(os, "preadv", late_preadv)
    monkeypatch.setattr(os, "pwrite", noticed_pwrite)

    async def main() -> None:
        async with await open_file(path, "r+b") as file:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(file.read, 1)
                nursery.start_soon(file.pwrite, b"new", 1)
            assert await file.read(3) == b"new"

    trio.run(main)


def test_what_a_cancelled_call_gives_back_is_not_older_than_a_write_at_an_offset(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_read, going_on = trio.Event(), threading.Event()
    monkeypatch.setattr(os, "preadv", late(os.preadv, has_read, going_on))

    async def main() -> None:
        async with await open_file(path, "r+b", 10) as file:
            scope = trio.CancelScope()
            is_written = False

            async def read_two_transfers() -> None:
                with scope:
                    await file.read(11)

            async def write() -> None:
                nonlocal is_written
                await file.pwrite(b"new", 0)
                is_written = True

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_two_transfers)
                await has_read.wait()
                nursery.start_soon(write)
                while not (is_written or file._turns._waiting):
                    await trio.sleep(0)
                scope.cancel()
                going_on.set()
            assert scope.cancelled_caught
            assert await file.read(3) == b"new"

    trio.run(main)


@pytest.mark.parametrize(("first", "second"), [(1, 3), (3, 1)])
def test_what_is_buffered_does_not_overwrite_what_is_written_at_an_offset_between(
    path: Path, monkeypatch: pytest.MonkeyPatch, first: int, second: int
) -> None:
    """Another task, which has read that part ahead, writes on either side of it meanwhile."""
    is_written, going_on = trio.Event(), threading.Event()
    pwrite = os.pwrite

    async def main() -> None:
        async with await open_file(path, "r+b") as file:
            assert await file.read(1)
            monkeypatch.setattr(os, "pwrite", late(pwrite, is_written, going_on))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(file.pwrite, b"-", 2)
                await is_written.wait()
                monkeypatch.setattr(os, "pwrite", pwrite)
                for offset in (first, second):
                    await file.seek(offset)
                    await file.write(b"%d" % offset)
                going_on.set()
        assert path.read_bytes()[:5] == b"\x001-3\x04"

    trio.run(main)


def test_a_file_closed_during_a_write_at_an_offset_does_not_fail_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_written, is_closed = trio.Event(), threading.Event()
    monkeypatch.setattr(os, "pwrite", late(os.pwrite, is_written, is_closed))

    async def main() -> None:
        file = await open_file(path, "r+b")
        assert await file.read(3) == CONTENT[:3]

        async def read_again() -> None:
            await is_written.wait()
            assert await file.read(1) == CONTENT[3:4]
            await file.aclose()
            is_closed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.pwrite, b"new", 9)
            nursery.start_soon(read_again)

    trio.run(main)
    assert path.read_bytes()[9:12] == b"new"


@on_both
@every_buffering
def test_any_number_at_once(backend: Backend, path: Path, buffering: int) -> None:
    chance = random.Random(3)

    async def main() -> None:
        async with await open_file(path, "rb", buffering) as file, trio.open_nursery() as nursery:

            async def read() -> None:
                for _ in range(5):
                    at, size = chance.randrange(len(CONTENT)), chance.randrange(9000)
                    assert await file.pread(size, at) == CONTENT[at : at + size]

            for _ in range(50):
                nursery.start_soon(read)

    backend.run(main)


@on_both
def test_a_shared_file_is_read_at_offsets_as_well(backend: Backend, path: Path) -> None:
    async def main() -> None:
        async with await open_file(os.open(path, os.O_RDWR), "r+b") as file:
            os.lseek(file.fileno(), 7, os.SEEK_SET)
            assert await file.pread(3, 50) == CONTENT[50:53]
            assert await file.pwrite(b"x", 50) == 1
            assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 7
        file = trio_uring.wrap_file(io.FileIO(path))
        assert await file.pread(1, 50) == b"x"
        await file.aclose()

    backend.run(main)


@on_both
@every_buffering
def test_mistakes_are_those_of_os(backend: Backend, path: Path, buffering: int) -> None:
    async def main() -> None:
        fd = os.open(path, os.O_RDWR)
        async with await open_file(path, "r+b", buffering) as file:
            for arguments in ((1, -1), (-1, 1), (1, 1 << 63), (1 << 64, 1)):
                with pytest.raises((OSError, OverflowError, MemoryError)):
                    await file.pread(*arguments)
            for offset in (-1, 1 << 63):
                with pytest.raises((OSError, OverflowError)) as raised:
                    await file.pwrite(b"x", offset)
                with pytest.raises(raised.type):
                    os.pwrite(fd, b"x", offset)
            wrong: Any = "text"
            for call in (file.pwrite(wrong, 0), file.pread_into(b"read-only", 0), file.pread(1, wrong)):
                with pytest.raises(TypeError):
                    await call
        for closed in (
            file.pread(1, 0),
            file.pwrite(b"x", 0),
            file.fsync(),
            file.pread_into(bytearray(1), 0),
        ):
            with pytest.raises(ValueError, match="closed"):
                await closed
        async with await open_file(path, "rb", buffering) as file:
            with pytest.raises(io.UnsupportedOperation):
                await file.pwrite(b"x", 0)
        async with await open_file(path, "ab", buffering) as file:
            with pytest.raises(io.UnsupportedOperation):
                await file.pread(1, 0)
        os.close(fd)
        reader, writer = os.pipe()
        async with await open_file(reader, "rb", buffering) as file:
            with pytest.raises(OSError, match="Illegal seek"):
                await file.pread(1, 0)
        os.close(writer)

    backend.run(main)


@on_both
@every_buffering
def test_they_are_checkpoints_and_in_a_cancelled_scope_do_not_happen(
    backend: Backend, path: Path, buffering: int
) -> None:
    async def main() -> None:
        async with await open_file(path, "r+b", buffering) as file:
            for call in (
                lambda: file.pread(1, 0),
                lambda: file.pread_into(bytearray(1), 0),
                lambda: file.pwrite(b"x", 0),
                file.fsync,
                file.fdatasync,
            ):
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await call()
                assert scope.cancelled_caught
                assert path.read_bytes() == CONTENT
            for call in (lambda: file.pwrite(CONTENT[:1], 0), lambda: file.pread(1, 0), file.fsync):
                with trio.testing.assert_checkpoints():
                    await call()

    backend.run(main)


@on_both
@pytest.mark.parametrize(("mode", "buffering"), [("wb", 0), ("wb", -1), ("w", -1), ("ab", -1)])
@pytest.mark.parametrize("method", ["fsync", "fdatasync"])
def test_syncing_writes_what_is_buffered(
    backend: Backend, tmp_path: Path, mode: str, buffering: int, method: str
) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        async with await open_file(path, mode, buffering) as file:
            for size in (3, 3_000_000):
                await file.write("x" * size if mode == "w" else b"x" * size)
                await getattr(file, method)()
            assert path.stat().st_size == 3_000_003

    backend.run(main)


def test_appending_files_write_at_their_end(path: Path) -> None:
    """Whatever the offset: it is the kernel that says so."""

    async def main() -> None:
        async with await open_file(path, "ab") as file:
            await file.pwrite(b"x", 0)
            await file.write(b"y")

    URING.run(main)
    assert path.read_bytes() == CONTENT + b"xy"


THREADED: dict[str, Callable[[Any], Awaitable[object]]] = {
    "read": lambda file: lowlevel.read(file, bytearray(5)),
    "write": lambda file: lowlevel.write(file, b"12345"),
    "pwrite": lambda file: file.pwrite(b"12345", 0),
    "fsync": lambda file: file.fsync(),
}


@pytest.mark.parametrize("name", THREADED)
def test_a_thread_that_comes_late_finds_no_other_file(name: str, tmp_path: Path) -> None:
    """All threads are taken at first. On epoll every call of a file goes by one."""
    ours, others = tmp_path / "ours", tmp_path / "others"
    for path in (ours, others):
        path.write_bytes(b"contents")

    async def main() -> None:
        file = await open_file(ours, "r+b", 0)
        number = file._own_fileno()
        limiter = trio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 1

        async def call() -> None:
            with pytest.raises((OSError, ValueError), match=r"Bad file descriptor|closed file"):
                await THREADED[name](file)

        async with trio.open_nursery() as nursery, limiter:
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            closing = file.aclose()
            closing.send(None)  # as far as its first checkpoint
            closing.close()
            assert os.open(others, os.O_RDWR) == number
        os.close(number)

    (trio_uring.run if name in ("read", "write") else trio.run)(main)
    assert others.read_bytes() == b"contents"
