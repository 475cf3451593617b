"""The files group does the work that it claims, with what it claims, in the cache that it claims."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
from child_process import SECCOMP

for module in ("aiofile", "aiofiles", "anyio"):
    pytest.importorskip(module)

from groups import files as cases  # noqa: E402
from groups.plan import SCALES, Planned  # noqa: E402
from measure import cache  # noqa: E402
from measure.percentiles import enough  # noqa: E402
from measure.processes import Child, ChildError  # noqa: E402
from sides import packages  # noqa: E402
from sides.files import fio, libraries  # noqa: E402
from sides.files.contents import BLOCK, block, write  # noqa: E402
from sides.files.work import READ_BLOCKS, READ_FILES, Kind, Record, Work  # noqa: E402
from sides.runtimes import WrongBackendError  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"

NAMES = [
    "random 4 KiB reads, 1 task, warm cache",
    "random 4 KiB reads, 64 tasks, warm cache",
    "random 4 KiB reads, 1 task, cold cache",
    "random 4 KiB reads, 64 tasks, cold cache",
    "4 KiB at random offsets by pread, 1 task, warm cache",
    "10 small files read, 64 at a time",
    "10 small files written, 64 at a time",
    "10 small files stat'ed, 64 at a time",
    "10 small files opened, read and closed, one at a time",
    "10 small files by Path.read_bytes, one at a time",
    "10 small files written by Path.write_bytes, one at a time",
    "10 small files by Path.exists, one at a time",
    "sequential read, 256 KiB at a time, warm cache",
    "sequential read, 256 KiB at a time, cold cache",
    "sequential read, 1 MiB at a time, warm cache",
    "sequential read, 1 MiB at a time, cold cache",
    "sequential write, 256 KiB at a time",
    "sequential write, 1 MiB at a time",
    "lines of a text file",
    "a tree of 8 entries by Path.rglob",
    "a tree of 8 entries by Path.walk",
]
CHUNK = cases.CHUNKS["256 KiB"]
needs_fio = pytest.mark.skipif(bool(fio.missing()), reason=fio.missing())


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Planned]:
    return {one.case.name: one for one in cases.plan(SCALES["smoke"], tmp_path_factory.mktemp("files"))}


@pytest.fixture
def children() -> Iterator[cases.Children]:
    children = cases.Children(shared=True)
    yield children
    children.end()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    cases.write_blocks(path, 256 * BLOCK)
    return path


def test_cases(planned: dict[str, Planned]) -> None:
    assert list(planned) == NAMES
    for one in planned.values():
        sides = {*one.jobs, *one.case.series}
        may_wait = any(word in one.case.name for word in ("cold", "small", "write", "tree"))
        assert sides >= {*cases.LIBRARIES} - ({"trio-uring-budget-files"} if may_wait else set())
        assert one.case.baseline in one.jobs
        assert sides <= set(cases.SIDES)


def test_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = cases.plan(SCALES["smoke"], Path())[0]
    assert one.jobs["open"].measure()[0]["rate"] > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", cases.SIDES)
def test_measure(planned: dict[str, Planned], side: str, name: str) -> None:
    one = planned[name]
    if side not in one.jobs:
        assert side in ("fio", "trio-uring-budget-files") or one.case.series[side].failure
        return
    try:
        measurement, seen = one.jobs[side].measure()
    except cache.CacheError as error:
        pytest.skip(str(error))
    assert measurement[one.case.metric] > 0
    threads = "" if "tree" in name else "1 thread"
    assert {
        "open": "1 thread",
        "trio-epoll": "its loop says 'epoll'; it has open: eventpoll; ",
        "trio-uring": "its loop says 'io_uring, completions'; it has open: io_uring; ",
        "trio-uring-files": f"its loop says 'io_uring, completions'; it has open: io_uring; {threads}",
        "trio-uring-budget-files": "its loop says 'io_uring, completions, budget 16'; it has open: io_uring; "
        f"{threads}",
        "anyio": "its loop says 'asyncio, EpollSelector'; it has open: eventpoll; ",
        "aiofiles": "its loop says 'asyncio, EpollSelector'; it has open: eventpoll; ",
        "aiofile": "asyncio, EpollSelector; caio ",
        "turbofile": "asyncio, EpollSelector; turbofile ",
        "asyncfiles": "asyncio, EpollSelector; asyncfiles ",
        "blazio": "its loop says 'blazio._loop.EventLoop'; it has open: io_uring; 1 thread",
        "fio": "fio says 'io_uring'; it has a ring open",
    }[side] in seen


def test_a_side_whose_package_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packages.PACKAGES, "turbofile", "no-such-package")
    for one in cases.plan(SCALES["smoke"], tmp_path):
        assert "turbofile" not in one.jobs
        assert one.case.series["turbofile"].failure == "no-such-package is not installed"


@pytest.mark.parametrize(
    ("side", "kind"), [(side, kind) for side in cases.CANNOT for kind in cases.CANNOT[side]]
)
def test_what_a_side_cannot_it_has_no_call_for(side: str, kind: str) -> None:
    needs(side)
    used = libraries.library(side)
    if kind == "random":
        with pytest.raises(NotImplementedError, match="buffering"):
            used.open(__file__, "rb", buffering=0)
        return
    call = {
        "pread": used.pread,
        "path-read": used.read_bytes,
        "path-write": used.write_bytes,
        "small-stat": used.stat,
        "small-exists": used.exists,
        "rglob": used.rglob,
        "walk": used.walk,
    }[kind]
    assert call is libraries._absent


def needs(side: str) -> None:
    if reason := packages.missing(side):
        pytest.skip(reason)


@pytest.mark.parametrize("side", cases.LIBRARIES)
def test_all_of_the_work_is_done_in_time(data: Path, children: cases.Children, side: str) -> None:
    """Counted from outside by `_check`, which is shown to notice below."""
    needs(side)
    new = data.with_name("new")
    for kind, path, count, size in [
        ("sequential-read", data, 4, CHUNK),
        ("sequential-write", new, 4, CHUNK),
        ("small-write", new, 7, BLOCK),
        ("path-write", new, 7, BLOCK),
    ]:
        if kind in cases.CANNOT.get(side, {}):
            continue
        work = Work(kind, str(path), count, 3, seconds=60, size=size)
        with children.child(side) as child:
            job = cases.LibraryJob(side, work, "warm", children, children)
            with job._prepared(child, work):
                assert job._done(child, work)["operations"] == count
                if kind == "sequential-write":
                    assert new.stat().st_size == 4 * CHUNK
        assert not new.exists()


@pytest.mark.parametrize("side", ["open", "trio-uring-files"])
def test_the_least_is_done_however_short_the_time(data: Path, children: cases.Children, side: str) -> None:
    for kind, path, count, size in [
        ("random", data, 256, BLOCK),
        ("sequential-read", data, 4, CHUNK),
        ("sequential-write", data.with_name("new"), 4, CHUNK),
        ("small-write", data.with_name("new"), 7, BLOCK),
    ]:
        work = Work(kind, str(path), count, 1, seconds=1e-9, size=size, least=3)
        assert _done(children, side, work) == 3
        assert _done(children, side, attrs.evolve(work, least=8)) == (8 if kind == "random" else count)


def _done(children: cases.Children, side: str, work: Work) -> float:
    job = cases.LibraryJob(side, work, "warm", children, children)
    with children.child(side) as child, job._prepared(child, work):
        return job._done(child, work)["operations"]


def test_small_files_that_were_written_stay_until_all_is_done_but_empty(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with cases._written(Work("small-write", str(folder), 1, 1, seconds=1)):
        write(folder / "000000", [block(0)])
    (left,) = tmp_path.rglob("000000")
    assert not folder.exists()
    assert left.stat().st_size == 0


@pytest.mark.parametrize(
    ("kind", "operations", "seconds"),
    [
        ("lines", 9, 0.1),
        ("lines", 11, 0.1),
        ("lines", 0, 2),
        ("random", 10, 0.5),
        ("pread", 10, 0.5),
        ("walk", 10, 0.5),
        ("rglob", 15, 2),
        ("lines", 10, 0.1),
    ],
)
def test_work_that_is_not_done_is_noticed(kind: str, operations: int, seconds: float) -> None:
    work = Work(kind, "nowhere", 10, 1, seconds=1)
    answer = {"operations": operations, "seconds": seconds, "characters": 1}
    with pytest.raises(ChildError, match="not done as told"):
        cases._check(answer, work)


def test_peak_of_memory_is_told_of_fresh_children_only(data: Path, children: cases.Children) -> None:
    work = Work("sequential-read", str(data), 4, 1, seconds=60, size=CHUNK)
    fresh = cases.LibraryJob("open", work, "warm", cases.Children(shared=False), children)
    assert 1 << 20 < fresh.measure()[0]["peak_rss"] < 1 << 30
    assert "peak_rss" not in cases.LibraryJob("open", work, "warm", children, children).measure()[0]


def test_what_is_not_written_is_noticed(tmp_path: Path) -> None:
    answer = {"operations": 2, "seconds": 0.1}
    folder = tmp_path / "new"
    folder.mkdir()
    files = Work("small-write", str(folder), 2, 1, seconds=1)
    for number in (0, 1):
        with pytest.raises(ChildError, match="not done as told"):
            cases._check(answer, files)
        write(folder / f"{number:06}", [block(number)])
    cases._check(answer, files)
    write(folder / "000001", [block(0)])
    with pytest.raises(ChildError, match="not done as told"):
        cases._check(answer, files)

    path = tmp_path / "written"
    chunks = Work("sequential-write", str(path), 2, 1, seconds=1, size=CHUNK)
    path.write_bytes(bytes(2 * CHUNK - 1))
    with pytest.raises(ChildError, match="not done as told"):
        cases._check(answer, chunks)
    path.write_bytes(bytes(2 * CHUNK))
    cases._check(answer, chunks)


@pytest.mark.parametrize("side", cases.LIBRARIES)
@pytest.mark.parametrize("kind", ["random", "pread", "sequential-read", "small-read", "path-read"])
def test_wrong_bytes_are_noticed(data: Path, children: cases.Children, side: str, kind: Kind) -> None:
    needs(side)
    if reason := cases.CANNOT.get(side, {}).get(kind):
        pytest.skip(reason)
    if kind in READ_FILES:
        work = Work(kind, str(data.parent), 1, 1, seconds=0.05)
        data = Path(work.small_file(0))
    else:
        count, size = (256, BLOCK) if kind in READ_BLOCKS else (4, CHUNK)
        work = Work(kind, str(data), count, 1, seconds=0.05, size=size)
    write(data, [b"\xff" * BLOCK] * 256)
    with pytest.raises(ChildError, match="ContentsError"):
        cases.LibraryJob(side, work, "warm", children, children).measure()


def test_cold_reads_come_from_the_disk(data: Path, children: cases.Children) -> None:
    work = Work("sequential-read", str(data), 4, 1, seconds=60, size=CHUNK)
    with children.child("open") as child:
        pid = child.pid
    read = {}
    for state in ("warm", "cold"):
        before = _read_from_disk(pid)
        try:
            cases.LibraryJob("open", work, state, children, children).measure()
        except cache.CacheError as error:
            pytest.skip(str(error))
        read[state] = _read_from_disk(pid) - before
    # The program itself may have been taken out of memory meanwhile.
    assert read["warm"] < 128 * BLOCK
    assert read["cold"] >= 256 * BLOCK


def _read_from_disk(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


def test_cache_state_is_verified(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = data.stat().st_size
    with cache.kept_warm(data, size):
        assert cache.resident(data, size) == 256
        monkeypatch.setattr(cache.os, "posix_fadvise", lambda *_: None)
        with pytest.raises(cache.CacheError, match="not cold: 256 pages are still in it"):
            cache.cold(data, size)
    monkeypatch.setattr(cache, "resident", lambda *_: 255)
    with pytest.raises(cache.CacheError, match="not warm: 255 of 256"):
        cache.warm(data, size)


def test_cache_of_tmpfs_cannot_be_cold() -> None:
    memory = Path("/dev/shm/trio-uring-benchmark-test")
    try:
        memory.write_bytes(bytes(BLOCK))
    except OSError as error:
        pytest.skip(str(error))
    try:
        with pytest.raises(cache.CacheError, match="not cold"):
            cache.cold(memory, BLOCK)
    finally:
        memory.unlink()


def test_percentile_needs_samples_beyond_it() -> None:
    assert not enough(999, 0.99)
    assert enough(1000, 0.99)
    assert not enough(9999, 0.999)
    assert enough(10_000, 0.999)


def test_percentiles() -> None:
    record = Record(Work("random", "nowhere", 1, 1, seconds=1))
    record.latencies.extend(range(1000, 0, -1))
    record.begin()
    told = record.end()
    assert (told["p50"], told["p99"], told["operations"]) == (500, 990, 1000)
    assert "p99.9" not in told


PROGRAM = """
import sys
from pathlib import Path
from groups import files as cases
from sides.files.work import Work

work = Work("random", sys.argv[1], 256, 1, seconds=0.05)
children = cases.Children(shared=False)
cases.LibraryJob("trio-uring", work, "warm", children, children).measure()
"""


def test_trio_on_another_backend_than_it_claims_fails(data: Path) -> None:
    refused = [str(SECCOMP), "EPERM", "io_uring_setup", "--"]
    environment = ["env", "TRIO_URING_FALLBACK=epoll", f"PYTHONPATH={FOLDER}"]
    done = subprocess.run(
        [sys.executable, *refused, *environment, sys.executable, "-c", PROGRAM, str(data)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "WrongBackendError: this was to be Trio, trio-uring, but its loop says 'epoll'" in done.stderr


def test_plain_open_with_threads_fails() -> None:
    with Child([sys.executable, "-c", "import sys; print('{}', flush=True); sys.stdin.read()"]) as child:
        assert cases.observed("open", "one thread", child.pid, "random") == "1 thread"
    program = (
        "import sys, threading; threading.Thread(target=sys.stdin.read).start(); print('{}', flush=True)"
    )
    with (
        Child([sys.executable, "-c", program]) as child,
        pytest.raises(WrongBackendError, match="it has 2 threads"),
    ):
        cases.observed("open", "one thread", child.pid, "random")


def test_our_files_with_threads_fail_but_for_directories(tmp_path: Path, children: cases.Children) -> None:
    """Trio's own path is looked up by a thread, which stays a while."""
    work = Work("small-stat", str(tmp_path), 1, 1, seconds=60)
    write(Path(work.small_file(0)), [block(0)])
    cases.LibraryJob("trio-uring", work, "warm", children, children).measure()
    with children.child("trio-uring") as child:
        backend = child.ready["backend"]
        assert cases.observed("trio-uring-files", backend, child.pid, "walk").endswith("; 2 threads")
        with pytest.raises(WrongBackendError, match="without threads, but it has 2 threads"):
            cases.observed("trio-uring-files", backend, child.pid, "random")


@pytest.mark.parametrize("side", ["anyio", "aiofiles", "aiofile", "turbofile", "asyncfiles", "blazio"])
def test_side_on_another_loop_fails(side: str, children: cases.Children) -> None:
    needs(side)
    with children.child(side) as child, pytest.raises(WrongBackendError):
        cases.observed(side, "uvloop.Loop", child.pid, "random")


@pytest.mark.parametrize(
    ("side", "interface"),
    [
        ("aiofile", "caio 0, caio.linux_uring_asyncio"),
        ("turbofile", "turbofile 0, compio-polling"),
        ("asyncfiles", "asyncfiles 0, io_uring"),
    ],
)
def test_another_interface_than_a_side_tells_fails(
    side: str, interface: str, children: cases.Children
) -> None:
    """Before its first work no ring is open, but turbofile's."""
    needs(side)
    backend = f"asyncio, EpollSelector; {interface}"
    with children.child(side) as child, pytest.raises(WrongBackendError, match=f"{side} on asyncio"):
        cases.observed(side, backend, child.pid, "random")


@needs_fio
def test_fio_with_another_engine_fails(data: Path) -> None:
    work = Work("random", str(data), 256, 1, seconds=0.05)
    with pytest.raises(WrongBackendError, match="fio says 'psync'; it has no ring open"):
        fio.run(work, engine="psync")


def test_missing_fio_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fio.shutil, "which", lambda _: None)
    one = cases.plan(SCALES["smoke"], tmp_path)[0]
    assert one.case.series["fio"].failure == "fio is not installed"
    assert "fio" not in one.jobs
