"""The files group: what is done with files, by which libraries.

All sides do the same steps: where a library has one file object for one task, so have
the others; where one opens, reads and closes, so do the others; where one call does it all
(trio.Path.read_bytes and its like), only those that have such a call are measured. Children
are not pinned to a CPU, since most sides work with threads.

What is written is not synchronised with the disk, except by aiofile (see sides/files/libraries.py),
which for one large file does so after the clock has stopped. It is cut off right after
the measurement, so that nothing is left to be written while the next side is measured.
As much as one large file may take is written and removed before each measurement, so
that every side finds memory for the cache that is in use (cache.make_room).
Small files stay, empty, until all is done: an ext4 without a journal looks at every inode
that was freed in the last minutes before it makes a file, which was seen to take ten times
as long as all else, for every side.

The peak of the memory includes the interpreter and what it imported; it is told only of
a child that did nothing else before.
"""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, Literal

import attrs

from groups.plan import Job, Planned, Scale
from measure import cache
from measure.percentiles import SHARES
from measure.processes import PATIENCE, Child, ChildError, counted_system_calls
from report.model import Case, Measurement, Series, Side
from sides.files import fio
from sides.files.contents import (
    BLOCK,
    CHUNKS,
    block,
    characters,
    write,
    write_blocks,
    write_lines,
    write_tree,
)
from sides.files.program import PLAIN
from sides.files.work import READ_BLOCKS, READ_FILES, READ_TREES, TAKE_THEIR_TIME, WRITE_FILES, Kind, Work
from sides.packages import missing
from sides.runtimes import RUNTIMES, TRIO, WrongBackendError, polled_with, seen

Cache = Literal["warm", "cold"]

SIDES = {
    PLAIN: Side("plain open, one thread", "other"),
    "trio-epoll": Side(RUNTIMES["trio-epoll"].label, "trio-epoll"),
    "trio-uring": Side(RUNTIMES["trio-uring"].label, "trio-uring"),
    "trio-uring-files": Side("Trio, trio_uring.open_file and Path", "trio-uring"),
    "trio-uring-budget-files": Side("Trio, trio_uring.open_file and Path, budget 16", "trio-uring"),
    "anyio": Side("anyio, asyncio", "asyncio"),
    "aiofiles": Side("aiofiles, asyncio", "asyncio"),
    "aiofile": Side("aiofile, asyncio", "asyncio"),
    "turbofile": Side("turbofile, asyncio", "asyncio"),
    "asyncfiles": Side("asyncfiles, asyncio", "asyncio"),
    "blazio": Side(RUNTIMES["blazio"].label, "blazio"),
    "fio": Side("fio, io_uring", "limit"),
}
LIBRARIES = tuple(side for side in SIDES if side != "fio")
BASELINE = "trio-epoll"
STRACE_SECONDS = 0.15
STRACE_LEAST = 30
"""Operations: a system call may take 100 ms under strace, and what is done once at the end is to be
lost in the rest."""
STRACE_PATIENCE = 20.0
"""Seconds for one of them: one with threads makes dozens of system calls."""
_STATES: tuple[Cache, ...] = ("warm", "cold")
_SMALL: dict[Kind, str] = {"small-read": "read", "small-write": "written", "small-stat": "stat'ed"}
_ONE_BY_ONE: dict[Kind, str] = {
    "small-read": "opened, read and closed",
    "path-read": "by Path.read_bytes",
    "path-write": "written by Path.write_bytes",
    "small-exists": "by Path.exists",
}
_WHOLE = ("path-read", "path-write")
_PATHS = ("small-stat", "small-exists", *READ_TREES)
CANNOT: dict[str, dict[str, str]] = {
    "anyio": {}
    if sys.version_info >= (3, 12)
    else {"walk": "anyio's Path has a walk with CPython 3.12 and later"},
    "aiofiles": {
        "pread": "aiofiles has no pread",
        **dict.fromkeys(_WHOLE, "aiofiles has no call for a whole file"),
        **dict.fromkeys(READ_TREES, "aiofiles reads no trees of directories"),
    },
    "aiofile": {
        **dict.fromkeys(_WHOLE, "aiofile has no call for a whole file"),
        **dict.fromkeys(_PATHS, "aiofile has files only, no paths"),
    },
    "turbofile": dict.fromkeys(_PATHS, "turbofile has files only, no paths"),
    "asyncfiles": {
        "pread": "asyncfiles has no pread",
        **dict.fromkeys(_WHOLE, "asyncfiles has no call for a whole file"),
        **dict.fromkeys(_PATHS, "asyncfiles has files only, no paths"),
    },
    "blazio": {
        "random": "blazio's read is buffered, and asks for 64 KiB: its pread is measured",
        **dict.fromkeys(_WHOLE, "blazio has no call for a whole file"),
        **dict.fromkeys(_PATHS, "blazio has files only, no paths"),
    },
}
"""By side: the kinds of work that it has no call for, and why."""
_AT_ONCE: tuple[Kind, ...] = (
    *READ_BLOCKS,
    "path-read",
    "small-exists",
    "sequential-read",
    "sequential-write",
    "lines",
)
"""Where calls can complete at once, and a budget makes a difference."""


def plan(scale: Scale, folder: Path) -> list[Planned]:
    """Writes the files to be read into ``folder``, which is the caller's to remove."""
    folder = folder.resolve()  # children have another current directory
    data, text, small, tree = (folder / name for name in ("data", "text", "small", "tree"))
    data_bytes = scale.choose(1 << 30, 256 << 20, 1 << 20)
    random_blocks = scale.choose(256 << 20, 64 << 20, 1 << 20) // BLOCK
    files = scale.choose(1000, 200, 10)
    lines = scale.choose(100_000, 20_000, 1000)
    write_blocks(data, data_bytes)
    write_lines(text, lines)
    small.mkdir()
    for number in range(files):
        write(small / f"{number:06}", [block(number)])
    entries = write_tree(tree, *scale.choose((20, 99), (20, 19), (2, 3)))

    counted = Children(shared=True)
    children = counted if scale.name == "smoke" else Children(shared=False)
    atexit.register(counted.end)
    least = scale.choose(STRACE_LEAST, STRACE_LEAST, 3)
    case = partial(_case, children=children, counted=counted, least=least)
    states = _STATES[: scale.choose(2, 1, 2)]
    chunks = dict(list(CHUNKS.items())[-scale.choose(2, 1, 2) :])
    brief, long = scale.seconds * 0.4, scale.seconds * 0.5
    cases = [
        case(
            f"random 4 KiB reads, {tasks} task{'s' * (tasks > 1)}, {state} cache",
            Work("random", str(data), random_blocks, tasks, brief),
            {"tasks": tasks},
            state,
        )
        for state in states
        for tasks in (1, 64)
    ]
    at_offset = Work("pread", str(data), random_blocks, 1, brief)
    cases.append(
        case("4 KiB at random offsets by pread, 1 task, warm cache", at_offset, {"tasks": 1}, "warm")
    )
    for doings, tasks in ((_SMALL, min(64, files)), (_ONE_BY_ONE, 1)):
        for kind, doing in doings.items():
            where = folder / "new" if kind in WRITE_FILES else small
            work = Work(kind, str(where), files, tasks, long)
            name = f"{files:,} small files {doing}, {'64' if tasks > 1 else 'one'} at a time"
            cases.append(case(name, work, {"files": files}, "warm"))
    parameters: dict[str, float] = {"bytes": data_bytes}
    for label, size in chunks.items():
        reads = Work("sequential-read", str(data), data_bytes // size, 1, long, size)
        cases += [
            case(f"sequential read, {label} at a time, {state} cache", reads, parameters, state)
            for state in states
        ]
    for label, size in chunks.items():
        writes = Work("sequential-write", str(folder / "written"), data_bytes // size, 1, long, size)
        cases.append(case(f"sequential write, {label} at a time", writes, parameters, "warm"))
    iterated = Work("lines", str(text), lines, 1, long)
    cases.append(case("lines of a text file", iterated, {"lines": lines}, "warm"))
    # A thread that has read directories stays for a while: no other work is to be in its process.
    fresh = Children(shared=False)
    for kind in READ_TREES:
        walked = Work(kind, str(tree), entries, 1, brief)
        name = f"a tree of {entries:,} entries by Path.{kind}"
        cases.append(
            _case(name, walked, {"entries": entries}, "warm", children=fresh, counted=fresh, least=least)
        )
    return cases


def _case(
    name: str,
    work: Work,
    parameters: dict[str, float],
    state: Cache,
    *,
    children: Children,
    counted: Children,
    least: int,
) -> Planned:
    metric = "bytes_per_second" if work.kind.startswith("sequential") else "rate"
    case = Case("files", name, BASELINE, metric, {}, parameters)
    jobs: dict[str, Job] = {}
    for side in LIBRARIES:
        if "budget" in side and (work.kind not in _AT_ONCE or state == "cold"):
            continue
        if reason := missing(side) or CANNOT.get(side, {}).get(work.kind):
            case.series[side] = Series(failure=reason)
        else:
            jobs[side] = LibraryJob(side, work, state, children, counted, least)
    if work.kind in fio.MODES:
        if reason := fio.missing():
            case.series["fio"] = Series(failure=reason)
        else:
            jobs["fio"] = FioJob(work, state)
    return Planned(case, jobs)


class Children:
    """The children that do the works: a fresh one each time, or one for each side, where
    the starts would take longer than all else: in a smoke run, and for counting calls."""

    def __init__(self, *, shared: bool) -> None:
        self._shared: dict[str, Child] = {}
        self.are_fresh = not shared

    @contextmanager
    def child(self, side: str) -> Iterator[Child]:
        command = [sys.executable, "-m", "sides.files.program", side]
        if self.are_fresh:
            with Child(command) as child:
                yield child
            return
        with ExitStack() as ended:
            child = self._shared.pop(side) if side in self._shared else Child(command)
            ended.push(child)
            yield child
            ended.pop_all()
        self._shared[side] = child

    def end(self) -> None:
        while self._shared:
            with self._shared.popitem()[1]:
                pass


@attrs.frozen
class LibraryJob:
    side: str
    work: Work
    cache: Cache
    children: Children
    counted: Children
    least: int = STRACE_LEAST
    """Operations whose system calls are counted."""

    def measure(self) -> tuple[Measurement, str]:
        with self.children.child(self.side) as child, self._prepared(child, self.work):
            answer = self._done(child, self.work)
            text = observed(self.side, child.ready["backend"], child.pid, self.work.kind)
        measurement = _measurement(answer, self.work)
        if not self.children.are_fresh:
            del measurement["peak_rss"]
        return measurement, text

    def count_system_calls(self) -> dict[str, float]:
        seconds = min(STRACE_SECONDS, self.work.seconds)
        work = attrs.evolve(self.work, seconds=seconds, least=self.least)
        with self.counted.child(self.side) as child, self._prepared(child, work):
            with counted_system_calls(child.pid) as calls:
                answer = self._done(child, work, patience=self.least * STRACE_PATIENCE)
            observed(self.side, child.ready["backend"], child.pid, self.work.kind)
        return {name: count / answer["operations"] for name, count in calls.items()}

    @contextmanager
    def _prepared(self, child: Child, work: Work) -> Iterator[None]:
        with _written(work):
            child.ask(attrs.asdict(work))
            with _cached(work, self.cache):
                yield
        child.ask()

    def _done(self, child: Child, work: Work, patience: float = PATIENCE) -> dict[str, float]:
        answer: dict[str, float] = child.ask(patience=patience)
        _check(answer, work)
        return answer


@attrs.frozen
class FioJob:
    work: Work
    cache: Cache

    def measure(self) -> tuple[Measurement, str]:
        with _cached(self.work, self.cache), _written(self.work):
            return fio.run(self.work)

    def count_system_calls(self) -> dict[str, float]:
        """None: fio cannot be held before its work begins."""
        return {}


def observed(side: str, backend: str, pid: int, kind: Kind) -> str:
    """What a child works with, after its work, in words.

    Raises WrongBackendError if that is not what its side claims. Our files need no threads, but
    to read directories.
    """
    threads, workers = _threads(pid)
    text = f"{threads} thread{'s' * (threads > 1)}"
    if workers:
        text += f", {len(workers)} of the kernel for io_uring ({', '.join(sorted(set(workers)))})"
    runtime = side.removesuffix("-files")
    if runtime in TRIO:
        if runtime != side and threads != 1 and kind not in READ_TREES:
            raise WrongBackendError(f"this was to be without threads, but it has {text}")
        return f"{seen(runtime, backend, pid)}; {text}"
    if side == PLAIN:
        if threads != 1 or polled_with(pid):
            raise WrongBackendError(f"this was to be plain open in one thread, but it has {text}")
        return text
    if side in CHOOSE_INTERFACE:
        return f"{_seen_interface(side, backend, pid)}; {text}"
    return f"{seen('blazio' if side == 'blazio' else 'asyncio', backend, pid)}; {text}"


CHOOSE_INTERFACE = ("aiofile", "turbofile", "asyncfiles")


def _seen_interface(side: str, backend: str, pid: int) -> str:
    """The kernel interface is the library's own choice, but has to be the one that it tells."""
    opened = polled_with(pid)
    loop = RUNTIMES["asyncio"]
    expected = {loop.opens, "io_uring"} if "uring" in backend else {loop.opens}
    text = f"{backend}; it has open: {', '.join(sorted(opened)) or 'neither epoll nor io_uring'}"
    if not backend.startswith(f"{loop.backend}; ") or opened != expected:
        raise WrongBackendError(f"this was to be {side} on asyncio, but {text}")
    return text


_IO_WORKER: Final = 0x10
"""Of the flags in /proc: a thread that io_uring made. It has its parent's name until it first runs."""


def _threads(pid: int) -> tuple[int, list[str]]:
    """How many threads the process has, and the kinds of those that io_uring made for it."""
    workers = []
    own = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            name, _, fields = (thread / "stat").read_text().partition("(")[2].rpartition(")")
            if int(fields.split()[6]) & _IO_WORKER:
                workers.append(name.rsplit("-", 1)[0] if name.startswith("iou-") else "iou")
            else:
                own += 1
    return own, workers


@contextmanager
def _cached(work: Work, state: Cache) -> Iterator[None]:
    """The files that are read are in the cache, or not; there is room in it for what is written."""
    if work.kind in READ_FILES:
        for number in range(work.count):
            cache.warm(Path(work.small_file(number)), BLOCK)
    elif work.kind == "sequential-write":
        cache.make_room(Path(work.path).with_suffix(".before"), work.count * work.size)
    elif work.kind in (*READ_BLOCKS, "sequential-read", "lines"):
        path = Path(work.path)
        size = path.stat().st_size if work.kind == "lines" else work.count * work.size
        if state == "warm":
            with cache.kept_warm(path, size):
                yield
            return
        cache.cold(path, size)
    yield


@contextmanager
def _written(work: Work) -> Iterator[None]:
    """Makes room for what the work writes, and gives back what it took of the cache."""
    path = Path(work.path)
    if work.kind in WRITE_FILES:
        path.mkdir()
    try:
        yield
    finally:
        if work.kind in WRITE_FILES:
            for name in os.listdir(path):
                os.truncate(path / name, 0)
            path.rename(tempfile.mkdtemp(prefix="emptied-", dir=path.parent))
        elif work.kind == "sequential-write" and path.exists():
            # Pages that are cut off are not written, not even by who synchronises the file later.
            os.truncate(path, 0)
            path.unlink()


def _check(answer: dict[str, float], work: Work) -> None:
    """That what the child says to have done is done, and is all unless its time was up."""
    operations = int(answer["operations"])
    in_time = answer["seconds"] < work.seconds
    right = operations > 0
    if work.kind in TAKE_THEIR_TIME:
        right &= not in_time
    else:
        right &= operations == work.count or (operations < work.count and not in_time)
    if work.kind in READ_TREES:
        right &= operations % work.count == 0
    elif work.kind == "lines":
        right &= int(answer["characters"]) == characters(operations)
    elif work.kind in WRITE_FILES:
        names = os.listdir(work.path)
        right &= len(names) == operations
        right &= all(Path(work.path, name).read_bytes() == block(int(name)) for name in names)
    elif work.kind == "sequential-write":
        right &= os.stat(work.path).st_size == operations * work.size
    if not right:
        raise ChildError(f"the work is not done as told: {work}, {answer}")


def _measurement(answer: dict[str, float], work: Work) -> Measurement:
    operations, seconds, cpu = answer["operations"], answer["seconds"], answer["cpu_seconds"]
    measurement = {
        "rate": operations / seconds,
        "per_cpu_second": operations / cpu,
        "peak_rss": answer["peak_rss"],
        **{name: answer[name] for name in SHARES if name in answer},
    }
    if work.kind.startswith("sequential"):
        measurement["bytes_per_second"] = operations * work.size / seconds
    return measurement
