"""What a type checker makes of a program that uses files and paths: read by the lint session alone."""

from __future__ import annotations

import io

import trio  # noqa: TC002
from typing_extensions import assert_type

from trio_uring import Path, open_file, wrap_file


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
    assert_type(await Path("x").read_bytes(), bytes)
