"""`Path.iterdir`, `glob`, `rglob` and `walk` find what pathlib's find, in the same order, in few calls."""

from __future__ import annotations

import gc
import os
import pathlib
import sys
import threading
import warnings
from contextlib import aclosing
from functools import partial
from itertools import islice
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import EPOLL, URING
from steps import Steps, interrupted
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

import trio_uring
from trio_uring import Path, RingOptions
from trio_uring.files import directories

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from equivalence import Backend

both_backends = pytest.mark.parametrize("backend", [URING, EPOLL], ids=lambda backend: backend.name)


class Mine(Path):
    __slots__ = ()


@pytest.fixture(params=["one call", "many calls"])
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "many calls":
        set_few(monkeypatch)


@pytest.fixture
def few_entries_for_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    set_few(monkeypatch)


def set_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "_MOST", 3)
    monkeypatch.setattr(directories, "_BETWEEN_LOOKS", 2)


@pytest.fixture
def tree(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The current directory."""
    tree = tmp_path / "tree"
    for name in ("a/deep/deeper/deepest", "b", "c/.hidden", "empty", "many"):
        (tree / name).mkdir(parents=True)
    for name in ("file.py", "a/file.py", "a/deep/other.txt", "a/deep/deeper/x.py", "c/.hidden/y.py", ".z"):
        (tree / name).touch()
    for number in range(50):
        (tree / "many" / f"{number}.txt").touch()
    (tree / "b/to a").symlink_to("../a")
    (tree / "b/to itself").symlink_to("to itself")
    (tree / "b/to nothing").symlink_to("nothing")
    (tree / "to file").symlink_to("file.py")
    os.mkfifo(tree / "fifo")
    (tree / os.fsdecode(b"not \xff utf-8")).touch()
    monkeypatch.chdir(tree)
    return tree


# What is found


LISTINGS: dict[str, Callable[[Any], Any]] = {
    "iterdir": methodcaller("iterdir"),
    **{
        f"{method} {pattern}": methodcaller(method, pattern)
        for method in ("glob", "rglob")
        for pattern in (
            "*",
            "*.py",
            "**",
            "**/*.py",
            "a/*",
            "*/*",
            ".*",
            "x",
            "f*/..",
            "*/",
            "",
            "/x",
            "a/**/x.py",
        )
    },
    "glob without a pattern": methodcaller("glob"),
    "glob of no pattern": methodcaller("glob", 3),
    "glob of a wrong option": methodcaller("glob", "*", nonsense=True),
}
if sys.version_info >= (3, 12):
    LISTINGS["glob case_sensitive"] = methodcaller("glob", "*.PY", case_sensitive=False)
if sys.version_info >= (3, 13):
    LISTINGS["rglob recurse_symlinks"] = methodcaller("rglob", "*.txt", recurse_symlinks=True)


def described(error: Exception) -> object:
    if isinstance(error, OSError):
        return type(error), error.errno, str(error.filename)
    return type(error), "" if isinstance(error, TypeError) else str(error)


async def awaited(call: Callable[[Any], Any], path: Path) -> list[Any]:
    return list(await call(path))


async def iterated(call: Callable[[Any], Any], path: Path) -> list[Any]:
    return [found async for found in call(path)]


PATHS = [".", "a", "many", "b/to a", "file.py", "nowhere", "", "./a/../c", "many/"]


@pytest.mark.usefixtures("tree", "calls")
@both_backends
@pytest.mark.parametrize("how", [awaited, iterated])
def test_what_is_found(backend: Backend, how: Any) -> None:
    async def found(call: Callable[[Any], Any], path: str) -> object:
        try:
            paths = await how(call, Mine(path))
        except Exception as error:
            return described(error)
        assert {type(one) for one in paths} <= {Mine}
        assert [str(one) for one in paths] == [str(Path(*one.parts)) for one in paths]
        return paths

    def expected(call: Callable[[Any], Any], path: str) -> object:
        try:
            return list(call(pathlib.Path(path)))
        except Exception as error:
            return described(error)

    async def main() -> None:
        for name, call in LISTINGS.items():
            for path in PATHS:
                assert await found(call, path) == expected(call, path), (name, path)

    backend.run(main)


def test_root_and_relative_names(tree: pathlib.Path) -> None:
    async def main() -> None:
        for path in ("/", "//", str(tree), "."):
            assert list(await Path(path).iterdir()) == list(pathlib.Path(path).iterdir())

    URING.run(main)


# Walks


def walked(path: pathlib.Path, **options: Any) -> list[tuple[str, list[str], list[str]]]:
    """What pathlib's walk gives; where it has none, os.walk with links as it has them."""
    if sys.version_info >= (3, 12):
        return [(str(one), *names) for one, *names in path.walk(**options)]  # type: ignore[misc]
    follows = options.get("follow_symlinks", False)
    walk = os.walk(path, options.get("top_down", True), options.get("on_error"), follows)
    result = []
    for name, names, files in walk:
        links = [] if follows else [one for one in names if os.path.islink(os.path.join(name, one))]
        result.append((str(pathlib.Path(name)), [one for one in names if one not in links], files + links))
    return result


def comparable(walk: list[tuple[str, list[str], list[str]]]) -> object:
    if sys.version_info >= (3, 12):
        return walk
    return [(path, names, sorted(others)) for path, names, others in walk]


async def ours(path: str, **options: Any) -> list[tuple[str, list[str], list[str]]]:
    result = []
    async for found, names, others in Mine(path).walk(**options):
        assert type(found) is Mine
        result.append((str(found), list(names), list(others)))
    return result


@pytest.mark.usefixtures("calls")
@both_backends
@pytest.mark.parametrize("path", [".", "a", "many", "b/to a", "file.py", "nowhere", "whole"])
@pytest.mark.parametrize("top_down", [True, False])
@pytest.mark.parametrize("follow_symlinks", [True, False])
def test_walk(tree: pathlib.Path, backend: Backend, path: str, top_down: bool, follow_symlinks: bool) -> None:
    if path == "whole":
        path = str(tree)
    errors: dict[str, list[OSError]] = {"ours": [], "theirs": []}
    options = {"top_down": top_down, "follow_symlinks": follow_symlinks}
    expected = walked(pathlib.Path(path), **options, on_error=errors["theirs"].append)
    found = backend.run(partial(ours, path, **options, on_error=errors["ours"].append))
    assert comparable(found) == comparable(expected)
    assert [*map(described, errors["ours"])] == [*map(described, errors["theirs"])]


@pytest.mark.usefixtures("tree", "calls")
@pytest.mark.parametrize("top_down", [True, False])
def test_caller_chooses_where_a_walk_goes(top_down: bool) -> None:
    """He takes out, turns round and adds; from the bottom up it makes no difference."""

    def change(names: list[str]) -> None:
        names.reverse()
        if "a" in names:
            names.remove("c")
            names.insert(1, "made meanwhile")
            names.append("nowhere")

    def theirs() -> list[Any]:
        result = []
        for path, names, others in os.walk(".", top_down, onerror=errors.append):
            result.append((str(pathlib.Path(path)), sorted(names), len(others)))
            change(names)
            made(pathlib.Path(path))
        return result

    def made(path: pathlib.PurePath) -> None:
        if str(path) == ".":
            pathlib.Path("made meanwhile").mkdir(exist_ok=True)

    async def main() -> list[Any]:
        result = []
        async for path, names, others in Path(".").walk(top_down, errors.append):
            result.append((str(path), sorted(names), len(others)))
            change(names)
            made(path)
        return result

    errors: list[OSError] = []
    pathlib.Path("b/to a").unlink()  # which os.walk would call a directory
    expected, missing = theirs(), [error.errno for error in errors]
    errors.clear()
    pathlib.Path("made meanwhile").rmdir()
    assert URING.run(main) == expected
    assert [error.errno for error in errors] == missing
    assert (len(missing) > 0) == top_down


def test_added_directory_of_one_without_any_comes_before_its_neighbours(tmp_path: pathlib.Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()

    async def main() -> list[str]:
        visited = []
        async for path, names, _ in Path(tmp_path).walk():
            visited.append(path.name)
            if path == Path(tmp_path):
                names.sort()
            if path.name == "a":
                (tmp_path / "a/new").mkdir()
                names.append("new")
        return visited[1:]

    assert URING.run(main) == ["a", "new", "b", "c"]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="pathlib's walk says the same of all from here on")
@pytest.mark.parametrize("start", [".", "", "a", "absolute"])
def test_on_error_is_told_the_names_that_pathlib_tells(tree: pathlib.Path, start: str) -> None:
    here = tree / "a" if start == "a" else tree
    start = str(tree) if start == "absolute" else start
    told: list[str] = []
    expected: list[str] = []

    (here / "gone").mkdir()
    for _, names, _ in pathlib.Path(start).walk(on_error=lambda error: expected.append(error.filename)):
        if "gone" in names:
            (here / "gone").rmdir()
    (here / "gone").mkdir()

    async def main() -> None:
        async for _, names, _ in Path(start).walk(on_error=lambda error: told.append(error.filename)):
            if "gone" in names:
                (here / "gone").rmdir()

    URING.run(main)
    assert told == expected
    assert len(told) == 1


def test_error_of_on_error_ends_the_walk() -> None:
    def refuse(error: OSError) -> None:
        raise error

    async def main() -> None:
        walk = Path("/nowhere").walk(on_error=refuse)
        with pytest.raises(FileNotFoundError):
            await walk.__anext__()
        with pytest.raises(StopAsyncIteration):
            await walk.__anext__()

    URING.run(main)


# How it is found


class Threads:
    """Counts the calls of threads, and can have something done in them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.in_thread: Callable[[], object] = lambda: None
        self._run_sync = trio.to_thread.run_sync
        monkeypatch.setattr(trio.to_thread, "run_sync", self.run_sync)

    async def run_sync(self, function: Callable[[], object]) -> object:
        def call() -> object:
            self.calls += 1
            self.in_thread()
            return function()

        return await self._run_sync(call)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    return Threads(monkeypatch)


MANY = 2000


@pytest.fixture
def many(tmp_path: pathlib.Path) -> pathlib.Path:
    """Twenty directories of a hundred files each."""
    for number in range(MANY):
        if number % 100 == 0:
            (tmp_path / str(number // 100)).mkdir()
        (tmp_path / str(number // 100) / str(number)).touch()
    return tmp_path


def test_one_call_of_a_thread_reads_many(
    many: pathlib.Path, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that is never late."""

    async def count(call: Any) -> int:
        before = threads.calls
        assert len(await call()) >= MANY
        return threads.calls - before

    async def main() -> list[int]:
        path = Path(many)
        return [
            await count(lambda: awaited(methodcaller("rglob", "*"), path)),
            await count(lambda: iterated(methodcaller("rglob", "*"), path)),
            await count(lambda: iterated(methodcaller("glob", "*/*"), path)),
            await count(entries_of_walk),
            await count(lambda: entries_of_walk(top_down=False)),
        ]

    async def entries_of_walk(**options: Any) -> list[str]:
        return [name async for _, names, others in Path(many).walk(**options) for name in (*names, *others)]

    monkeypatch.setattr(directories, "monotonic", lambda: 0.0)
    assert max(URING.run(main)) <= 3


def test_no_more_is_read_than_one_call_may(many: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "_MOST", 500)

    async def main() -> None:
        listing = Path(many).rglob("*")
        async for _ in listing:
            assert len(listing._read) < 500 + directories._BETWEEN_LOOKS
        walk = Path(many).walk()
        async for _ in walk:
            assert sum(directory.is_read for directory in walk._stack) <= 5

    URING.run(main)


def test_call_ends_when_its_time_is_up(
    many: pathlib.Path, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(1 << 40))
    monkeypatch.setattr(directories, "monotonic", lambda: float(next(ticks)))

    async def main() -> None:
        for call in (
            partial(awaited, methodcaller("iterdir")),
            partial(iterated, methodcaller("rglob", "*")),
        ):
            before = threads.calls
            found = await call(Path(many))
            assert threads.calls - before >= len(found) // directories._BETWEEN_LOOKS
        before = threads.calls
        assert len([one async for one in Path(many).walk()]) == 21
        assert threads.calls - before >= MANY // (2 * directories._BETWEEN_LOOKS)

    URING.run(main)


@both_backends
def test_every_step_is_a_checkpoint(tree: pathlib.Path, backend: Backend) -> None:
    async def main() -> None:
        for one in (Path(tree).iterdir(), Path(tree).rglob("*"), Path(tree).walk(), Path(tree).walk(False)):
            ended = 0
            while ended < 2:  # the end, too, each time
                with assert_checkpoints():
                    try:
                        await one.__anext__()  # type: ignore[attr-defined]
                    except StopAsyncIteration:
                        ended += 1
        for listing in (Path(tree).iterdir(), Path("/nowhere").iterdir()):
            for _ in range(2):
                with assert_checkpoints():
                    try:
                        list(await listing)
                    except FileNotFoundError:
                        assert str(listing) != str(tree)

    backend.run(main)


@pytest.mark.usefixtures("still_clock")
def test_steps_that_need_no_thread_spend_the_budget(tree: pathlib.Path) -> None:
    async def main() -> list[int]:
        listing = (Path(tree) / "many").iterdir()
        await listing.__anext__()
        await trio.lowlevel.checkpoint()
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        for _ in range(9):
            await listing.__anext__()
            steps.calls[-1] += 1
        trio.lowlevel.remove_instrument(steps)
        return steps.calls

    assert trio_uring.run(main, ring=RingOptions(checkpoint_budget=4)) == [4, 5]


# Breaking off


def iterators(path: Path) -> Iterator[Any]:
    yield path.iterdir()
    yield path.rglob("*")
    yield path.walk()
    yield path.walk(top_down=False)


@pytest.mark.usefixtures("few_entries_for_each_call")
@both_backends
def test_who_breaks_off_leaves_nothing_behind(tree: pathlib.Path, backend: Backend) -> None:
    """No descriptor, no thread that still works, and no warning."""

    async def broken_off() -> None:
        for iterator in iterators(Path(tree) / "many"):
            async for _ in iterator:
                break
            del iterator
        async for _ in (Path(tree) / "many").iterdir():
            break

    async def cancelled() -> None:
        for iterator in iterators(Path(tree) / "many"):
            with trio.CancelScope() as scope:
                async for _ in iterator:
                    scope.cancel()
            del iterator

    async def failed() -> None:
        for iterator in iterators(Path(tree) / "many"):
            with pytest.raises(ZeroDivisionError):  # noqa: PT012
                async for _ in iterator:
                    raise ZeroDivisionError
            del iterator

    async def closed() -> None:
        kept = []
        for iterator in iterators(Path(tree) / "many"):
            async with aclosing(iterator):
                async for _ in iterator:
                    break
            with pytest.raises(StopAsyncIteration):
                await iterator.__anext__()
            kept.append(iterator)
        assert len(kept) == 4

    async def main() -> None:
        limiter = trio.to_thread.current_default_thread_limiter()
        for break_off in (broken_off, cancelled, failed, closed):
            await break_off()
            assert limiter.borrowed_tokens == 0
            assert not [one for one in os.listdir("/proc/self/fd") if is_of(one)]

    def is_of(descriptor: str) -> bool:
        try:
            return os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(tree))
        except FileNotFoundError:
            return False

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend.run(main)
        gc.collect()


@pytest.mark.usefixtures("few_entries_for_each_call")
@pytest.mark.parametrize(
    "call", [lambda path: path.iterdir(), lambda path: path.walk()], ids=["iterdir", "walk"]
)
def test_what_a_cancelled_call_has_read_is_not_lost(
    tree: pathlib.Path, threads: Threads, call: Callable[[Path], Any]
) -> None:
    async def main() -> None:
        iterator = call(Path(tree) / "many")
        going_on = threading.Event()
        threads.in_thread = going_on.wait
        found = []

        async def ask() -> None:
            async for one in iterator:
                found.append(one)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            going_on.set()
        assert threads.calls == 1
        found += [one async for one in iterator]
        assert (
            len({str(one) for one in found})
            == len(found)
            == (1 if call(Path(".")).__class__ is directories.Walk else 50)
        )

    URING.run(main)


@pytest.mark.usefixtures("few_entries_for_each_call")
def test_listing_is_cancelled_between_two_calls(tree: pathlib.Path, threads: Threads) -> None:
    async def main() -> None:
        with trio.CancelScope() as scope:
            threads.in_thread = lambda: trio.from_thread.run_sync(scope.cancel)
            await (Path(tree) / "many").iterdir()
        assert scope.cancelled_caught
        assert threads.calls == 1

    URING.run(main)


def test_two_tasks_cannot_read_one_directory_at_once(tree: pathlib.Path, threads: Threads) -> None:
    async def main() -> None:
        for iterator in iterators(Path(tree)):
            going_on = threading.Event()
            threads.in_thread = going_on.wait
            async with trio.open_nursery() as nursery:
                nursery.start_soon(iterator.__anext__)
                await wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await iterator.__anext__()
                with pytest.raises(trio.BusyResourceError):
                    await iterator.aclose()
                going_on.set()
            await iterator.aclose()

    URING.run(main)


@both_backends
def test_nothing_is_lost_where_a_task_asks_for_what_a_thread_is_adding_to(
    tree: pathlib.Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread has read some, and is in the middle of reading more."""
    has_read, going_on = trio.Event(), threading.Event()

    def late(unread: Iterator[str], most: int) -> Iterator[str]:
        for number, text in enumerate(islice(unread, most)):
            if listing._read and not number and not going_on.is_set():
                trio.from_thread.run_sync(has_read.set)
                assert going_on.wait(60)
            yield text

    monkeypatch.setattr(directories, "islice", late)
    listing = (Path(tree) / "many").iterdir()

    async def main() -> None:
        found = []

        async def ask() -> None:
            found.append(await listing.__anext__())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await has_read.wait()
            with pytest.raises(trio.BusyResourceError):
                await ask()
            going_on.set()
        found += [path async for path in listing]
        assert len(set(found)) == len(found) == 50

    backend.run(main)


def test_two_tasks_cannot_make_steps_of_one_walk_at_once(tmp_path: pathlib.Path) -> None:
    """Even if no thread is needed: what is below the directory of one would be lost by the other."""
    for number in range(10):
        (tmp_path / f"{number}" / "below").mkdir(parents=True)
        (tmp_path / f"{number} without").mkdir()

    async def main() -> None:
        walk = Path(tmp_path).walk()
        found = [await walk.__anext__()]
        while not (walk._stack and walk._stack[-1].is_read and walk._stack[-1].names):
            found.append(await walk.__anext__())

        def ask_too() -> None:
            with pytest.raises(trio.BusyResourceError):
                walk.__anext__().send(None)

        found.append(await interrupted(walk.__anext__(), ask_too))
        found += [step async for step in walk]
        assert len(found) == 31

    URING.run(main)


def test_awaiting_gives_what_is_left_of_an_iteration_and_the_other_way_round(tree: pathlib.Path) -> None:
    async def main() -> None:
        everything = list(await (Path(tree) / "many").iterdir())
        listing = (Path(tree) / "many").iterdir()
        first = await listing.__anext__()
        assert [first, *await listing] == everything
        assert [one async for one in listing] == list(await listing) == []

    URING.run(main)


def test_what_was_found_before_an_error_comes_before_it(tree: pathlib.Path) -> None:
    """With ``async for``; who awaits gets the error alone, as from `trio.Path`."""

    def failing() -> Any:
        yield "one"
        yield "two"
        raise OSError("broken")

    async def main() -> None:
        found = []
        with pytest.raises(OSError, match="broken"):  # noqa: PT012
            async for one in directories.Listing(Path, failing()):
                found.append(one)
        assert found == [Path("one"), Path("two")]
        with pytest.raises(OSError, match="broken"):
            await directories.Listing(Path, failing())

    URING.run(main)


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("run", [trio_uring.run, trio.run], ids=["io_uring", "epoll"])
def test_what_wants_an_asynchronous_function_takes_them(run: Any) -> None:
    expected = sorted(map(str, pathlib.Path().iterdir()))

    async def main() -> Iterator[Path]:
        found: Iterator[Path] = await trio.to_thread.run_sync(trio.from_thread.run, Path().glob, "*")
        return found

    assert sorted(map(str, run(Path().iterdir))) == expected
    assert sorted(map(str, run(main))) == expected
    with pytest.raises(NotADirectoryError):
        run(Path("file.py").iterdir)


@pytest.mark.usefixtures("tree")
def test_listing_that_no_task_was_made_of_can_be_closed_as_a_coroutine() -> None:
    listing = Path().iterdir()
    listing.close()
    with pytest.raises(ZeroDivisionError):
        listing.throw(ZeroDivisionError())
    listing.close()


def test_outside_of_a_run_there_is_one_error() -> None:
    for call in (Path(".").iterdir().__await__(), Path(".").walk().__anext__()):
        with pytest.raises(RuntimeError, match="must be called from async context"):
            call.send(None)
