"""What a type checker makes of a program that uses files and paths: read by the lint session alone."""

from __future__ import annotations

import io

import trio  # noqa: TC002
from typing_extensions import assert_type

from trio_uring import (
    NamedTemporaryFile,
    Path,
    SpooledTemporaryFile,
    TemporaryDirectory,
    TemporaryFile,
    mkdtemp,
    mkstemp,
    open_file,
    wrap_file,
)


async def read() -> None:
    text = await Path("x").open()
    assert_type(await text.read(), str)
    assert_type(await text.seek(0), int)
    assert_type([line async for line in text], list[str])
    async with await Path("x").open("rb") as data:
        assert_type(await data.read(), bytes)
        assert_type(await data.peek(), bytes)
    async with await open_file("x", "rb") as file:
        assert_type(await file.read(), bytes)
        assert_type(await file.readlines(), list[bytes])
        assert_type(await file.pread(5, 0), bytes)
    async with await open_file("x", "rb", 0) as raw:
        assert_type(await raw.read(), bytes)
        assert_type(await raw.readinto(bytearray(5)), int)
    assert_type(await wrap_file(io.BytesIO()).read(), bytes)
    assert_type(await wrap_file(io.FileIO("x")).read(), bytes)


async def write(mode: str) -> None:
    async with await open_file("x", "wb", buffering=8192) as out:
        assert_type(await out.write(b""), int)
        assert_type(await out.pwrite(b"", 0), int)
        await out.fsync()
    async with await open_file("x", "w") as text:
        assert_type(await text.write(""), int)
    async with await open_file("x", mode) as any_file:
        await any_file.write("")


async def walk() -> None:
    path: trio.Path = Path("x")
    for entry in await Path(path).iterdir():
        assert_type(entry, Path)
    async for entry in Path("x").rglob("*.py", case_sensitive=False):
        assert_type(entry, Path)
    async for folder, names, others in Path("x").walk(top_down=False):
        assert_type(folder, Path)
        assert_type(names + others, list[str])
    assert_type(await Path("x").read_bytes(), bytes)


async def temporary(mode: str) -> None:
    async with TemporaryFile() as file, NamedTemporaryFile(delete_on_close=False) as named:
        assert_type(await file.read(), bytes)
        assert_type(await named.peek(), bytes)
    async with TemporaryFile("wb") as out, TemporaryFile(buffering=0) as raw:
        assert_type(await out.write(b""), int)
        assert_type(await raw.readall(), bytes)
    async with (
        TemporaryFile("w+", encoding="utf-8") as text,
        NamedTemporaryFile("w+", suffix=".txt") as other,
    ):
        assert_type([line async for line in text], list[str])
        assert_type(await other.read(), str)
    async with NamedTemporaryFile(mode) as any_file:
        await any_file.write("")
    async with SpooledTemporaryFile(10) as spooled, SpooledTemporaryFile(10, "w+") as spooled_text:
        assert_type(await spooled.read(), bytes)
        assert_type([line async for line in spooled_text], list[str])
    async with TemporaryDirectory() as folder, TemporaryDirectory(b".d", dir=b"/tmp") as folder_of_bytes:
        assert_type(folder, str)
        assert_type(folder_of_bytes, bytes)
    assert_type(await mkstemp(), tuple[int, str])
    assert_type(await mkdtemp(prefix=b"x"), bytes)
