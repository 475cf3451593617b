"""Reads that fall short, and files that say too little of their size: a whole file is read all the
same, and a read is no shorter than read(2)'s."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import URING, Backend, no_descriptors_left
from fuse import isolated
from open_files import on_both

import trio_uring
from trio_uring import open_file

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MIB = 1 << 20
MADE_UP = [
    "/proc/self/mountinfo",
    "/proc/self/environ",
    "/sys/kernel/btf/vmlinux",
    "/sys/kernel/notes",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/devices/system/cpu/possible",
]


async def by_reads(path: str, size: int, buffering: int = -1) -> bytes:
    parts = []
    async with await open_file(path, "rb", buffering) as file:
        while data := await file.read(size):
            parts.append(data)
    return b"".join(parts)


async def by_lines(path: str) -> bytes:
    async with await open_file(path, "rb") as file:
        return b"".join([line async for line in file])


async def as_text(path: str) -> bytes:
    async with await open_file(path, encoding="latin-1", newline="") as file:
        return (await file.read()).encode("latin-1")


WAYS: dict[str, Callable[[str], Awaitable[bytes]]] = {
    "read_bytes": lambda path: trio_uring.Path(path).read_bytes(),
    "read": lambda path: by_reads(path, -1),
    "read without a buffer": lambda path: by_reads(path, -1, 0),
    "pieces": lambda path: by_reads(path, 100_000),
    "pieces without a buffer": lambda path: by_reads(path, 600_000, 0),
    "lines": by_lines,
    "text": as_text,
}


@on_both
@pytest.mark.parametrize("way", WAYS)
def test_what_the_kernel_makes_up_is_read_to_its_end(backend: Backend, way: str) -> None:
    async def main() -> None:
        for path in MADE_UP:
            if way == "lines" and path == "/sys/kernel/btf/vmlinux":
                continue  # of 5 MB, most of which ends none
            try:
                expected = Path(path).read_bytes()
            except OSError:
                continue
            assert await WAYS[way](path) == expected, path

    backend.run(main)


@on_both
def test_memory_of_a_process_is_read_and_written_at_its_address(backend: Backend) -> None:
    import ctypes

    memory = ctypes.create_string_buffer(b"what is there", 5000)

    async def main() -> None:
        address = ctypes.addressof(memory)
        for buffering in (0, -1):
            async with await open_file("/proc/self/mem", "r+b", buffering) as file:
                assert await file.seek(address) == address
                assert await file.read(4) == b"what"
                assert await file.tell() == address + 4
                await file.seek(address + 5)
                await file.write(b"is")
                assert await file.pread(13, address) == b"what is there"
                with pytest.raises(OSError):  # noqa: PT011
                    await file.pread(10, 1)

    backend.run(main)


@pytest.mark.parametrize("part", [0, 100_000, MIB, 3 * MIB + 1])
@pytest.mark.parametrize("buffering", [0, -1])
def test_a_read_of_a_partly_cached_file_does_not_fall_short(
    tmp_path: Path, part: int, buffering: int
) -> None:
    path = tmp_path / "file"
    content = os.urandom(6 * MIB)
    path.write_bytes(content)

    def cache_a_part() -> None:
        with path.open("r+b", 0) as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            os.pread(file.fileno(), part, 0)

    async def main() -> None:
        for at, size in ((0, 4 * MIB), (1 << 15, 4 * MIB), (4 * MIB, 4 * MIB)):
            cache_a_part()
            async with await open_file(path, "rb", buffering) as file:
                await file.seek(at)
                assert await file.read(size) == content[at : at + size]
                cache_a_part()
                await file.seek(at)
                memory = bytearray(size)
                assert await file.readinto(memory) == len(content[at : at + size])
                assert await file.tell() == min(at + size, len(content))
                assert await file.pread(size, at) == content[at : at + size]

    URING.run(main)


@on_both
@pytest.mark.parametrize("buffering", [0, -1])
def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(
    backend: Backend, tmp_path: Path, buffering: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\n")

    async def main() -> None:
        async with await open_file(path, "rb", buffering) as file:
            with path.open("ab", 0) as other:
                assert await file.read() == b"one\n"
                assert await file.read(10) == b""
                other.write(b"two\n")
                assert await file.readline() == b"two\n"
                assert await file.read() == b""
                other.write(b"x" * 100_000)
                assert await file.read() == b"x" * 100_000

    backend.run(main)


# A server that falls short, and fails

SERVED = """
import asyncio, os, pathlib, sys, trio, trio_uring, fuse
content = bytes(range(256)) * 4000
place = pathlib.Path(sys.argv[1])

async def outcome(call):
    try:
        return await call()
    except OSError as error:
        return type(error), error.args

async def used(open_file, path, mode, buffering, sizes, writes):
    seen = []
    async with await open_file(path, mode, buffering) as file:
        for size in sizes:
            seen.append(await outcome(lambda: file.read(size)))
            seen.append(await file.tell())
        if "b" in mode and not buffering:
            memory = bytearray(70_000)
            seen += [await outcome(lambda: file.readinto(memory)), bytes(memory)]
        if writes:
            await file.seek(1000)
            for data in (b"a" * 50_000, b"b" * 10, b"c" * 300_000):
                done = 0
                while done < len(data):
                    done += await file.write(data[done:])
                seen.append(await file.tell())
            await file.flush()
            await file.seek(0)
            seen.append(await outcome(file.read))
    return seen

def check(served, **arguments):
    results = []
    for run, open_file in (
        (trio.run, trio.open_file), (trio_uring.run, trio_uring.open_file), (trio.run, trio_uring.open_file)
    ):
        served.content[:] = content
        async def main():
            return await used(open_file, path, **arguments)
        results.append((run(main), bytes(served.content)))
    assert results[1] == results[0], ("io_uring", arguments, served)
    assert results[2] == results[0], ("epoll", arguments, served)

for how in (
    {}, {"direct": True}, {"direct": True, "most_read": 3000}, {"direct": True, "most_written": 7000},
    {"direct": True, "most_read": 4097, "most_written": 100_000}, {"fails_from": 200_000},
    {"direct": True, "most_read": 3000, "fails_from": 9000},
):
    served = fuse.Served(bytearray(content), **how)
    with fuse.mounted(served, place) as path:
        for mode, buffering in (("r+b", 0), ("r+b", -1), ("rb", 0), ("rb", -1)):
            for sizes in ((-1,), (10_000, 100_000, 5, -1)):
                check(served, mode=mode, buffering=buffering, sizes=sizes, writes="+" in mode)
        async def whole():
            try:
                return await trio_uring.Path(path).read_bytes()
            except OSError as error:
                return error.args
        served.content[:] = content
        try:
            expected = path.read_bytes()
        except OSError as error:
            expected = error.args
        assert trio_uring.run(whole) == trio.run(whole) == expected
        async def lowlevel():
            with open(path, "r+b", 0) as file:
                memory = bytearray(5000)
                seen = []
                for offset in (0, None, None, 7000):
                    try:
                        seen.append(await trio_uring.lowlevel.read(file, memory, offset))
                    except OSError as error:
                        seen.append(error.args)
                    seen.append(bytes(memory))
                return seen
        def expected_lowlevel():
            with open(path, "r+b", 0) as file:
                memory = bytearray(5000)
                seen = []
                for offset in (0, None, None, 7000):
                    try:
                        seen.append(
                            os.readv(file.fileno(), [memory]) if offset is None
                            else os.preadv(file.fileno(), [memory], offset)
                        )
                    except OSError as error:
                        seen.append(error.args)
                    seen.append(bytes(memory))
                return seen
        assert trio_uring.run(lowlevel) == expected_lowlevel()
print("the same")
"""


def test_a_file_system_that_falls_short_or_fails_is_read_and_written_as_by_the_standard_library(
    tmp_path: Path,
) -> None:
    assert isolated(SERVED, str(tmp_path / "mounted")) == "the same\n"


OVERLAY = """
import os, pathlib, resource, subprocess, sys, fuse
from trio_uring.lowlevel.file_systems import is_measured

def mount(kind, options, place):
    place.mkdir()
    subprocess.run(["mount", "-t", kind, "-o", options, "none", str(place)], check=True)

def measured(path):
    with open(path, "rb") as file:
        return is_measured(file.fileno(), os.fstat(file.fileno()))

place = pathlib.Path(sys.argv[1])
mount("tmpfs", "size=1M", place / "memory")
for name in ("lower", "upper", "work", "upper2", "work2"):
    (place / "memory" / name).mkdir()
(place / "memory" / "lower" / "file").write_bytes(b"x")
assert measured(place / "memory" / "lower" / "file")
memory = place / "memory"
mount("overlay", f"lowerdir={memory}/lower,upperdir={memory}/upper,workdir={memory}/work", place / "overlay")
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
with open(place / "overlay" / "file") as file:
    status = os.fstat(file.fileno())
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    assert not is_measured(file.fileno(), status)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert is_measured(file.fileno(), status)
with fuse.mounted(fuse.Served(bytearray(b"x")), place / "served") as path:
    assert not measured(path)
    mount(
        "overlay",
        f"lowerdir={path.parent},upperdir={memory}/upper2,workdir={memory}/work2",
        place / "overlay of served",
    )
    assert not measured(place / "overlay of served" / "file")
assert not measured("/proc/version")
print("told apart")
"""


def test_file_systems_are_told_apart(tmp_path: Path) -> None:
    assert isolated(OVERLAY, str(tmp_path)) == "told apart\n"


@pytest.mark.parametrize("name", ["/dev/null", "/dev/zero", "/proc/version", __file__])
def test_the_last_descriptor_opens_whatever_it_is(name: str) -> None:
    async def main() -> None:
        expected = Path(name).open("rb").read(4)  # noqa: SIM115
        await (await open_file(name, "rb")).aclose()
        last = os.open(os.devnull, os.O_RDONLY)
        with no_descriptors_left():
            os.close(last)
            async with await open_file(name, "rb") as file:
                assert await file.read(4) == expected

    trio_uring.run(main)


def test_files_on_other_file_systems_are_read_by_threads_and_named_ones_by_the_ring(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    used: list[Any] = []

    async def main() -> None:
        original = trio.to_thread.run_sync

        async def noting(call: Any, *args: Any, **options: Any) -> Any:
            used.append(call)
            return await original(call, *args, **options)

        trio.to_thread.run_sync = noting  # type: ignore[assignment]
        try:
            async with await open_file("/proc/version", "rb") as file:
                assert await file.read()
                assert used
                used.clear()
            async with await open_file(path, "r+b") as file:
                if file._position.measured:
                    assert await file.read() == b"x" * 100
                    await file.write(b"y")
                    await file.flush()
                    assert await file.pread(1, 100) == b"y"
                    assert not used
        finally:
            trio.to_thread.run_sync = original

    URING.run(main)
