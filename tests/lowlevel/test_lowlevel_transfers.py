"""`trio_uring.lowlevel` against `os`: what is read, written and moved, and how it fails."""

from __future__ import annotations

import array
import ctypes
import errno
import mmap
import os
import resource
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from comparison import (
    NUMBERS,
    Descriptor,
    compare,
    file_that_is_closed,
    of_ours,
)
from equivalence import URING
from file_limits import disk_of

from trio_uring import lowlevel
from trio_uring.ring.features import has_operation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

MAP_NORESERVE = 0x4000  # in mmap from Python 3.11 on

BUFFERS: dict[str, Callable[[], Any]] = {
    "bytearray": lambda: bytearray(24),
    "slice of a memoryview": lambda: memoryview(bytearray(40))[8:32],
    "array": lambda: array.array("d", [0.0] * 3),
    "memoryview of two dimensions": lambda: memoryview(bytearray(24)).cast("B", (4, 6)),
    "memoryview of zero length": lambda: memoryview(bytearray(4))[4:],
    "memoryview of two dimensions of which one is 0": lambda: memoryview(bytearray(4)).cast("B", (2, 2))[:0],
    "mmap": lambda: mmap.mmap(-1, 24),
    "ctypes array": ctypes.c_int * 6,
    "ctypes string": lambda: ctypes.create_string_buffer(24),
    "empty": bytearray,
}
REFUSED: dict[str, Callable[[], Any]] = {
    "every other byte": lambda: memoryview(bytearray(24))[::2],
    "backwards": lambda: memoryview(bytearray(24))[::-1],
    "text": lambda: "text",
    "number": lambda: 7,
    "nothing": lambda: None,
}
READ_ONLY: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"0123",
    "read-only memoryview": lambda: memoryview(bytearray(4)).toreadonly(),
    "memoryview of bytes": lambda: memoryview(b"0123")[1:],
}


@pytest.mark.parametrize("kind", BUFFERS)
def test_every_kind_of_buffer_is_read_into_and_written_from(tree: Path, threads: None, kind: str) -> None:
    content = bytes(range(1, 25))
    Path("file").write_bytes(content)

    async def main() -> None:
        with open("file", "rb", buffering=0) as file, open("copy", "w+b", buffering=0) as copy:
            buffer, expected = BUFFERS[kind](), BUFFERS[kind]()
            assert await lowlevel.read(file, buffer, 0) == os.preadv(file.fileno(), [expected], 0)
            assert bytes(buffer) == bytes(expected)
            assert await lowlevel.readv(file, [buffer, bytearray(1)], 3) <= 24
            assert bytes(buffer)[:21] == content[3 : 3 + len(bytes(buffer))]
            assert await lowlevel.write(copy, buffer) == len(bytes(buffer))
            assert await lowlevel.writev(copy, [buffer, b"", b"end"]) == len(bytes(buffer)) + 3
            assert Path("copy").read_bytes() == bytes(buffer) * 2 + b"end"

    URING.run(main)


@pytest.mark.parametrize("kind", READ_ONLY)
def test_a_read_only_buffer_is_written_but_not_read_into(tree: Path, kind: str) -> None:
    async def main() -> None:
        with open("file", "r+b", buffering=0) as file:
            data = READ_ONLY[kind]()
            assert await lowlevel.write(file, data, 0) == len(data)
            assert await lowlevel.writev(file, [data, data], 0) == 2 * len(data)
            for refused in (lowlevel.read(file, data), lowlevel.readv(file, [bytearray(1), data])):
                with pytest.raises(TypeError, match="read-only"):
                    await refused

    URING.run(main)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_one_stretch_of_bytes_is_refused(tree: Path, kind: str) -> None:
    async def main() -> None:
        with open("file", "r+b", buffering=0) as file:
            data = REFUSED[kind]()
            for refused in (
                lowlevel.read(file, data),
                lowlevel.write(file, data),
                lowlevel.readv(file, [bytearray(3), data]),
                lowlevel.writev(file, [b"abc", data]),
            ):
                with pytest.raises((TypeError, BufferError)):
                    await refused
            assert file.tell() == 0

    URING.run(main)
    assert Path("file").read_bytes() == b"0123456789"


def test_an_offset_leaves_the_position_alone_and_none_moves_it(tree: Path, threads: None) -> None:
    async def main() -> None:
        with open("file", "r+b", buffering=0) as file:
            buffer = bytearray(4)
            assert await lowlevel.read(file, buffer, 5) == 4
            assert (bytes(buffer), file.tell()) == (b"5678", 0)
            assert await lowlevel.read(file, buffer) == 4
            assert (bytes(buffer), file.tell()) == (b"0123", 4)
            assert await lowlevel.write(file, b"ab") == 2
            assert await lowlevel.writev(file, [b"c", b"d"], 9) == 2
            assert file.tell() == 6
            assert await lowlevel.readv(file, [buffer, bytearray(9)]) == 5
            assert await lowlevel.read(file, buffer) == 0
        assert Path("file").read_bytes() == b"0123ab678cd"

    URING.run(main)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_out_of_range_raises_as_in_os_and_is_never_wrapped(tree: Path, number: int) -> None:
    os.truncate("file", 1)
    with open("file", "r+b", buffering=0) as file, open("/dev/null", "wb", buffering=0) as null:
        fd = file.fileno()
        # os.preadv takes -1 for the file's own position.
        compare(
            lambda: len(os.pread(fd, 3, number)),
            lambda: lowlevel.read(fd, bytearray(3), number),
        )
        compare(
            lambda: len(os.pread(fd, 3, number)),
            lambda: lowlevel.readv(fd, [bytearray(3)], number),
        )
        if not 4096 < number < 1 << 63:
            compare(lambda: os.pwrite(fd, b"x", number), lambda: lowlevel.write(fd, b"x", number))
            compare(lambda: os.pwrite(fd, b"x", number), lambda: lowlevel.writev(fd, [b"x"], number))
            compare(lambda: os.posix_fallocate(fd, number, 1), lambda: lowlevel.fallocate(fd, 0, number, 1))
            compare(lambda: os.posix_fallocate(fd, 0, number), lambda: lowlevel.fallocate(fd, 0, 0, number))
        if has_operation("ftruncate"):
            compare(lambda: os.ftruncate(fd, number), lambda: lowlevel.ftruncate(fd, number))
        assert file.tell() == 0
        if number not in (0, 1):
            compare(
                lambda: os.preadv(number, [bytearray(3)], 0), lambda: lowlevel.read(number, bytearray(3), 0)
            )
            compare(lambda: os.pwrite(number, b"x", 0), lambda: lowlevel.write(number, b"x", 0))
        ends = os.pipe()
        with Descriptor(ends[0]), Descriptor(ends[1]):
            for end in ends:
                os.set_blocking(end, False)
            os.ftruncate(fd, 4)
            os.write(ends[1], b"abc")
            compare(
                lambda: splice_back(ends, os.splice(ends[0], null.fileno(), number)),
                lambda: our_splice_back(ends, lowlevel.splice(ends[0], null, number)),
            )
            if number < 0 or number > 4096:
                compare(
                    lambda: os.splice(fd, ends[1], 1, offset_src=number),
                    lambda: lowlevel.splice(fd, ends[1], 1, source_offset=number),
                )
                compare(
                    lambda: os.splice(ends[0], fd, 1, offset_dst=number if number < 0 else 1 << 64),
                    lambda: lowlevel.splice(
                        ends[0], fd, 1, destination_offset=number if number < 0 else 1 << 64
                    ),
                )


def splice_back(ends: tuple[int, int], moved: int) -> int:
    os.write(ends[1], b"abc"[:moved])
    return moved


async def our_splice_back(ends: tuple[int, int], moving: Awaitable[int]) -> int:
    return splice_back(ends, await moving)


def test_one_call_moves_what_one_system_call_does(tree: Path, threads: None) -> None:
    large = mmap.mmap(-1, 3 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)

    async def main() -> None:
        with open("/dev/null", "wb", buffering=0) as null:
            assert await lowlevel.write(null, large) == os.write(null.fileno(), large)
        with open("file", "rb", buffering=0) as file:
            assert await lowlevel.read(file, large, 0) == 10
            assert await lowlevel.readv(file, [large, large], 0) == 10

    URING.run(main)
    large.close()


def test_a_vector_has_as_many_buffers_as_in_os(tree: Path) -> None:
    with open("file", "r+b", buffering=0) as file:
        fd = file.fileno()
        for count in (0, 1, 8, 9, 1024, 1025):
            compare(
                lambda count=count: os.preadv(fd, [bytearray(1)] * count, 0),
                lambda count=count: lowlevel.readv(fd, [bytearray(1)] * count, 0),
            )
            compare(
                lambda count=count: os.pwritev(fd, [b"x"] * count, 0),
                lambda count=count: lowlevel.writev(fd, [b"x"] * count, 0),
            )


def test_a_descriptor_that_cannot_is_the_error_of_os(tree: Path, threads: None) -> None:
    with (
        Descriptor(os.open("file", os.O_RDONLY)) as reader,
        Descriptor(os.open("file", os.O_WRONLY)) as writer,
        Descriptor(os.open("dir", os.O_RDONLY)) as directory,
        Descriptor(os.open("file", os.O_PATH)) as path,
        Descriptor(os.open("/dev/full", os.O_RDWR)) as full,
    ):
        for fd in (reader, writer, directory, path, full, file_that_is_closed()):
            for function, ours in (
                (lambda fd: os.preadv(fd, [bytearray(3)], 0), lambda fd: lowlevel.read(fd, bytearray(3), 0)),
                (lambda fd: os.write(fd, b"x"), lambda fd: lowlevel.write(fd, b"x")),
                (lambda fd: os.writev(fd, [b"x"]), lambda fd: lowlevel.writev(fd, [b"x"])),
                (os.fsync, lowlevel.fsync),
                (os.fdatasync, lowlevel.fdatasync),
            ):
                compare(partial(function, fd), partial(ours, fd))
            if has_operation("ftruncate"):
                compare(partial(os.ftruncate, fd, 5), partial(lowlevel.ftruncate, fd, 5))


def test_what_is_no_file_is_a_type_error() -> None:
    async def main() -> None:
        for wrong in ("0", None, 1.0, b"0"):
            for refused in (lowlevel.read(wrong, bytearray(1)), lowlevel.fsync(wrong), lowlevel.fstat(wrong)):  # type: ignore[arg-type]
                with pytest.raises(TypeError):
                    await refused

    URING.run(main)


def test_fallocate_reserves_punches_and_grows(tree: Path) -> None:
    keep_size, punch_hole = 1, 2

    async def main() -> None:
        with open("file", "r+b", buffering=0) as file:
            await lowlevel.fallocate(file, 0, 0, 100)
            assert os.fstat(file.fileno()).st_size == 100
            await lowlevel.fallocate(file, keep_size, 0, 1000)
            assert os.fstat(file.fileno()).st_size == 100
            await lowlevel.fallocate(file, keep_size | punch_hole, 2, 3)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await lowlevel.fallocate(file_that_is_closed(), 0, 0, 1)

    URING.run(main)
    assert Path("file").read_bytes()[:10] == b"01\0\0\x0056789"


def test_a_file_over_4_gib_is_reached_everywhere(tree: Path) -> None:
    far = (1 << 32) + 5

    async def main() -> None:
        with open("file", "r+b", buffering=0) as file:
            assert await lowlevel.write(file, b"far", far) == 3
            buffer = bytearray(9)
            assert await lowlevel.read(file, buffer, far) == 3
            assert buffer[:3] == b"far"
            assert (await lowlevel.fstat(file)).st_size == far + 3
            ends = os.pipe()
            with Descriptor(ends[0]), Descriptor(ends[1]):
                assert await lowlevel.splice(file, ends[1], 99, source_offset=far) == 3
                assert os.read(ends[0], 99) == b"far"
            if has_operation("ftruncate"):
                await lowlevel.ftruncate(file, far + 1)
                assert os.fstat(file.fileno()).st_size == far + 1

    URING.run(main)


def test_a_full_device_is_enospc(threads: None) -> None:
    async def main() -> None:
        with open("/dev/full", "wb", buffering=0) as full:
            for refused in (lowlevel.write(full, b"x"), lowlevel.writev(full, [b"x"])):
                with pytest.raises(OSError, match="No space left on device") as raised:
                    await refused
                assert raised.value.errno == errno.ENOSPC

    URING.run(main)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disk_of(1 << 16, tmp_path / "small") as place:
        yield place


def test_a_full_disk_takes_what_it_can_and_then_is_enospc(small_disk: Path) -> None:
    data = bytes(100_000)

    async def main() -> None:
        with open(small_disk / "ours", "wb", buffering=0) as file:
            assert await lowlevel.write(file, data, 0) == 1 << 16
            with pytest.raises(OSError, match="No space left on device"):
                await lowlevel.write(file, data, 1 << 16)
            with pytest.raises(OSError, match="No space left on device"):
                await lowlevel.fallocate(file, 0, 0, 1 << 17)

    URING.run(main)


def test_a_file_that_would_be_too_large_is_cut_off_and_then_efbig(tree: Path) -> None:
    async def main() -> list[object]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        with open("file", "wb", buffering=0) as file:
            # The limit is the submitting thread's, also for the kernel's workers.
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
            try:
                results = [
                    await of_ours(partial(lowlevel.write, file, bytes(4000), offset))
                    for offset in (0, 4000, 5000)
                ]
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return results

    results = URING.run(main)
    assert results == [4000, 1000, (OSError, errno.EFBIG, os.strerror(errno.EFBIG), None, None)]
    assert os.path.getsize("file") == 5000


def test_a_file_that_is_cut_off_while_it_is_read_ends_there(tree: Path, threads: None) -> None:
    Path("file").write_bytes(bytes(100_000))

    async def main() -> list[int]:
        sizes = []
        with open("file", "rb", buffering=0) as file:
            while size := await lowlevel.read(file, bytearray(30_000)):
                sizes.append(size)
                os.truncate("file", 50_000)
        return sizes

    assert URING.run(main) == [30_000, 20_000]
