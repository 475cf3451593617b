"""Files that are no regular ones, very large ones, and descriptors, against the standard library."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import stat
import tty
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from attempts import check, open_standard, renew
from calls import Raised, Returned, attributes_of, contents_of, finish, outcome_of
from subjects import Subject, every_subject

if TYPE_CHECKING:
    from calls import OpenFile, Outcome


@every_subject
def test_files_that_the_kernel_makes_up(subject: Subject, playground: Path) -> None:
    check(
        subject,
        [
            {"file": name, "mode": mode, "buffering": buffering}
            for name in ["/dev/null", "/proc/version", "/proc/self/limits", "/proc", "/dev/full", "/dev/tty"]
            for mode, buffering in [
                ("r", -1),
                ("rb", -1),
                ("rb", 0),
                ("w", -1),
                ("r+b", 0),
                ("a", -1),
                ("x", -1),
            ]
            if (name, mode[0]) != ("/dev/full", "r")  # Zeros without end.
        ],
    )


@every_subject
@pytest.mark.parametrize("closefd", [True, False])
@pytest.mark.parametrize("mode", ["r", "rb", "r+", "a"])
def test_a_descriptor_instead_of_a_name(subject: Subject, mode: str, closefd: bool, playground: Path) -> None:
    """It starts where the descriptor is, and is closed only if it is to be."""

    async def use(open_file: OpenFile) -> list[object]:
        renew()
        fd = os.open("file", os.O_RDWR)
        os.lseek(fd, 4, os.SEEK_SET)
        file = await open_file(file=fd, mode=mode, closefd=closefd)
        seen: list[object] = [file.name == fd, file.mode, await file.tell(), attributes_of(file)["closed"]]
        assert isinstance(attributes_of(file)["fileno"], Returned)
        if file.readable():
            seen.append(await file.readline())
            seen.append(await file.tell())
        if file.writable():
            await file.write("written")
        await file.aclose()
        return [*seen, close_if_open(fd), contents_of(Path("file"))]

    expected = finish(use(open_standard))
    assert subject.backend.run(lambda: use(subject.open_file)) == expected


@every_subject
@pytest.mark.parametrize("buffering", [-1, 0])
def test_a_file_over_4_gib(subject: Subject, buffering: int, playground: Path) -> None:
    at = 5 * 1024**3 + 7

    async def use(open_file: OpenFile) -> list[object]:
        file = await open_file(file="large", mode="w+b", buffering=buffering)
        try:
            return [
                await file.seek(at),
                await file.write(b"end\nof it"),
                await file.tell(),
                await file.seek(-9, os.SEEK_END),
                await file.readline(),
                await file.tell(),
                await file.truncate(at + 2),
                await file.seek(at - 2),
                await file.read(),
                await file.tell(),
            ]
        finally:
            await file.aclose()
            os.unlink("large")

    expected = finish(use(open_standard))
    assert expected[4] == b"end\n"
    assert subject.backend.run(lambda: use(subject.open_file)) == expected


@every_subject
@pytest.mark.parametrize("kind", ["text", "buffered", "raw"])
def test_a_fifo_between_two_files(subject: Subject, kind: str, playground: Path) -> None:
    """Both ends are opened and used at the same time; neither can seek."""
    os.mkfifo("fifo")
    binary, extra = kind != "text", {"buffering": 0} if kind == "raw" else {}
    data: Any = b"line\n" * 30_000 if binary else "l\u00edne\n" * 30_000
    read: list[Any] = []

    async def write() -> None:
        async with await subject.open_file("fifo", "wb" if binary else "w", **extra) as file:
            sent = 0
            while sent < len(data):
                sent += await file.write(data[sent:])
            assert not file.seekable()
            for call in [file.tell, lambda: file.seek(0)]:
                with pytest.raises(OSError, match="seek"):
                    await call()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            async with await subject.open_file("fifo", "rb" if binary else "r", **extra) as file:
                while chunk := await file.read(10_000):
                    read.append(chunk)
                assert not file.seekable()

    subject.backend.run(main)
    assert data[:0].join(read) == data


@every_subject
def test_what_a_pipe_cannot_do(subject: Subject) -> None:
    modes = ["r", "rb", "w", "wb", "a", "r+", "r+b"]

    async def use(open_file: OpenFile, end: int, mode: str, buffering: int) -> list[object]:
        ends = os.pipe()
        outcome, file = await outcome_of(
            lambda: open_file(file=ends[end], mode=mode, buffering=buffering), checkpoints=False
        )
        os.close(ends[1 - end])
        if file is None:
            assert isinstance(outcome, Raised)
            return [outcome.type, close_if_open(ends[end])]
        async with aclosing(file):
            return [
                (await outcome_of(file.tell, checkpoints=False))[0],
                (await outcome_of(lambda: file.seek(0), checkpoints=False))[0],
                (await outcome_of(lambda: file.truncate(1), checkpoints=False))[0],
                (await outcome_of(lambda: file.read(1), checkpoints=False))[0],
                [file.isatty(), file.seekable(), file.readable(), file.writable()],
            ]

    async def use_all(open_file: OpenFile) -> list[list[object]]:
        return [await use(open_file, *case) for case in itertools.product([0, 1], modes, [-1, 0])]

    expected = finish(use_all(open_standard))
    assert subject.backend.run(lambda: use_all(subject.open_file)) == expected


@every_subject
@pytest.mark.parametrize(("mode", "buffering"), [("r", -1), ("rb", -1), ("rb", 0)])
def test_a_non_blocking_pipe_that_has_nothing_or_half_a_line(
    subject: Subject, mode: str, buffering: int
) -> None:
    """Nothing is not the end of the file."""

    async def use(open_file: OpenFile, call: str, sent: bytes) -> Outcome:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.write(writer, sent)
        try:
            async with aclosing(await open_file(file=reader, mode=mode, buffering=buffering)) as file:
                return (await outcome_of(getattr(file, call), checkpoints=False))[0]
        finally:
            os.close(writer)

    async def use_all(open_file: OpenFile) -> list[Outcome]:
        calls = ["read", "readline", "readlines"]
        return [await use(open_file, *case) for case in itertools.product(calls, [b"", b"half"])]

    assert subject.backend.run(lambda: use_all(subject.open_file)) == finish(use_all(open_standard))


@every_subject
@pytest.mark.parametrize("sizes", [(8000, 100, 1000, 5000), (100, 8092, 1), (20_000, 1), (8192, 8192)])
@pytest.mark.parametrize("is_full", [True, False])
def test_a_buffer_takes_what_a_non_blocking_pipe_does_not(
    subject: Subject, sizes: tuple[int, ...], is_full: bool
) -> None:
    """So much as it has room for. The error tells how much that was."""
    data = [bytes([number]) * size for number, size in enumerate(sizes)]

    async def use(open_file: OpenFile) -> list[object]:
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        if is_full:
            os.write(writer, bytes(4096))
        file = await open_file(file=writer, mode="wb", buffering=8192)
        seen: list[object] = []
        accepted = arrived = b""
        for part in data:
            outcome, count = await outcome_of(partial(file.write, part), checkpoints=False)
            if isinstance(outcome, Raised):
                count = outcome.details[0][2]
            accepted += part[:count]
            seen.append(outcome)
        is_flushed = False
        while not is_flushed:
            arrived += os.read(reader, 8192)
            with suppress(BlockingIOError):
                await file.flush()
                is_flushed = True
        await file.aclose()
        while last := os.read(reader, 8192):
            arrived += last
        os.close(reader)
        assert arrived == bytes(4096 * is_full) + accepted
        return seen

    assert subject.backend.run(lambda: use(subject.open_file)) == finish(use(open_standard))


def close_if_open(fd: int) -> str:
    try:
        os.close(fd)
    except OSError:
        return "closed"
    return "left open"


@every_subject
@pytest.mark.parametrize("mode", ["r", "rb"])
def test_a_terminal_gives_lines_as_they_come(subject: Subject, mode: str) -> None:
    async def main() -> None:
        master, slave = pty.openpty()
        tty.setraw(slave)
        assert stat.S_ISCHR(os.fstat(slave).st_mode)
        async with (
            await subject.open_file(master, "wb", 0) as keyboard,
            await subject.open_file(slave, mode) as file,
        ):
            assert file.isatty()
            if mode == "r":
                assert file.line_buffering
            for text in [b"first\n", b"sec", b"ond\nthird\n"]:
                await keyboard.write(text)
            lines = [await file.readline() for _ in range(3)]
        assert lines == (
            ["first\n", "second\n", "third\n"] if mode == "r" else [b"first\n", b"second\n", b"third\n"]
        )

    subject.backend.run(main)
