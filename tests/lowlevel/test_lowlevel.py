"""`trio_uring.lowlevel` against `os`: what each function of a path does, returns and raises."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from comparison import (
    PATHS,
    Descriptor,
    compare,
    description,
    file_that_is_closed,
    make_tree,
    of_os,
    of_ours,
)
from equivalence import URING

from trio_uring import lowlevel
from trio_uring.ring.features import has_operation
from trio_uring.ring.opcodes import OPCODES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


def snapshot() -> list[object]:
    """Every name below the working directory, and what is there."""
    found: list[object] = []
    for directory, _, _ in os.walk(b"."):
        for entry in os.scandir(directory):
            status = entry.stat(follow_symlinks=False)
            target = os.readlink(entry) if entry.is_symlink() else b""
            found.append((entry.path, status.st_mode, status.st_nlink, status.st_size, target))
    return sorted(found, key=repr)


def opened(fd: int) -> tuple[object, ...]:
    """What is to be known of a new descriptor, which is closed."""
    with closing(os.fdopen(fd, "rb", buffering=0)) if not is_directory(fd) else Descriptor(fd):
        return os.get_inheritable(fd), fcntl.fcntl(fd, fcntl.F_GETFL), os.fstat(fd).st_mode


def is_directory(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


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
    "link": (partial(os.link, follow_symlinks=False), lowlevel.linkat),
    "symlink": (os.symlink, lowlevel.symlinkat),
}


def refusal_of(call: partial[Any], result: object) -> object:
    """What a call raises instead of ``result``, that of os, where this kernel lacks its operation: EINVAL,
    unless the arguments were refused before. None where the kernel has it."""
    row = ROWS.get(call.func.__name__)
    if row is None or has_operation(row.name) or (isinstance(result, tuple) and result[0] in REFUSED):
        return None
    first, second = (*map(os.fspath, call.args), None)[:2]
    said = f"{os.strerror(errno.EINVAL)} ({row.name} needs Linux {row.since})"
    return OSError, errno.EINVAL, said, first, second


ROWS = {row.name: row for row in OPCODES}
REFUSED = (TypeError, ValueError, OverflowError)


@pytest.fixture
def two_trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes a call of os in one tree, ours in an equal one, and compares everything. Where the kernel lacks
    the operation that ours calls, that changes nothing, and says so."""
    number = 0

    def call_both(
        function: Callable[[], object],
        ours: partial[Awaitable[object]],
        told: object,
        called: partial[Awaitable[object]] | None = None,
    ) -> None:
        nonlocal number
        number += 1
        results = []
        for who in ("os", "ours"):
            place = tmp_path / f"{number}-{who}"
            place.mkdir()
            monkeypatch.chdir(place)
            make_tree()
            before = snapshot()
            result = of_os(function) if who == "os" else URING.run(partial(of_ours, ours))
            results.append((result, snapshot()))
        if refusal := refusal_of(called or ours, results[0][0]):
            results[0] = (refusal, before)
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
        (os.replace, partial(lowlevel.renameat)),
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
                two_trees(
                    partial(of_os, function, wrap, name),
                    partial(of_us, ours, wrap, name),
                    name,
                    partial(ours.func, name, "new"),
                )


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
@pytest.mark.usefixtures("same_descriptors")
def test_opening_a_fifo_is_cancelled_and_leaves_no_descriptor(tree: Path, flags: int) -> None:
    async def main() -> None:
        with trio.move_on_after(0.01) as scope:
            await lowlevel.openat("fifo", flags)
        assert scope.cancelled_caught

    URING.run(main)
