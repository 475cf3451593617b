"""One file object and two runs: one after the other, or the second is refused; neither is broken."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from equivalence import EPOLL, PATIENCE, URING, Backend

from trio_uring import open_file
from trio_uring.files.write_behind import WriteBehind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from types import FrameType

LINES = [f"{number:07}\n" for number in range(3000)]
both = pytest.mark.parametrize(
    "backends",
    [(URING, URING), (URING, EPOLL), (EPOLL, URING)],
    ids=lambda pair: "-".join(b.name for b in pair),
)


pytestmark = pytest.mark.usefixtures("no_hanging")


def in_threads(*runs: Callable[[], Any]) -> None:
    threads = [threading.Thread(target=run) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@both
@pytest.mark.parametrize(("mode", "buffering"), [("rb", -1), ("r", -1), ("rb", 0)])
def test_lines_that_two_runs_read_at_once_are_read_once(
    backends: tuple[Backend, Backend], tmp_path: Path, mode: str, buffering: int
) -> None:
    path = tmp_path / "file"
    # Without a buffer each byte is read by a call of its own, on epoll in a thread.
    lines = LINES if buffering else LINES[:300]
    path.write_text("".join(lines))
    file: Any = URING.run(lambda: open_file(path, mode, buffering))
    got: list[Any] = []
    refused: list[RuntimeError] = []

    async def read() -> None:
        while True:
            try:
                line = await file.readline()
            except RuntimeError as error:
                refused.append(error)
                await trio.sleep(0)
            else:
                if not line:
                    return
                got.append(line)

    in_threads(*(lambda backend=backend: backend.run(read) for backend in backends))
    URING.run(file.aclose)
    assert sorted(got) == (lines if mode == "r" else [line.encode() for line in lines])
    assert all("another run" in str(error) for error in refused)


@both
def test_what_two_runs_write_at_once_is_written_or_refused(
    backends: tuple[Backend, Backend], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    file: Any = URING.run(lambda: open_file(path, "wb"))
    accepted: list[bytes] = []

    async def write(letter: bytes) -> None:
        for size in (10, 5000, 100_000, 300_000) * 10:
            data = letter * size + b"\n"
            with contextlib.suppress(RuntimeError):
                await file.write(data)
                accepted.append(data)

    in_threads(
        *(
            lambda backend=backend, letter=letter: backend.run(lambda: write(letter))
            for backend, letter in zip(backends, (b"a", b"b"), strict=True)
        )
    )
    URING.run(file.aclose)
    assert sorted(path.read_bytes().splitlines(keepends=True)) == sorted(accepted)


def test_a_run_that_takes_over_at_the_first_moment_is_not_disturbed(tmp_path: Path) -> None:
    """The other one's thread is in the middle of giving the file up."""
    path = tmp_path / "file"
    file: Any = URING.run(lambda: open_file(path, "wb"))
    position = file._position
    may_begin, has_begun = threading.Event(), threading.Event()

    def stop_where_the_file_is_free(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code is not WriteBehind.land.__code__:
            return None
        if position.written_by is None and not may_begin.is_set():
            may_begin.set()
            assert has_begun.wait(PATIENCE)
        return stop_where_the_file_is_free

    async def write_first() -> None:
        await file.write(b"a" * 300_000)

    async def write_second() -> None:
        await file.write(b"b" * 300_000)
        has_begun.set()
        first.join()
        await file.aclose()

    def run_first() -> None:
        sys.settrace(stop_where_the_file_is_free)
        URING.run(write_first)

    first = threading.Thread(target=run_first)
    first.start()
    assert may_begin.wait(PATIENCE)
    URING.run(write_second)
    assert path.read_bytes() == b"a" * 300_000 + b"b" * 300_000


def test_a_run_is_refused_while_another_is_in_a_call(pipe: tuple[int, int]) -> None:
    reader, writer = pipe

    async def main() -> None:
        file = await open_file(reader, "rb", 0, closefd=False)

        async def other() -> None:
            for call in (file.read, file.tell, file.flush, file.aclose):
                with pytest.raises(RuntimeError, match="another run"):
                    await call()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.read, 4)
            await trio.testing.wait_all_tasks_blocked()
            await trio.to_thread.run_sync(URING.run, other)
            await trio.to_thread.run_sync(EPOLL.run, other)
            os.write(writer, b"data")

    URING.run(main)


@pytest.mark.parametrize("mode", ["wb", "w", "ab", "r+b"])
@pytest.mark.parametrize("buffering", [0, -1])
def test_a_file_keeps_its_position_from_run_to_run(tmp_path: Path, mode: str, buffering: int) -> None:
    if mode == "w" and not buffering:
        pytest.skip("`open` has no such files")
    path = tmp_path / "file"
    path.write_bytes(b"")
    pieces = [str(number) * 20 for number in range(10)]
    data: Callable[[str], Any] = str if mode == "w" else str.encode
    file: Any = EPOLL.run(lambda: open_file(path, mode, buffering))

    async def write(piece: str) -> None:
        await file.write(data(piece))
        await file.flush()
        assert await file.tell() == path.stat().st_size

    for number, piece in enumerate(pieces):
        (URING, EPOLL)[number % 2].run(lambda piece=piece: write(piece))
    assert file._position.is_ours

    async def read_back() -> None:
        if mode == "r+b":
            await file.seek(0)
            assert await file.read(-1) == "".join(pieces).encode()
        await file.aclose()

    EPOLL.run(read_back)
    assert path.read_text() == "".join(pieces)


READS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "read": lambda file: file.read(10),
    "readline": lambda file: file.readline(),
    "readinto": lambda file: file.readinto(bytearray(10)),
}


@pytest.mark.parametrize("call", READS)
def test_calls_outside_of_a_run_are_refused_and_leave_the_file_as_it_was(tmp_path: Path, call: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    file = URING.run(lambda: open_file(path, "rb"))
    with pytest.raises(RuntimeError, match="async context"):
        READS[call](file).__await__().send(None)
    assert URING.run(file.read) == b"x" * 100
    URING.run(file.aclose)
