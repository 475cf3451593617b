"""Files whose position others move as well: children, threads, other files on the same descriptor.

Each program is run by `trio.open_file` too, which uses the kernel's position, and so tells what is
right.
"""

from __future__ import annotations

import fcntl
import io
import mmap
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from equivalence import EPOLL, URING, python
from steps import interrupted

import trio_uring
from trio_uring.files import transfers
from trio_uring.files.memory import Memory
from trio_uring.files.position import SHARED, Position
from trio_uring.loop.current import current_run
from trio_uring.ring.native import lib

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from equivalence import Backend


@attrs.frozen
class Library:
    name: str
    backend: Backend
    open_file: Callable[..., Awaitable[Any]]
    wrap_file: Callable[[Any], Any]

    def run(self, async_fn: Callable[[], Awaitable[Any]]) -> Any:
        return self.backend.run(async_fn)


LIBRARIES = [
    Library("trio", EPOLL, trio.open_file, trio.wrap_file),
    Library("io_uring", URING, trio_uring.open_file, trio_uring.wrap_file),
    Library("epoll", EPOLL, trio_uring.open_file, trio_uring.wrap_file),
]
every_library = pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
every_mode = pytest.mark.parametrize(("mode", "buffering"), [("wb", 0), ("wb", -1), ("w", -1), ("ab", -1)])


def piece(mode: str, data: str) -> Any:
    return data.encode() if "b" in mode else data


@every_library
@every_mode
def test_a_child_that_writes_at_the_same_time_overwrites_nothing(
    library: Library, tmp_path: Path, mode: str, buffering: int
) -> None:
    path = tmp_path / "file"
    lines = [f"parent {number}\n" for number in range(150)]

    async def main() -> None:
        async with await library.open_file(path, mode, buffering) as file:
            child = subprocess.Popen(["seq", "5000"], stdout=file.fileno(), start_new_session=True)
            for line in lines:
                await file.write(piece(mode, line))
                await file.flush()
            assert await trio.to_thread.run_sync(child.wait) == 0

    library.run(main)
    numbers = "".join(f"{number}\n" for number in range(1, 5001))
    found = path.read_text()
    assert len(found) == len(numbers) + sum(map(len, lines))
    for line in lines:
        assert found.count(line) == 1
        found = found.replace(line, "", 1)
    assert found == numbers


@every_library
@every_mode
def test_a_thread_that_prints_to_the_same_file_overwrites_nothing(
    library: Library, tmp_path: Path, mode: str, buffering: int
) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        file = await library.open_file(path, mode, buffering)
        with open(os.dup(file.fileno()), "w") as other:

            def work() -> None:
                for number in range(500):
                    print(f"thread {number}", file=other, flush=True)

            thread = threading.Thread(target=work)
            thread.start()
            for number in range(300):
                await file.write(piece(mode, f"task {number}\n"))
                await file.flush()
            await trio.to_thread.run_sync(thread.join)
        await file.aclose()

    library.run(main)
    expected = [*(f"thread {number}" for number in range(500)), *(f"task {number}" for number in range(300))]
    assert sorted(path.read_text().splitlines()) == sorted(expected)


@every_library
@pytest.mark.parametrize("buffering", [0, -1])
def test_the_descriptor_is_where_the_file_is_when_it_is_asked_for(
    library: Library, tmp_path: Path, buffering: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(200)) * 100)

    async def main() -> list[object]:
        async with await library.open_file(path, "r+b", buffering) as file:
            seen: list[object] = [await file.read(10)]
            await file.seek(5000)
            await file.write(b"abc")
            await file.flush()
            seen += [os.lseek(file.fileno(), 0, os.SEEK_CUR), os.read(file.fileno(), 5)]
            os.lseek(file.fileno(), 100, os.SEEK_SET)
            seen += [await file.tell(), await file.read(3), await file.seek(2, os.SEEK_CUR)]
            return [*seen, await file.read(3)]

    expected = LIBRARIES[0].run(main) if library is LIBRARIES[0] else None
    seen = library.run(main)
    assert seen[1:3] == [5003, bytes(range(3, 8))]
    assert seen[3:] == [100, bytes([100, 101, 102]), 105, bytes([105, 106, 107])]
    assert expected is None or expected[3:] == seen[3:]


@every_library
@pytest.mark.parametrize("mode", ["wb", "w"])
def test_what_was_written_is_in_the_file_when_the_descriptor_is_known(
    library: Library, tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        async with await library.open_file(path, mode) as file:
            await file.write(piece(mode, "x" * 3_000_000))
            fd = file.fileno()
            assert os.fstat(fd).st_size == 3_000_000
            os.write(fd, b"after")

    library.run(main)
    assert path.read_bytes() == b"x" * 3_000_000 + b"after"


def test_a_thread_that_asks_for_the_descriptor_waits_for_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        async with await trio_uring.open_file(path, "wb") as file:
            await file.write(bytes(3_000_000))
            fd = await trio.to_thread.run_sync(file.fileno)
            assert os.fstat(fd).st_size == os.lseek(fd, 0, os.SEEK_CUR) == 3_000_000

    URING.run(main)


@every_library
@pytest.mark.parametrize("attribute", ["wrapped", "raw", "buffer"])
def test_who_gets_the_standard_librarys_file_shares_the_position(
    library: Library, tmp_path: Path, attribute: str
) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        file = await library.open_file(path, "w" if attribute == "buffer" else "wb", -1)
        data: Any = "one\n" if attribute == "buffer" else b"one\n"
        await file.write(data)
        await file.flush()
        below = getattr(file, attribute)
        below.write(b"two\n")
        below.flush()
        await file.write(data)
        await file.aclose()

    library.run(main)
    assert path.read_bytes() == b"one\ntwo\none\n"


@every_library
@pytest.mark.parametrize("buffering", [0, -1])
def test_files_that_are_given_a_descriptor_share_its_position(
    library: Library, tmp_path: Path, buffering: int
) -> None:
    path = tmp_path / "file"
    lines = [f"{number:05}\n".encode() for number in range(500)]
    path.write_bytes(b"".join(lines))
    got: list[bytes] = []

    async def main() -> None:
        fd = os.open(path, os.O_RDONLY)
        one = await library.open_file(fd, "rb", 0)
        other = library.wrap_file(io.FileIO(fd, closefd=False))

        async def read(file: Any) -> None:
            while data := await file.read(6):
                got.append(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, one)
            nursery.start_soon(read, other)
        assert os.lseek(fd, 0, os.SEEK_CUR) == 3000
        await one.aclose()

    library.run(main)
    assert sorted(got) == lines


@every_library
def test_a_wrapped_file_goes_on_where_its_owner_is(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        with io.FileIO(path, "w+") as raw:
            file = library.wrap_file(raw)
            raw.write(b"one ")
            await file.write(b"two ")
            raw.write(b"three ")
            await file.write(b"four")
            raw.seek(4)
            assert await file.read(3) == b"two"
            assert raw.tell() == await file.tell() == 7
            assert await file.readline() == b" three four"

    library.run(main)


@every_library
@pytest.mark.parametrize("mode", ["w", "wb", "a", "r+b"])
def test_an_opener_may_keep_the_descriptor(library: Library, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"..........")
    kept: list[int] = []

    def opener(name: str, flags: int) -> int:
        kept.append(os.dup(fd := os.open(name, flags, 0o666)))
        return fd

    async def main() -> None:
        async with await library.open_file(path, mode, opener=opener) as file:
            await file.write(piece(mode, "one "))
            await file.flush()
            os.write(kept[0], b"two ")
            await file.write(piece(mode, "three"))
        os.close(kept.pop())

    library.run(main)
    start = b".........." if mode == "a" else b""
    assert path.read_bytes() == start + b"one two three"


def test_an_opener_may_append(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"start ")

    async def main() -> None:
        opener = lambda name, flags: os.open(name, flags & ~os.O_TRUNC | os.O_APPEND)  # noqa: E731
        async with await trio_uring.open_file(path, "wb", opener=opener) as file:
            await file.write(b"one ")
            await file.flush()
            with path.open("ab") as other:
                other.write(b"two ")
            await file.write(b"three")
            await file.flush()
            assert await file.tell() == len(b"start one two three")

    URING.run(main)
    assert path.read_bytes() == b"start one two three"


@every_library
def test_flags_that_are_set_later_are_heeded(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        async with await library.open_file(path, "wb", 0) as file:
            await file.write(b"one ")
            fcntl.fcntl(file.fileno(), fcntl.F_SETFL, os.O_APPEND)
            path.open("ab").write(b"two ")
            await file.write(b"three")

    library.run(main)
    assert path.read_bytes() == b"one two three"


@every_library
@pytest.mark.parametrize("length", [512, 4096, 1 << 16])
def test_direct_io_moves_the_position(library: Library, tmp_path: Path, length: int) -> None:
    path = tmp_path / "file"
    count = 6
    path.write_bytes(b"." * length * count)
    memory = mmap.mmap(-1, length)

    def direct(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_DIRECT)

    async def main() -> None:
        try:
            file = await library.open_file(path, "r+b", 0, opener=direct)
        except OSError as error:
            pytest.skip(f"this file system has no O_DIRECT: {error}")
        for number in range(count):
            memory[:] = bytes([65 + number]) * length
            try:
                assert await file.write(memory) == length
            except OSError as error:
                pytest.skip(f"this device has larger blocks: {error}")
        assert await file.tell() == length * count
        assert await file.seek(0) == 0
        read = b""
        while await file.readinto(memory) and len(read) < 2 * count:
            read += memory[:1]
        assert read == b"ABCDEF"
        await file.aclose()

    library.run(main)
    assert path.read_bytes()[::length] == b"ABCDEF"


# Forks

FORK = """
import os, sys, threading, trio, trio_uring
from trio._core._thread_cache import THREAD_CACHE
path, how, mode, size = sys.argv[1:3] + [sys.argv[3]] + [int(sys.argv[4])]
run, open_file = {
    "trio": (trio.run, trio.open_file),
    "io_uring": (trio_uring.run, trio_uring.open_file),
    "epoll": (trio.run, trio_uring.open_file),
}[how]

async def main():
    file = await open_file(path, mode, 0 if size == 0 else -1)
    text = lambda data: data.encode() if "b" in mode else data
    await file.write(text("head " * max(size, 1)))
    if size < 100:
        await file.flush()
    if not (child := os.fork()):
        go_on_elsewhere(file)
    os.waitpid(child, 0)
    await file.write(text("parent"))
    await file.aclose()

async def go_on(file):
    await file.write(b"child " if "b" in mode else "child ")
    await file.aclose()

def go_on_elsewhere(file):
    # The run is the parent's, and so are the threads.
    THREAD_CACHE._idle_workers.clear()
    thread = threading.Thread(target=trio.run, args=(go_on, file))
    thread.start()
    thread.join()
    os._exit(0)

run(main)
"""


@pytest.mark.parametrize(
    ("how", "mode", "size"),
    [
        *(("io_uring", mode, size) for mode, size in (("wb", 0), ("w", 1), ("ab", 1), ("wb", 300_000))),
        ("epoll", "wb", 1),
        ("trio", "w", 1),
    ],
)
def test_parent_and_child_go_on_at_one_position(tmp_path: Path, how: str, mode: str, size: int) -> None:
    """What was written at once, or was flushed, before the fork is there once; so is what the two
    have written since."""
    path = tmp_path / "file"
    python(FORK, str(path), how, mode, str(size))
    assert path.read_bytes() == b"head " * max(size, 1) + b"child parent"


READ_AND_FORK = """
import os, sys, threading, trio, trio_uring
from trio._core._thread_cache import THREAD_CACHE
path, how, buffering = sys.argv[1], sys.argv[2], int(sys.argv[3])
run, open_file = {
    "trio": (trio.run, trio.open_file), "io_uring": (trio_uring.run, trio_uring.open_file)
}[how]

async def main():
    file = await open_file(path, "rb", buffering)
    print(await file.read(3), flush=True)
    if not (child := os.fork()):
        go_on_elsewhere(file)
    os.waitpid(child, 0)
    print("parent", await file.read(3), await file.tell(), flush=True)

async def go_on(file):
    print("child", await file.read(3), await file.tell(), flush=True)

def go_on_elsewhere(file):
    # The run is the parent's, and so are the threads.
    THREAD_CACHE._idle_workers.clear()
    thread = threading.Thread(target=trio.run, args=(go_on, file))
    thread.start()
    thread.join()
    os._exit(0)

run(main)
"""


@pytest.mark.parametrize("buffering", [0, -1])
def test_parent_and_child_read_as_the_standard_library_does(tmp_path: Path, buffering: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(65, 91)))
    seen = [python(READ_AND_FORK, str(path), how, str(buffering)) for how in ("trio", "io_uring")]
    assert seen[0] == seen[1]


def test_a_thread_that_forks_while_a_file_is_written_waits_for_nobody(tmp_path: Path) -> None:
    """The run may be waiting for it."""
    path = tmp_path / "file"

    def fork() -> None:
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)

    async def main() -> None:
        async with await trio_uring.open_file(path, "wb") as file:
            for number in range(5):
                await file.write(bytes([number]) * 2_000_000)
                thread = threading.Thread(target=fork)
                thread.start()
                thread.join()

    URING.run(main)
    assert path.read_bytes() == b"".join(bytes([number]) * 2_000_000 for number in range(5))


# Our own calls


def test_our_own_calls_do_not_give_the_descriptor_away(tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        ours, peer = trio.socket.socketpair()
        async with await trio_uring.open_file(path, "w+b") as file:
            await file.write(b"data")
            await file.flush()
            await file.fsync()
            await file.fdatasync()
            assert await file.pread(2, 1) == b"at"
            assert await trio_uring.lowlevel.read(file, bytearray(3), 1) == 3
            assert (await trio_uring.lowlevel.fstat(file)).st_size == 4
            assert await trio_uring.send_file(trio.SocketStream(ours), file) == 4
            assert file._position.is_ours
            assert await trio_uring.lowlevel.write(file, b" more") == 5
            assert not file._position.is_ours
            await file.write(b" and more")
        peer.close()

    URING.run(main)
    assert path.read_bytes() == b"data more and more"


def test_seeks_and_tells_of_our_own_position_make_no_system_call(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(10_000))

    async def main() -> None:
        async with await trio_uring.open_file(path, "rb", 0) as file:
            assert await file.seek(4000) == 4000
            assert await file.seek(-1000, os.SEEK_CUR) == await file.tell() == 3000
            assert os.lseek(file._own_fileno(), 0, os.SEEK_CUR) == 0
            assert await file.seek(-1, os.SEEK_END) == 9999

    URING.run(main)


@every_library
def test_seeks_beyond_what_there_can_be_are_refused_as_by_the_kernel(
    library: Library, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5000)
    os.truncate(path, 1 << 20)

    async def main() -> list[object]:
        seen: list[object] = []
        async with await library.open_file(path, "rb", 0) as file:
            assert file.seekable()
            for offset, whence in [
                *((1 << power, 0) for power in (31, 32, 40, 43, 44, 50, 62)),
                *((1 << power, 1) for power in (43, 44, 62)),
                *(((1 << 63) - 1, whence) for whence in (0, 1, 2)),
                *((1 << 63, whence) for whence in (0, 1, 2)),
                *((-1, whence) for whence in (0, 1, 2)),
                *((0, os.SEEK_DATA), (0, os.SEEK_HOLE), (900_000, os.SEEK_DATA), (1 << 20, os.SEEK_HOLE)),
                *((0, 9), (0, -1), (1.5, 0), ("1", 0), (None, 1)),
            ]:
                try:
                    seen.append(await file.seek(offset, whence))
                except (OSError, ValueError, TypeError, OverflowError) as error:
                    seen.append((type(error), error.args))
                seen.append(await file.tell())
        return seen

    assert library.run(main) == LIBRARIES[0].run(main)


def test_a_write_that_the_disk_refuses_leaves_the_position(tmp_path: Path) -> None:
    async def main() -> None:
        async with await trio_uring.open_file("/dev/full", "wb", 0) as file:
            with pytest.raises(OSError, match="No space left"):
                await file.write(b"x")
            assert await file.tell() == 0

    URING.run(main)


@pytest.mark.skipif(sys.platform != "linux", reason="memfd_create is Linux's")
@every_library
def test_a_memfd_is_a_file(library: Library) -> None:
    async def main() -> None:
        fd = os.memfd_create("file")
        async with await library.open_file(fd, "w+b") as file:
            await file.write(b"one\n" * 5000)
            await file.seek(0)
            assert await file.readline() == b"one\n"
            assert len(await file.read()) == 4 * 4999
            assert os.lseek(fd, 0, os.SEEK_CUR) == 20_000

    library.run(main)


@pytest.mark.parametrize("mode", ["ab", "a+b", "wb", "r+b"])
@pytest.mark.parametrize("buffering", [0, 10])
@pytest.mark.parametrize("written", [True, False])
def test_a_descriptor_that_is_asked_for_in_the_middle_of_a_write_is_where_that_ends(
    tmp_path: Path, mode: str, buffering: int, written: bool
) -> None:
    """Whether the kernel has ``written`` all and nobody knows of it yet, or has not seen it."""
    path = tmp_path / "file"
    path.write_bytes(b"start")
    end = 9 if mode[0] == "a" else 4

    async def main() -> None:
        async with await trio_uring.open_file(path, mode, buffering) as file:
            run = current_run()
            assert run is not None

            def ask() -> None:
                if written:
                    lib.tu_flush(run.core)
                while written and not path.read_bytes().endswith(b"data"):
                    pass
                file.fileno()

            if buffering:
                await file.write(b"data")
                await interrupted(file.flush(), ask)
            else:
                await interrupted(file.write(b"data"), ask)
            assert await file.tell() == os.lseek(file.fileno(), 0, os.SEEK_CUR) == end

    if mode == "r+b":
        path.write_bytes(b"")
    trio_uring.run(main)


@pytest.mark.parametrize("buffering", [0, 10])
def test_a_descriptor_that_is_asked_for_in_the_middle_of_a_threads_write_is_where_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffering: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"start")
    write = os.write

    async def main() -> None:
        async with await trio_uring.open_file(path, "a+b", buffering) as file:

            def asked_after(fd: int, data: bytes) -> int:
                done = write(fd, data)
                trio.from_thread.run_sync(file.fileno)
                return done

            monkeypatch.setattr(os, "write", asked_after)
            await file.seek(0)
            await file.write(b"data")
            await file.flush()
            assert await file.tell() == os.lseek(file.fileno(), 0, os.SEEK_CUR) == 9

    trio.run(main)


@pytest.mark.parametrize("mode", ["w+b", "a+b"])
@pytest.mark.parametrize("buffering", [0, 10])
@pytest.mark.parametrize(
    ("owner", "step"),
    [(transfers, "_read_at_once"), (Memory, "as_bytes"), (Position, "ask")],
    ids=["reading", "adding", "asking"],
)
def test_a_thread_may_ask_for_the_descriptor_in_the_middle_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, buffering: int, owner: object, step: str
) -> None:
    """It gets the GIL while a task asks the kernel, and may get it between any two calls."""
    path = tmp_path / "file"
    data = bytes(range(256)) * 100
    call = getattr(owner, step)

    async def main() -> None:
        async with await trio_uring.open_file(path, mode, buffering) as file:

            def asked_before(*arguments: object) -> object:
                file.fileno()
                return call(*arguments)

            monkeypatch.setattr(owner, step, asked_before)
            await file.write(data)
            assert await file.tell() == len(data)
            await file.seek(3)
            assert await file.read(5) == data[3:8]
            assert await file.read() == data[8:]
            await file.write(b"end")
            await file.flush()
            assert await file.tell() == os.lseek(file.fileno(), 0, os.SEEK_CUR) == len(data) + 3

    trio_uring.run(main)
    assert path.read_bytes() == data + b"end"


class Interrupting:
    """A raw file that does something else, once, when its position is sought."""

    def __init__(self, raw: io.FileIO, something: Callable[[], object]) -> None:
        self._raw = raw
        self._something: Callable[[], object] | None = something

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        reached = self._raw.seek(offset, whence)
        something, self._something = self._something, None
        if something is not None:
            something()
        return reached


@pytest.mark.parametrize("first", ["the task", "the thread"])
def test_a_seek_while_a_thread_asks_for_the_descriptor_is_not_lost(tmp_path: Path, first: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"start and end")

    async def main() -> None:
        async with await trio_uring.open_file(path, "rb", 0) as file:
            position: Any = file._position
            if first == "the task":
                position.raw = Interrupting(position.raw, file.fileno)
                await file.seek(-3, os.SEEK_END)
            else:
                position.raw = Interrupting(position.raw, lambda: position.seek(10))
                file.fileno()
            assert position.kind is SHARED
            assert await file.tell() == os.lseek(file.fileno(), 0, os.SEEK_CUR) == 10
            assert await file.read() == b"end"

    trio_uring.run(main)
