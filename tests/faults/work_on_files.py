"""The part of the workload that is made of files and paths."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import trio
from work_on_streams import receive, tcp_pair

import trio_uring

if TYPE_CHECKING:
    from pathlib import Path

    from work import Work

BYTES = 200_000
MOST = 70_000


async def buffered(work: Work) -> None:
    """Written by pieces, some of them behind their call; read by pieces."""
    path = work.folder / "buffered"
    for _ in range(2):
        with work.errors():
            async with await trio_uring.open_file(path, "wb") as file:
                await write(work, file)
            check_file(work, path, BYTES)
            evict(path)
            async with await trio_uring.open_file(path, "rb") as file:
                await read(work, file)


async def update(work: Work) -> None:
    """Read and written in any order, at any place."""
    path = work.folder / "update"
    path.write_bytes(work.expected(0, BYTES))
    with work.errors():
        async with await trio_uring.open_file(path, "r+b") as file:
            for _ in range(20):
                place, size = work.choices.randrange(BYTES), work.size(MOST)
                await file.seek(place)
                if work.choices.random() < 0.5:
                    work.check(await file.read(size) or b"", place)
                else:
                    await file.write(work.expected(place, min(size, BYTES - place)))
            assert await file.seek(0, os.SEEK_END) == BYTES
        check_file(work, path, BYTES)


async def text(work: Work) -> None:
    path = work.folder / "text"
    lines = [f"{number} ü{'x' * work.choices.randrange(300)}\n" for number in range(400)]
    with work.errors():
        async with await trio_uring.open_file(path, "w", encoding="utf-8") as file:
            for line in lines:
                assert await file.write(line) == len(line)
        async with await trio_uring.open_file(path, encoding="utf-8") as file:
            assert [line async for line in file] == lines
        assert path.read_text("utf-8") == "".join(lines)


async def unbuffered(work: Work) -> None:
    """An error moves nothing: the same call again goes on where it was."""
    path = work.folder / "unbuffered"
    path.touch()
    written = 0
    async with Opened(work, path, "r+b") as file:
        while written < BYTES:
            with work.errors():
                written += await file.write(work.expected(written, min(work.size(MOST), BYTES - written)))
                assert await file.tell() == written
    check_file(work, path, BYTES)
    evict(path)
    position = 0
    async with Opened(work, path, "rb") as file:
        while position < BYTES:
            data = None
            with work.errors(), work.patience():
                data = await file.read(work.size(MOST))
            if data is not None:
                assert data, f"the end after {position} of {BYTES} bytes"
                work.check(data, position)
                position += len(data)
        assert position == BYTES


class Opened:
    """An unbuffered file, for which it may take several attempts to open it."""

    def __init__(self, work: Work, path: Path, mode: str) -> None:
        self.work, self.path, self.mode = work, path, mode
        self.file: Any = None

    async def __aenter__(self) -> Any:
        while self.file is None:
            with self.work.errors():
                self.file = await trio_uring.open_file(self.path, self.mode, buffering=0)
        return self.file

    async def __aexit__(self, *_: object) -> None:
        await self.file.aclose()


async def appended(work: Work) -> None:
    path = work.folder / "appended"
    path.unlink(missing_ok=True)
    size = 0
    with work.errors():
        for _ in range(4):
            async with await trio_uring.open_file(path, "ab") as file:
                for _ in range(4):
                    piece = work.expected(size, work.size(MOST))
                    assert await file.write(piece) == len(piece)
                    size += len(piece)
            check_file(work, path, size)


async def paths(work: Work) -> None:
    for number in range(4):
        folder = trio_uring.Path(work.folder / f"folder {number}")
        with work.errors():
            await folder.mkdir()
            name, other = folder / "name", folder / "other name"
            size = await name.write_bytes(work.expected(number, work.size(MOST)))
            await name.rename(other)
            assert (await other.stat()).st_size == size
            evict(work.folder / f"folder {number}" / "other name")
            data = await other.read_bytes()
            assert len(data) == size, f"{len(data)} of {size} bytes"
            work.check(data, number)
            await name.symlink_to(other)
            assert sorted(path.name for path in await folder.iterdir()) == ["name", "other name"]
            await name.unlink()
            await other.unlink()
            await folder.rmdir()


async def sent(work: Work) -> None:
    """A file goes to a stream, and what was sent before an error is known."""
    path = work.folder / "sent"
    path.write_bytes(work.expected(0, BYTES))
    left, right = await tcp_pair()
    async with left, right, trio.open_nursery() as nursery:
        nursery.start_soon(receive, work, right, BYTES)
        position = 0
        with path.open("rb") as file:
            while position < BYTES:
                progress: list[int] = [0]
                with work.errors():
                    await trio_uring.send_file(left, file, position, progress=progress.append)
                position += progress[-1]


async def write(work: Work, file: Any) -> None:
    written = 0
    while written < BYTES:
        piece = work.expected(written, min(work.size(MOST), BYTES - written))
        assert await file.write(piece) == len(piece)
        written += len(piece)
        if work.choices.random() < 0.1:
            await file.flush()
    assert await file.tell() == BYTES


async def read(work: Work, file: Any) -> None:
    position = 0
    while data := await file.read(work.size(MOST)):
        work.check(data, position)
        position += len(data)
    assert position == BYTES, f"the end after {position} of {BYTES} bytes"
    evict(work.folder / "buffered")
    await file.seek(0)
    data = await file.read()
    assert len(data) == BYTES, f"{len(data)} of {BYTES} bytes"
    work.check(data, 0)


def check_file(work: Work, path: Path, size: int) -> None:
    data = path.read_bytes()
    assert len(data) == size, f"{path.name} has {len(data)} of {size} bytes"
    work.check(data, 0)


def evict(path: Path) -> None:
    """From the page cache, out of which it would be read without the ring."""
    with path.open("rb") as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


PARTS = (buffered, update, text, unbuffered, appended, paths, sent)
