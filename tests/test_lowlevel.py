"""`trio_uring.lowlevel` against `os`: what each function does, returns and raises."""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import mmap
import os
import resource
import stat
import subprocess
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import URING
from trio._core import _thread_cache

from trio_uring import lowlevel
from trio_uring.features import has_operation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

MAP_NORESERVE = 0x4000  # in mmap from Python 3.11 on
HUGE = (1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, (1 << 64) + 1)
NUMBERS = (0, 1, 4096, -1, -2, -(1 << 31), -(1 << 62), -(1 << 64), *HUGE)
PATHS: tuple[Any, ...] = (
    *("file", "dir", "full", "link", "dangling", "loop", "fifo", "missing", "missing/x", "file/x", "."),
    *("", "x" * 300, "x/" * 3000, "nul\0byte", b"nul\0byte", b"file", b"missing", "\u00fc", "\udcff"),
    *(Path("file"), Path("missing"), 3.5, None),
)


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a thread was started")

    monkeypatch.setattr(_thread_cache.ThreadCache, "start_thread_soon", refuse)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_tree()
    return tmp_path


def make_tree() -> None:
    Path("file").write_bytes(b"0123456789")
    Path("dir").mkdir()
    Path("full").mkdir()
    Path("full/inner").write_text("inner")
    os.symlink("file", "link")
    os.symlink("nowhere", "dangling")
    os.symlink("loop", "loop")
    os.mkfifo("fifo")


def snapshot() -> list[object]:
    """Every name below the working directory, and what is there."""
    found: list[object] = []
    for directory, _, _ in os.walk(b"."):
        for entry in os.scandir(directory):
            status = entry.stat(follow_symlinks=False)
            target = os.readlink(entry) if entry.is_symlink() else b""
            found.append((entry.path, status.st_mode, status.st_nlink, status.st_size, target))
    return sorted(found, key=repr)


def description(error: BaseException) -> tuple[object, ...]:
    if isinstance(error, OSError):
        return (type(error), error.errno, error.strerror, error.filename, error.filename2)
    return (type(error),)


def of_os(function: Callable[[], object]) -> object:
    try:
        return function()
    except (OSError, ValueError, TypeError, OverflowError, BufferError) as error:
        return description(error)


async def of_ours(function: Callable[[], Awaitable[object]]) -> object:
    with trio.testing.assert_checkpoints():
        try:
            return await function()
        except (OSError, ValueError, TypeError, OverflowError, BufferError) as error:
            result = description(error)
            await trio.lowlevel.checkpoint()  # an argument that is refused need not be one
            return result


def compare(function: Callable[[], object], ours: Callable[[], Awaitable[object]]) -> object:
    async def main() -> object:
        return await of_ours(ours)

    result = URING.run(main)
    assert result == of_os(function)
    return result


# Paths


def opened(fd: int) -> tuple[object, ...]:
    """What is to be known of a new descriptor, which is closed."""
    with closing(os.fdopen(fd, "rb", buffering=0)) if not is_directory(fd) else Descriptor(fd):
        return os.get_inheritable(fd), fcntl.fcntl(fd, fcntl.F_GETFL), os.fstat(fd).st_mode


def is_directory(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


class Descriptor:
    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def os_open(path: Any, flags: int, mode: int = 0o777, **options: Any) -> object:
    return opened(os.open(path, flags | os.O_NONBLOCK, mode, **options))


async def our_open(path: Any, flags: int, mode: int = 0o777, **options: Any) -> object:
    return opened(await lowlevel.openat(path, flags | os.O_NONBLOCK, mode, **options))


ONE_PATH: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "open to read": (partial(os_open, flags=os.O_RDONLY), partial(our_open, flags=os.O_RDONLY)),
    "open exclusively": (
        partial(os_open, flags=os.O_RDWR | os.O_CREAT | os.O_EXCL, mode=0o640),
        partial(our_open, flags=os.O_RDWR | os.O_CREAT | os.O_EXCL, mode=0o640),
    ),
    "open and empty": (
        partial(os_open, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        partial(our_open, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ),
    "open a directory": (
        partial(os_open, flags=os.O_RDONLY | os.O_DIRECTORY),
        partial(our_open, flags=os.O_RDONLY | os.O_DIRECTORY),
    ),
    "unlink": (os.unlink, lowlevel.unlinkat),
    "rmdir": (os.rmdir, partial(lowlevel.unlinkat, directory=True)),
    "mkdir": (os.mkdir, lowlevel.mkdirat),
    "mkdir with a mode": (partial(os.mkdir, mode=0o2710), partial(lowlevel.mkdirat, mode=0o2710)),
    "symlink to missing": (partial(os.symlink, "missing"), partial(lowlevel.symlinkat, "missing")),
}
TWO_PATHS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "replace": (os.replace, lowlevel.renameat),
    "link": (os.link, lowlevel.linkat),
    "symlink": (os.symlink, lowlevel.symlinkat),
}


@pytest.fixture
def two_trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes a call of os in one tree, ours in an equal one, and compares everything."""
    number = 0

    def call_both(
        function: Callable[[], object], ours: Callable[[], Awaitable[object]], told: object
    ) -> None:
        nonlocal number
        number += 1
        results = []
        for who in ("os", "ours"):
            place = tmp_path / f"{number}-{who}"
            place.mkdir()
            monkeypatch.chdir(place)
            make_tree()
            result = of_os(function) if who == "os" else URING.run(partial(of_ours, ours))
            results.append((result, snapshot()))
        assert results[1] == results[0], told

    yield call_both
    monkeypatch.undo()


@pytest.mark.parametrize("name", ONE_PATH)
def test_a_function_of_one_path_does_what_os_does(name: str, two_trees: Callable[..., None]) -> None:
    function, ours = ONE_PATH[name]
    for path in PATHS:
        two_trees(partial(function, path), partial(ours, path), path)


@pytest.mark.parametrize("name", TWO_PATHS)
def test_a_function_of_two_paths_does_what_os_does(name: str, two_trees: Callable[..., None]) -> None:
    function, ours = TWO_PATHS[name]
    for source in ("file", "dir", "full", "link", "missing", b"file", "", Path("file")):
        for destination in ("new", "file", "dir", "full", "link", "missing/x", "", "\0", Path("new"), None):
            if isinstance(source, bytes) and isinstance(destination, str | Path) and name == "symlink":
                continue
            told = (source, destination)
            two_trees(partial(function, *told), partial(ours, *told), told)


@pytest.mark.parametrize("follow", [True, False])
def test_stat_has_every_field_of_os_stat(tree: Path, follow: bool) -> None:
    os.utime("file", ns=(-1_500_000_001, -(10**18) - 7))
    os.utime("full", ns=(1, 999_999_999))
    for path in (*PATHS, "/dev/null", "/proc/self/status", "/", b"/dev/zero"):
        result = compare(
            partial(os.stat, path, follow_symlinks=follow),
            partial(lowlevel.statx, path, follow_symlinks=follow),
        )
        if isinstance(result, os.stat_result):
            expected = os.stat(path, follow_symlinks=follow)
            for field in dir(expected):
                if field.startswith("st_"):
                    assert getattr(result, field) == getattr(expected, field), (path, field)


def test_fstat_is_os_fstat(tree: Path) -> None:
    with open("file", "rb") as file:
        assert compare(partial(os.fstat, file.fileno()), partial(lowlevel.fstat, file)) == os.stat("file")
    for fd in (file_that_is_closed(), -1, -100, 1 << 31, -(1 << 31) - 1):
        compare(partial(os.fstat, fd), partial(lowlevel.fstat, fd))


def file_that_is_closed() -> int:
    fd = os.open("/dev/null", os.O_RDONLY)
    high = fcntl.fcntl(fd, fcntl.F_DUPFD, 900)
    os.close(fd)
    os.close(high)
    return high


def test_relative_paths_start_at_dir_fd(tree: Path) -> None:
    with Descriptor(os.open("full", os.O_RDONLY)) as full, Descriptor(os.open("file", os.O_RDONLY)) as file:
        for dir_fd in (full, file, file_that_is_closed(), -1, 1 << 31, 1 << 32 | full, -(1 << 33)):
            for path in ("inner", "missing", "/dev/null", str(tree / "file")):
                for function, ours in (
                    (os.stat, lowlevel.statx),
                    (partial(os_open, flags=os.O_RDONLY), partial(our_open, flags=os.O_RDONLY)),
                ):
                    compare(partial(function, path, dir_fd=dir_fd), partial(ours, path, dir_fd=dir_fd))


def test_two_paths_may_start_at_two_directories(two_trees: Callable[..., None]) -> None:
    functions = (
        (os.replace, lowlevel.renameat),
        (
            partial(os.link, follow_symlinks=True),
            partial(lowlevel.linkat, follow_symlinks=True),
        ),
        (
            partial(os.link, follow_symlinks=False),
            partial(lowlevel.linkat, follow_symlinks=False),
        ),
    )

    def of_os(function: Callable[..., Any], wrap: Callable[[int], int], name: str) -> object:
        with (
            Descriptor(os.open(".", os.O_RDONLY)) as source,
            Descriptor(os.open("dir", os.O_RDONLY)) as destination,
        ):
            return function(name, "new", src_dir_fd=source, dst_dir_fd=wrap(destination))

    async def of_us(function: Callable[..., Any], wrap: Callable[[int], int], name: str) -> object:
        with (
            Descriptor(os.open(".", os.O_RDONLY)) as source,
            Descriptor(os.open("dir", os.O_RDONLY)) as destination,
        ):
            return await function(name, "new", source_dir_fd=source, destination_dir_fd=wrap(destination))

    for function, ours in functions:
        for wrap in (int, lambda fd: fd | 1 << 32, lambda fd: -1, lambda fd: 1 << 31):
            for name in ("file", "link", "missing"):
                two_trees(partial(of_os, function, wrap, name), partial(of_us, ours, wrap, name), name)


def test_descriptors_run_out_as_with_os(tree: Path) -> None:
    async def main() -> object:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        await lowlevel.statx("file")
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        taken = []
        try:
            while len(taken) < 10_000:
                taken.append(await lowlevel.openat("file", os.O_RDONLY))
        except OSError as error:
            return description(error)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in taken:
                await lowlevel.close(fd)
        return None

    assert URING.run(main) == (OSError, errno.EMFILE, os.strerror(errno.EMFILE), "file", None)


# Reading and writing

BUFFERS: dict[str, Callable[[], Any]] = {
    "bytearray": lambda: bytearray(24),
    "slice of a memoryview": lambda: memoryview(bytearray(40))[8:32],
    "array": lambda: array.array("d", [0.0] * 3),
    "memoryview of two dimensions": lambda: memoryview(bytearray(24)).cast("B", (4, 6)),
    "memoryview of zero length": lambda: memoryview(bytearray(4))[4:],
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
def test_every_kind_of_buffer_is_read_into_and_written_from(tree: Path, kind: str) -> None:
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


def test_an_offset_leaves_the_position_alone_and_none_moves_it(tree: Path) -> None:
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


def test_one_call_moves_what_one_system_call_does(tree: Path) -> None:
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


def test_a_descriptor_that_cannot_is_the_error_of_os(tree: Path) -> None:
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


def test_a_full_device_is_enospc() -> None:
    async def main() -> None:
        with open("/dev/full", "wb", buffering=0) as full:
            for refused in (lowlevel.write(full, b"x"), lowlevel.writev(full, [b"x"])):
                with pytest.raises(OSError, match="No space left on device") as raised:
                    await refused
                assert raised.value.errno == errno.ENOSPC

    URING.run(main)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; needs root, and a container that lets it mount."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


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


def test_a_file_that_is_cut_off_while_it_is_read_ends_there(tree: Path) -> None:
    Path("file").write_bytes(bytes(100_000))

    async def main() -> list[int]:
        sizes = []
        with open("file", "rb", buffering=0) as file:
            while size := await lowlevel.read(file, bytearray(30_000)):
                sizes.append(size)
                os.truncate("file", 50_000)
        return sizes

    assert URING.run(main) == [30_000, 20_000]


def test_functions_say_that_they_need_a_run_on_io_uring() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="not on io_uring"):
            await lowlevel.statx("/")

    trio.run(main)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY], ids=["reader", "writer"])
def test_a_fifo_is_not_open_before_its_other_end(tree: Path, flags: int) -> None:
    os.stat("fifo")  # a name that the kernel knows is opened without a worker

    async def main() -> None:
        opened: list[int] = []

        async def open_fifo() -> None:
            opened.append(await lowlevel.openat("fifo", flags))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_fifo)
            await trio.testing.wait_all_tasks_blocked()
            assert opened == []
            with Descriptor(os.open("fifo", os.O_RDWR)) as other:
                if flags == os.O_RDONLY:
                    os.write(other, b"data")
                while not opened:
                    await trio.lowlevel.checkpoint()
                with Descriptor(*opened) as fd:
                    if flags == os.O_WRONLY:
                        await lowlevel.write(fd, b"data")
                    buffer = bytearray(9)
                    assert await lowlevel.read(fd if flags == os.O_RDONLY else other, buffer) == 4
                    assert buffer[:4] == b"data"

    URING.run(main)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY], ids=["reader", "writer"])
def test_opening_a_fifo_is_cancelled_and_leaves_no_descriptor(tree: Path, flags: int) -> None:
    before = os.listdir("/proc/self/fd")

    async def main() -> None:
        with trio.move_on_after(0.01) as scope:
            await lowlevel.openat("fifo", flags)
        assert scope.cancelled_caught

    URING.run(main)
    assert os.listdir("/proc/self/fd") == before
