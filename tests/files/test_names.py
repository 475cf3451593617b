"""Names that the kernel has cached are looked up and opened by the calling thread, where it does not wait:
what is observed is the same as if the ring had done it, and a server holds nobody up."""

from __future__ import annotations

import errno
import mmap
import os
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from equivalence import URING, descriptors_so_far, entered, open_descriptors, python
from fuse import isolated
from page_cache import find_nothing, read_at_once
from steps import Steps

import trio_uring
from trio_uring import RingOptions, lowlevel, open_file
from trio_uring.ring.native import lib

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

CONTENT = b"contents"


async def opened_and_closed(path: Path) -> None:
    await (await open_file(path, "rb")).aclose()


async def opened_by_number(path: Path) -> None:
    os.close(await lowlevel.openat(path, os.O_RDONLY))


CALLS: dict[str, Callable[[Path], Awaitable[object]]] = {
    "read_bytes": lambda path: trio_uring.Path(path).read_bytes(),
    "read_text": lambda path: trio_uring.Path(path).read_text("ascii"),
    "stat": lambda path: trio_uring.Path(path).stat(),
    "lstat": lambda path: trio_uring.Path(path).lstat(),
    "exists": lambda path: trio_uring.Path(path).exists(),
    "is_file": lambda path: trio_uring.Path(path).is_file(),
    "open_file": opened_and_closed,
    "openat": opened_by_number,
    "statx": lowlevel.statx,
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def cached(path: Path) -> Iterator[Path]:
    with read_at_once(path):
        yield path


async def skip_unless_looked_up_at_once(path: Path) -> None:
    """Also where the file system is not known to be measured."""
    await trio_uring.Path(path).stat()
    if lib.tu_mode_at_once(-100, os.fsencode(path), 0) < 0:
        pytest.skip("this kernel, or this file system, has every name looked up by the ring")


@every_call
def test_a_cached_name_does_not_enter_the_ring(
    cached: Path, call: Callable[[Path], Awaitable[object]]
) -> None:
    async def main() -> None:
        await skip_unless_looked_up_at_once(cached)
        await call(cached)
        before = entered()
        await call(cached)
        assert entered() == before

    URING.run(main)


@every_call
def test_each_call_is_a_checkpoint(path: Path, call: Callable[[Path], Awaitable[object]]) -> None:
    async def main() -> None:
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                await call(path)

    URING.run(main)


@every_call
def test_a_missing_name_is_one_as_well_and_the_error_names_it(
    path: Path, call: Callable[[Path], Awaitable[object]]
) -> None:
    missing = path.with_name("missing")
    told = []

    async def main() -> None:
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                try:
                    told.append(await call(missing))
                except FileNotFoundError as error:
                    told.append((error.errno, os.fspath(error.filename)))

    URING.run(main)
    assert told in ([False] * 2, [(errno.ENOENT, str(missing))] * 2)


@every_call
def test_a_cancelled_scope_raises_before_anything_is_done(
    path: Path, call: Callable[[Path], Awaitable[object]]
) -> None:
    async def main() -> None:
        await call(path)
        before = descriptors_so_far()
        for name in (path, path.with_name("missing")):
            with trio.CancelScope() as scope:
                scope.cancel()
                await call(name)
            assert scope.cancelled_caught
        assert open_descriptors() == before

    URING.run(main)


@every_call
def test_a_budget_lets_a_task_go_on(cached: Path, call: Callable[[Path], Awaitable[object]]) -> None:
    async def main() -> None:
        await skip_unless_looked_up_at_once(cached)
        await call(cached)
        await trio.lowlevel.checkpoint()
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await call(cached)
        trio.lowlevel.remove_instrument(steps)
        assert steps.calls == [0]

    trio_uring.run(main, ring=RingOptions(checkpoint_budget=3))


def test_what_has_taken_the_place_of_a_file_is_what_is_read(path: Path) -> None:
    others = path.with_name("others")

    async def main() -> None:
        for number in range(3):
            assert await trio_uring.Path(path).read_bytes() == (
                CONTENT if not number else b"%d" % (number - 1)
            )
            others.write_bytes(b"%d" % number)
            others.rename(path)
        path.unlink()
        path.symlink_to("other place")
        path.with_name("other place").write_bytes(b"behind a link")
        assert await trio_uring.Path(path).read_bytes() == b"behind a link"
        assert (await trio_uring.Path(path).stat()).st_size == 13
        assert await trio_uring.Path(path).is_symlink()
        path.unlink()
        assert not await trio_uring.Path(path).exists()
        path.mkdir()
        assert await trio_uring.Path(path).is_dir()
        with pytest.raises(IsADirectoryError):
            await trio_uring.Path(path).read_bytes()

    URING.run(main)


def test_a_fifo_among_files_holds_up_nobody(path: Path) -> None:
    fifo = path.with_name("fifo")
    os.mkfifo(fifo)
    told: list[str] = []

    async def read() -> None:
        told.append((await trio_uring.Path(fifo).read_bytes()).decode())

    async def main() -> None:
        for _ in range(2):
            assert await trio_uring.Path(path).read_bytes() == CONTENT
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            assert not told
            async with await open_file(fifo, "wb", 0) as file:
                await file.write(b"written")
        assert told == ["written"]

    URING.run(main)


@pytest.mark.parametrize("size", [1, 4096, (1 << 16) - 1, 1 << 16, 1 << 20])
def test_all_of_a_file_is_read_whatever_is_cached_of_it(path: Path, size: int) -> None:
    content = os.urandom(size)
    path.write_bytes(content)

    async def main() -> None:
        for _ in range(2):
            assert await trio_uring.Path(path).read_bytes() == content
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, size // 2, os.POSIX_FADV_DONTNEED)
        os.truncate(path, 0)
        assert await trio_uring.Path(path).read_bytes() == b""

    URING.run(main)


def test_a_read_of_the_lowlevel_asks_the_page_cache_first(
    cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        await skip_unless_looked_up_at_once(cached)
        with cached.open("rb") as file:
            before = entered()
            memory = bytearray(20)
            assert await lowlevel.read(file, memory, 2) == 6
            assert bytes(memory[:6]) == CONTENT[2:]
            assert await lowlevel.read(file, memory, 100) == 0
            assert entered() == before
            find_nothing(monkeypatch)
            assert await lowlevel.read(file, memory, 0) == 8
            assert entered() > before

    URING.run(main)


def test_what_goes_past_the_page_cache_is_left_to_the_ring(path: Path) -> None:
    path.write_bytes(bytes(4096))

    async def main() -> None:
        await skip_unless_looked_up_at_once(path)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        except OSError as error:
            pytest.skip(f"this file system has no O_DIRECT: {error}")
        with mmap.mmap(-1, 4096) as memory, os.fdopen(fd, "rb", 0) as file:
            before = entered()
            assert await lowlevel.read(file, memory, 0) == 4096
            middle = entered()
            assert middle > before
            assert await trio_uring.wrap_file(file).pread_into(memory, 0) == 4096
            assert entered() > middle

    URING.run(main)


REFUSED = """
import errno, os, sys, seccomp, trio, trio_uring
path = trio_uring.Path(sys.argv[1])
seccomp.CALLS["openat2"] = 437
seccomp.install({"openat2": getattr(errno, sys.argv[2])})

async def main():
    for _ in range(2):
        assert await path.read_bytes() == b"contents"
        assert (await path.stat()).st_size == 8
        assert await path.exists() and not await (path / "none").exists()
        async with await trio_uring.open_file(path, "rb") as file:
            assert await file.read() == b"contents"
    print("by the ring")

trio_uring.run(main)
"""


@pytest.mark.parametrize("name", ["EPERM", "ENOSYS", "EINVAL"])
def test_where_the_kernel_cannot_tell_what_it_has_cached_the_ring_does_all(path: Path, name: str) -> None:
    assert python(REFUSED, str(path), name) == "by the ring\n"


SLOW = """
import os, pathlib, struct, sys, threading, trio, trio_uring, fuse

class Slow(fuse.Served):
    asked = threading.Event()
    may_answer = threading.Event()
    waits = False

    def answer(self, opcode, node, body):
        if opcode == fuse._OPEN and self.waits:
            self.asked.set()
            self.may_answer.wait(60)
        return super().answer(opcode, node, body)

    def _find(self, name):
        found = super()._find(name)
        if isinstance(found, bytes):  # which the kernel may keep
            found = found[:16] + struct.pack("=QQ", 1000, 1000) + found[32:]
        return found

async def call(how, path):
    if how == "read_bytes":
        return await trio_uring.Path(path).read_bytes()
    async with await trio_uring.open_file(path, "rb") as file:
        return await file.read()

async def main(path, served):
    for how in ("read_bytes", "open_file"):
        os.stat(path)  # whose name is cached from now on
        served.asked.clear()
        served.may_answer.clear()
        served.waits = True
        async with trio.open_nursery() as nursery:
            async def opened():
                assert await call(how, path) == b"x" * 100
            nursery.start_soon(opened)
            while not served.asked.is_set():
                await trio.sleep(0.001)
            await trio.sleep(0)  # this task runs while the server has not answered
            served.may_answer.set()
    served.waits = False
    assert (await trio_uring.Path(path).stat()).st_size == 100
    served.content.extend(b"y" * 50)
    assert (await trio_uring.Path(path).stat()).st_size == 150
    print("nobody waited")

with fuse.mounted(served := Slow(bytearray(b"x" * 100)), pathlib.Path(sys.argv[1])) as path:
    trio_uring.run(main, path, served)
"""


def test_a_server_that_is_slow_to_open_a_file_holds_up_nobody(tmp_path: Path) -> None:
    assert isolated(SLOW, str(tmp_path / "mounted")) == "nobody waited\n"


LEARNT = """
import os, pathlib, subprocess, sys, trio, trio_uring
from trio_uring.lowlevel import names
place = pathlib.Path(sys.argv[1])
place.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", str(place)], check=True)
(place / "file").write_bytes(b"x")

async def main():
    name = os.fsencode(place / "file")
    before = names._mode(-100, name, 0)
    await trio_uring.Path(place / "file").stat()
    after = names._mode(-100, name, 0)
    print(before == names.ELSEWHERE, after > 0 or after)

trio_uring.run(main)
"""


def test_a_file_system_is_learnt_by_who_only_looks(tmp_path: Path) -> None:
    told = isolated(LEARNT, str(tmp_path / "memory"))
    if told != "True True\n":
        pytest.skip("this kernel does not number its mounts for good, or has no openat2")
