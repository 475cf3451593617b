"""Temporary files and directories behave as the standard library's, and are gone whatever happens."""

from __future__ import annotations

import contextlib
import errno
import gc
import inspect
import io
import os
import pathlib
import stat
import sys
import tempfile
import threading
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from child_process import output_of
from equivalence import EPOLL, URING
from file_limits import files_no_longer_than
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

import trio_uring
from trio_uring.files.position import OWN

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from equivalence import Backend

both_backends = pytest.mark.parametrize("backend", [URING, EPOLL], ids=lambda backend: backend.name)
KINDS = (
    "TemporaryFile",
    "NamedTemporaryFile",
    "SpooledTemporaryFile",
    "TemporaryDirectory",
    "mkstemp",
    "mkdtemp",
)
FILES = KINDS[:3]


@pytest.fixture
def place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Where they are made; nothing else is there."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def open_here(place: pathlib.Path) -> list[str]:
    """What is open of what was made there, also without a name."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [name for name in found if name.startswith(str(place))]


# As the standard library


@attrs.frozen
class Synchronous:
    """A file of the standard library, with the methods of an asynchronous one."""

    file: Any

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.file, name)
        if not callable(value) or name in ("fileno", "isatty", "readable", "seekable", "writable"):
            return value

        async def call(*args: Any) -> Any:
            return value(*args)

        return call

    def __aiter__(self) -> Any:
        async def lines() -> Any:
            for line in self.file:
                yield line

        return lines()


@contextlib.asynccontextmanager
async def standard(kind: str, *args: Any, **options: Any) -> Any:
    with getattr(tempfile, kind)(*args, **options) as file:
        yield Synchronous(file)


def ours(kind: str, *args: Any, **options: Any) -> Any:
    return getattr(trio_uring, kind)(*args, **options)


PROGRAM: list[tuple[str, Any]] = [
    ("write", "one\ntwo\r\nthree \u20ac\n"),
    ("tell", ()),
    ("seek", (0,)),
    ("readline", ()),
    ("tell", ()),
    ("read", (3,)),
    ("read", (-1,)),
    ("read", ()),
    ("seek", (0, 2)),
    ("write", "and more\n" * 40),
    ("flush", ()),
    ("seek", (4,)),
    ("readlines", (10,)),
    ("tell", ()),
    ("write", "x"),
    ("seek", (0,)),
    ("readlines", ()),
    ("truncate", (9,)),
    ("seek", (0,)),
    ("read", ()),
    ("truncate", (300,)),
    ("seek", (0, 2)),
    ("writelines", ["a\n", "b\n"]),
    ("seek", (0,)),
    ("read1", (5,)),
    ("readinto", bytearray(7)),
    ("readinto1", bytearray(7)),
    ("rollover", ()),
    ("tell", ()),
    ("read", ()),
    ("seek", ("nonsense",)),
    ("write", 3),
]
MODES: list[dict[str, Any]] = [
    {},
    {"mode": "w+b", "buffering": 0},
    {"mode": "w+b", "buffering": 16},
    {"mode": "r+b"},
    {"mode": "a+b"},
    {"mode": "wb"},
    {"mode": "w+"},
    {"mode": "w+", "encoding": "utf-16", "newline": "\r\n"},
    {"mode": "w+t", "encoding": "ascii", "errors": "replace", "newline": ""},
    {"mode": "a+", "encoding": "utf-8", "newline": "\n"},
    {"mode": "w", "encoding": "latin-1", "errors": "xmlcharrefreplace"},
]


async def outcomes(manager: Any, *, is_text: bool) -> list[object]:
    """What the program's calls return, or raise, and what can be asked of the file between."""
    seen: list[object] = []
    async with manager as file:
        for name, argument in PROGRAM:
            arguments = argument if isinstance(argument, tuple) else (argument,)
            if not is_text:
                arguments = tuple(made_bytes(one) for one in arguments)
            try:
                seen.append((name, await getattr(file, name)(*arguments)))
            except Exception as error:
                is_of_kind = isinstance(error, (TypeError, AttributeError))
                seen.append((name, type(error), "" if is_of_kind else str(error)))
            if isinstance(argument, bytearray):
                seen.append(bytes(argument))
            seen += [file.closed, file.mode, *(getattr(file, name, None) for name in ("encoding", "errors"))]
        await file.seek(0)
        try:
            seen.append([line async for line in file])
        except (io.UnsupportedOperation, UnicodeError) as error:
            seen.append(str(error))
    seen.append(file.closed)
    return seen


def made_bytes(value: object) -> object:
    if isinstance(value, list):
        return [made_bytes(one) for one in value]
    return value.encode() if isinstance(value, str) and value != "nonsense" else value


@pytest.mark.usefixtures("place")
@both_backends
@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("kind", FILES[:2])
def test_file_does_what_the_standard_librarys_does(backend: Backend, kind: str, mode: dict[str, Any]) -> None:
    is_text = "b" not in mode.get("mode", "b")
    expected = trio.run(partial(outcomes, standard(kind, **mode), is_text=is_text))
    assert backend.run(partial(outcomes, ours(kind, **mode), is_text=is_text)) == expected


@pytest.mark.usefixtures("place")
@both_backends
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode.get("buffering") != 16], ids=str)
@pytest.mark.parametrize("max_size", [-1, 0, 10, 100, 1 << 20])
def test_spooled_file_does_what_the_standard_librarys_does(
    backend: Backend, max_size: int, mode: dict[str, Any]
) -> None:
    is_text = "b" not in mode.get("mode", "b")
    if sys.version_info < (3, 11):
        pytest.skip("the standard library's has not all the methods of a file")
    arguments = ("SpooledTemporaryFile", max_size)
    expected = trio.run(partial(outcomes, standard(*arguments, **mode), is_text=is_text))
    assert backend.run(partial(outcomes, ours(*arguments, **mode), is_text=is_text)) == expected


@both_backends
@pytest.mark.parametrize("kind", FILES)
def test_wrong_arguments_are_refused_alike(place: pathlib.Path, backend: Backend, kind: str) -> None:
    async def refused(make: Callable[..., Any], options: dict[str, Any]) -> object:
        try:
            async with make(kind, **options) as file:
                await file.rollover() if kind == "SpooledTemporaryFile" else None
        except Exception as error:
            return type(error), getattr(error, "errno", str(error))
        return options

    async def main(make: Callable[..., Any]) -> list[object]:
        return [await refused(make, options) for options in wrong]

    wrong: list[dict[str, Any]] = [
        {"mode": "nonsense"},
        {"mode": "w+b", "encoding": "utf-8"},
        {"mode": "w+", "encoding": "nonsense"},
        {"mode": "w+", "buffering": 0},
        {"dir": "/nowhere"},
        {"dir": b"/nowhere"},
        {"prefix": "a", "dir": b"/"},
        {"suffix": 3},
        {"dir": "/proc"},
    ]
    if kind == "SpooledTemporaryFile":
        wrong = [options for options in wrong if "mode" not in options]
    assert backend.run(partial(main, ours)) == trio.run(main, standard)
    assert os.listdir(place) == open_here(place) == []


def test_signatures_are_the_standard_librarys() -> None:
    later = {"delete_on_close", "delete"} if sys.version_info < (3, 12) else set()
    for kind in KINDS:
        mine = inspect.signature(getattr(trio_uring, kind)).parameters
        theirs = inspect.signature(getattr(tempfile, kind)).parameters
        assert [*theirs] == [name for name in mine if name in theirs or name not in later]
        for name, parameter in theirs.items():
            assert (mine[name].kind, mine[name].default) == (parameter.kind, parameter.default)


@both_backends
@pytest.mark.parametrize(
    "options",
    [{}, {"suffix": ".txt"}, {"prefix": "mine"}, {"suffix": b".txt", "prefix": b"mine"}, {"dir": "here"}],
    ids=str,
)
def test_names(place: pathlib.Path, backend: Backend, options: dict[str, Any]) -> None:
    """Of all that has one: its parts, its kind, and who may read what has it."""

    def described(name: Any) -> object:
        mode = os.lstat(name).st_mode
        short = os.path.basename(name)
        affixes = [short[:4], short[-4:]] if options else [short[:3]]
        given = [one for one in affixes if one in (*options.values(), "tmp", b"tmp")]
        return type(name), len(short), os.path.dirname(os.fsdecode(name)), given, stat.filemode(mode)

    if "dir" in options:
        (place / "here").mkdir()
        options = {"dir": str(place / "here")}

    async def main() -> list[object]:
        seen = []
        async with trio_uring.NamedTemporaryFile(**options) as file:
            seen.append(described(file.name))
        async with trio_uring.TemporaryDirectory(**options) as name:
            seen.append(described(name))
        fd, name = await trio_uring.mkstemp(**options)
        seen += [described(name), os.get_inheritable(fd)]
        os.close(fd)
        os.unlink(name)
        name = await trio_uring.mkdtemp(**options)
        seen.append(described(name))
        os.rmdir(name)
        return seen

    def expected() -> list[object]:
        seen = []
        with tempfile.NamedTemporaryFile(**options) as file:
            seen.append(described(file.name))
        with tempfile.TemporaryDirectory(**options) as name:
            seen.append(described(name))
        fd, name = tempfile.mkstemp(**options)
        seen += [described(name), os.get_inheritable(fd)]
        os.close(fd)
        os.unlink(name)
        name = tempfile.mkdtemp(**options)
        seen.append(described(name))
        os.rmdir(name)
        return seen

    assert backend.run(main) == expected()


@both_backends
def test_where_they_are_made(place: pathlib.Path, backend: Backend) -> None:
    async def main() -> None:
        with assert_checkpoints():
            assert await trio_uring.gettempdir() == str(place)
        with assert_checkpoints():
            assert await trio_uring.gettempdirb() == os.fsencode(place)

    backend.run(main)


def test_missing_encoding_is_warned_of_where_the_caller_is() -> None:
    assert (
        output_of(
            """
            import sys, warnings, trio_uring
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                trio_uring.TemporaryFile("w+")
                trio_uring.NamedTemporaryFile("w+")
                trio_uring.SpooledTemporaryFile(mode="w+")
            # Where there is no compiler, ctypes has one of its own, when Trio looks for a library.
            lines = [(one.filename, one.lineno) for one in caught if "ctypes" not in one.filename]
            for name, line in lines:
                print(name, line - lines[0][1])
            """,
            flags=("-X", "warn_default_encoding"),
        )
        == "<string> 0\n<string> 1\n<string> 2\n"
    )


# As our files


@both_backends
def test_files_are_read_and_written_as_those_that_were_opened(place: pathlib.Path, backend: Backend) -> None:
    async def main() -> None:
        for file_manager in (trio_uring.TemporaryFile(), trio_uring.NamedTemporaryFile()):
            async with file_manager as file:
                async with await trio_uring.open_file(place / "opened", "w+b") as opened:
                    assert type(file) is type(opened)
                    assert file._position.kind is opened._position.kind
                await file.write(b"x" * 1_000_000)
                assert await file.pread(5, 10) == b"xxxxx"
                if hasattr(file.name, "encode"):
                    assert await trio_uring.Path(file.name).read_bytes() == b"x" * 1_000_000

    backend.run(main)


def test_no_thread_reads_or_writes(place: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with trio_uring.TemporaryFile() as file, trio_uring.SpooledTemporaryFile(10) as spooled:
            await spooled.write(b"x" * 100)
            if file._position.kind is not OWN:
                pytest.skip("this file system is not one that the ring is for")
            limiter = trio.to_thread.current_default_thread_limiter()
            limiter.total_tokens = 1
            limiter.acquire_on_behalf_of_nowait("nobody, so that a thread is never to be had")
            for one in (file, spooled):
                await one.write(b"x" * 1_000_000)
                await one.seek(0)
                assert len(await one.read()) >= 1_000_000

    URING.run(main)


# What is left


async def crash() -> None:
    """Its run."""
    trio.lowlevel.current_task()._runner.runq.append("not a task")
    await trio.sleep_forever()


async def made(kind: str, place: pathlib.Path, inside: Callable[[], Awaitable[object]]) -> None:
    """Makes one, with something in it, and does something ``inside``."""
    manager = ours(kind, *([4] if kind == "SpooledTemporaryFile" else ()))
    async with manager as one:
        if kind == "TemporaryDirectory":
            os.makedirs(f"{one}/a/b")
            pathlib.Path(one, "a/b/file").touch()
        else:
            await one.write(b"x" * 100_000)
        assert os.listdir(place) or open_here(place)
        await inside()


def is_gone(place: pathlib.Path) -> bool:
    return os.listdir(place) == [] == open_here(place)


async def nothing() -> None:
    pass


async def an_error() -> None:
    raise ZeroDivisionError


async def a_cancellation() -> None:
    nursery = trio.lowlevel.current_task().parent_nursery
    assert nursery is not None
    nursery.cancel_scope.cancel()
    await trio.sleep_forever()


@both_backends
@pytest.mark.parametrize("kind", KINDS[:4])
@pytest.mark.parametrize("inside", [nothing, an_error, a_cancellation])
def test_they_are_gone_when_they_are_left(
    place: pathlib.Path, backend: Backend, kind: str, inside: Callable[[], Awaitable[object]]
) -> None:
    async def main() -> None:
        with contextlib.suppress(Exception):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(made, kind, place, inside)
        assert is_gone(place)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend.run(main)
        gc.collect()


@both_backends
@pytest.mark.parametrize("kind", KINDS[:4])
def test_they_are_gone_though_every_thread_is_busy(place: pathlib.Path, backend: Backend, kind: str) -> None:
    async def main() -> None:
        limiter = trio.to_thread.current_default_thread_limiter()

        async def take_all() -> None:
            for number in range(int(limiter.total_tokens) - limiter.borrowed_tokens):
                limiter.acquire_on_behalf_of_nowait(number)

        with trio.fail_after(60):
            await made(kind, place, take_all)
        assert is_gone(place)

    backend.run(main)


@both_backends
@pytest.mark.parametrize("kind", KINDS)
def test_cancelled_before_it_was_made_it_is_not(place: pathlib.Path, backend: Backend, kind: str) -> None:
    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            if kind in KINDS[4:]:
                await getattr(trio_uring, kind)()
            elif kind == "SpooledTemporaryFile":
                await trio_uring.SpooledTemporaryFile().rollover()
            else:
                async with getattr(trio_uring, kind)():
                    raise AssertionError
        assert scope.cancelled_caught
        assert is_gone(place)

    backend.run(main)


@pytest.mark.parametrize(
    "kind", ["TemporaryFile", "NamedTemporaryFile", "TemporaryDirectory", "mkstemp", "mkdtemp"]
)
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # Trio's, of its crashed nursery
def test_what_was_made_for_a_task_that_is_gone_is_removed(
    place: pathlib.Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The thread ends when there is no run any longer."""
    make = getattr(tempfile, kind)
    going_on, ended = threading.Event(), threading.Event()

    def slow(*args: Any, **options: Any) -> Any:
        assert going_on.wait(60)
        made.append(None)
        try:
            return make(*args, **options)
        finally:
            ended.set()

    made: list[None] = []
    monkeypatch.setattr(tempfile, kind, slow)

    async def use() -> None:
        if kind in KINDS[4:]:
            await getattr(trio_uring, kind)()
        else:
            async with getattr(trio_uring, kind)():
                raise AssertionError

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await wait_all_tasks_blocked()
            await crash()

    with pytest.raises(trio.TrioInternalError):
        URING.run(main)
    going_on.set()
    assert ended.wait(60)
    for _ in range(1000):
        gc.collect()
        if is_gone(place):
            break
        threading.Event().wait(0.01)
    assert made
    assert is_gone(place)


@pytest.mark.parametrize("kind", KINDS[:4])
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning",
    "ignore::RuntimeWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
def test_what_a_crashed_run_was_using_is_removed(place: pathlib.Path, kind: str) -> None:
    async def main() -> None:
        await made(kind, place, crash)

    with pytest.raises(trio.TrioInternalError):
        URING.run(main)
    gc.collect()
    assert is_gone(place)


@both_backends
@pytest.mark.parametrize("kind", FILES[:2])
def test_file_that_cannot_be_written_is_gone_all_the_same(
    place: pathlib.Path, backend: Backend, kind: str
) -> None:
    async def main() -> None:
        async with ours(kind) as file:
            await file.write(b"0123456789")

    with files_no_longer_than(5), pytest.raises(OSError) as raised:  # noqa: PT011
        backend.run(main)
    assert raised.value.errno == errno.EFBIG
    assert is_gone(place)


@pytest.mark.parametrize("kind", KINDS[:4])
@pytest.mark.parametrize("moment", ["making", "inside", "removing"])
def test_ctrl_c(place: pathlib.Path, kind: str, moment: str) -> None:
    """At the next checkpoint; and it is gone."""
    program = f"""
    import os, signal, tempfile, trio, trio_uring
    tempfile.tempdir = {str(place)!r}
    def interrupting(function):
        def call(*args, **options):
            os.kill(os.getpid(), signal.SIGINT)
            return function(*args, **options)
        return call
    kind, moment = {kind!r}, {moment!r}
    async def main():
        manager = getattr(trio_uring, kind)()
        if moment == "making" and kind != "SpooledTemporaryFile":
            manager._make = interrupting(manager._make)
        async with manager as one:
            if hasattr(one, "rollover"):
                if moment == "making":
                    one._make = interrupting(one._make)
                await one.write(b"x")
                await one.rollover()
            if moment == "removing" and kind == "TemporaryDirectory":
                manager._directory.cleanup = interrupting(manager._directory.cleanup)
            if moment == "removing" and kind == "NamedTemporaryFile":
                os.unlink = interrupting(os.unlink)
                tempfile._os.unlink = os.unlink
            if moment != "making":
                signal.raise_signal(signal.SIGINT)
            await trio.sleep(0)
            await trio.sleep(0)
            raise AssertionError
    try:
        trio_uring.run(main)
    except KeyboardInterrupt:
        print("interrupted", os.listdir({str(place)!r}))
    """
    assert output_of(program) == "interrupted []\n"


@pytest.mark.parametrize("kind", ["NamedTemporaryFile", "TemporaryDirectory"])
def test_ctrl_c_that_came_before_the_removal_is_raised_after_it(place: pathlib.Path, kind: str) -> None:
    program = f"""
    import os, signal, tempfile, trio, trio_uring
    tempfile.tempdir = {str(place)!r}
    options = {{"delete_on_close": False}} if {kind!r} == "NamedTemporaryFile" else {{}}
    @trio.lowlevel.enable_ki_protection
    async def main():
        try:
            async with getattr(trio_uring, {kind!r})(**options):
                signal.raise_signal(signal.SIGINT)
        finally:
            print(os.listdir({str(place)!r}))
    try:
        trio_uring.run(main)
    except KeyboardInterrupt:
        print("interrupted")
    """
    assert output_of(program) == "[]\ninterrupted\n"


async def one_in_a_generator(manager: Any, amount: int) -> AsyncGenerator[Any, None]:
    async with manager as one:
        for _ in range(2):
            await one.write(b"x" * amount)
        yield one


@both_backends
@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("options", [{}, {"buffering": 0}], ids=["buffered", "raw"])
def test_asynchronous_generator_that_is_closed_closes_and_removes_its_file(
    place: pathlib.Path, backend: Backend, kind: str, options: dict[str, Any]
) -> None:
    async def main() -> None:
        generator = one_in_a_generator(getattr(trio_uring, kind)(**options), 100)
        file = await generator.__anext__()
        await generator.aclose()
        assert file.closed
        assert is_gone(place)

    backend.run(main)


@both_backends
@pytest.mark.parametrize("amount", [10, 100_000, 3 << 20])
@pytest.mark.parametrize("options", [{}, {"mode": "w+"}], ids=["binary", "text"])
def test_asynchronous_generator_that_is_closed_writes_the_file_that_stays(
    place: pathlib.Path, backend: Backend, amount: int, options: dict[str, Any]
) -> None:
    async def in_a_generator() -> AsyncGenerator[Any, None]:
        async with trio_uring.NamedTemporaryFile(delete=False, **options) as file:
            for _ in range(2):
                await file.write("x" * amount if options else b"x" * amount)
            yield file

    async def main() -> None:
        generator = in_a_generator()
        file = await generator.__anext__()
        await generator.aclose()
        assert file.closed
        assert pathlib.Path(file.name).read_bytes() == b"x" * 2 * amount

    backend.run(main)


def test_writes_behind_a_generator_that_is_closed_go_to_no_other_file(place: pathlib.Path) -> None:
    """The one that is opened next has its descriptor's number."""

    async def main() -> None:
        generator = one_in_a_generator(trio_uring.NamedTemporaryFile(), 3 << 20)
        file = await generator.__anext__()
        number = file._own_fileno()
        await generator.aclose()
        with open(place / "other", "wb", buffering=0) as other:
            assert other.fileno() == number
            await trio.sleep(0)
            await (await trio_uring.open_file(place / "other", "rb")).fsync()
            assert os.fstat(number).st_size == 0

    URING.run(main)


def test_file_that_another_task_is_using_outlives_a_generator_that_is_closed(place: pathlib.Path) -> None:
    """Until that task is done with it, and it is garbage."""

    async def main() -> None:
        generator = one_in_a_generator(trio_uring.NamedTemporaryFile(), 100)
        file = await generator.__anext__()
        task = trio.lowlevel.current_task()
        file._turns.holder = task
        await generator.aclose()
        assert not file.closed
        assert os.listdir(place) != []
        file._turns.leave(task)

    URING.run(main)
    gc.collect()
    assert is_gone(place)


def test_named_file_that_is_not_deleted_stays(place: pathlib.Path) -> None:
    async def main() -> None:
        async with trio_uring.NamedTemporaryFile("w+", delete=False) as file:
            await file.write("kept")
        assert pathlib.Path(file.name).read_text() == "kept"
        async with trio_uring.TemporaryDirectory(delete=False) as name:
            pass
        assert pathlib.Path(name).is_dir()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        URING.run(main)
        gc.collect()
    assert len(os.listdir(place)) == 2


@both_backends
@pytest.mark.parametrize("on_close", [True, False])
def test_named_file_is_deleted_when_it_is_closed_or_left(
    place: pathlib.Path, backend: Backend, on_close: bool
) -> None:
    async def main() -> None:
        async with trio_uring.NamedTemporaryFile(delete_on_close=on_close) as file:
            await file.write(b"content")
            await file.aclose()
            assert pathlib.Path(file.name).exists() is not on_close
            await file.aclose()
        assert is_gone(place)

    backend.run(main)


@both_backends
def test_name_that_another_task_is_removing_is_gone_when_the_file_is_left(
    place: pathlib.Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_removing, going_on = trio.Event(), threading.Event()
    leave = tempfile._TemporaryFileWrapper.__exit__

    def late(made: Any, *reason: Any) -> None:
        trio.from_thread.run_sync(is_removing.set)
        assert going_on.wait(60)
        leave(made, *reason)

    monkeypatch.setattr(tempfile._TemporaryFileWrapper, "__exit__", late)

    async def go_on() -> None:
        await wait_all_tasks_blocked()
        going_on.set()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            async with trio_uring.NamedTemporaryFile() as file:
                nursery.start_soon(file.aclose)
                await is_removing.wait()
                nursery.start_soon(go_on)
            assert is_gone(place)

    backend.run(main)


def test_name_that_is_gone_already_is_no_error(place: pathlib.Path) -> None:
    async def main() -> None:
        async with trio_uring.NamedTemporaryFile() as file:
            os.unlink(file.name)
        async with trio_uring.TemporaryDirectory() as name:
            os.rmdir(name)

    if sys.version_info < (3, 12):
        pytest.skip("the standard library raises here")
    URING.run(main)


@pytest.mark.parametrize("ignored", [True, False])
def test_errors_of_cleaning_up(place: pathlib.Path, monkeypatch: pytest.MonkeyPatch, ignored: bool) -> None:
    """Of a directory of which others go on to write."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTEMPTY, "not empty")

    async def main() -> None:
        async with trio_uring.TemporaryDirectory(ignore_cleanup_errors=ignored):
            monkeypatch.setattr(os, "rmdir", refuse)

    with contextlib.nullcontext() if ignored else pytest.raises(OSError, match="not empty"):
        URING.run(main)
    monkeypatch.undo()


def test_directory_can_be_cleaned_up_before_it_is_left(place: pathlib.Path) -> None:
    async def main() -> None:
        directory = trio_uring.TemporaryDirectory()
        async with directory as name:
            assert directory.name == name
            with assert_checkpoints():
                await directory.cleanup()
            assert is_gone(place)
            os.mkdir(name)
        assert is_gone(place)

    URING.run(main)


def test_cancelled_cleanup_cleans_up(place: pathlib.Path) -> None:
    async def main() -> None:
        async with trio_uring.TemporaryDirectory(delete=False):
            pass
        directory = trio_uring.TemporaryDirectory()
        async with directory:
            with trio.CancelScope() as scope:
                scope.cancel()
                await directory.cleanup()
            assert scope.cancelled_caught
            assert len(os.listdir(place)) == 1

    URING.run(main)


def test_end_of_the_interpreter_removes_what_was_abandoned(place: pathlib.Path) -> None:
    program = f"""
    import tempfile, trio, trio_uring
    tempfile.tempdir = {str(place)!r}
    kept = []
    async def main():
        for kind in (trio_uring.NamedTemporaryFile, trio_uring.TemporaryDirectory):
            manager = kind()
            await manager.__aenter__()
            kept.append(manager)
    trio_uring.run(main)
    print(len(kept))
    """
    assert output_of(program) == "2\n"
    assert os.listdir(place) == []


# Spooled files


@both_backends
def test_every_call_of_a_spooled_file_is_a_checkpoint(place: pathlib.Path, backend: Backend) -> None:
    async def main() -> None:
        async with trio_uring.SpooledTemporaryFile(5) as file:
            for _ in range(2):
                for name, argument in PROGRAM[:-2]:
                    arguments = argument if isinstance(argument, tuple) else (argument,)
                    with assert_checkpoints():
                        await getattr(file, name)(*map(made_bytes, arguments))
        with assert_checkpoints():
            await trio_uring.SpooledTemporaryFile().aclose()

    backend.run(main)


@both_backends
def test_spooled_file_is_on_the_disk_when_it_is_long(place: pathlib.Path, backend: Backend) -> None:
    async def main() -> None:
        async with trio_uring.SpooledTemporaryFile(10) as file:
            await file.write(b"0123456789")
            assert file.name is None
            assert open_here(place) == []
            with pytest.raises(io.UnsupportedOperation):
                file.fileno()
            await file.write(b"a")
            assert file.fileno() == file.name
            assert len(open_here(place)) == 1
            await file.seek(8)
            assert await file.read() == b"89a"

    backend.run(main)


def test_write_that_moves_a_spooled_file_is_not_half_cancelled(
    place: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with trio_uring.SpooledTemporaryFile(10) as file:
            with trio.CancelScope() as scope:
                make = file._make

                def cancelling() -> Any:
                    trio.from_thread.run_sync(scope.cancel)
                    return make()

                monkeypatch.setattr(file, "_make", cancelling)
                assert await file.write(b"0123456789ab") == 12
                await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught
            await file.seek(0)
            assert await file.read() == b"0123456789ab"

    URING.run(main)


def test_tasks_that_use_a_spooled_file_while_it_is_moved_wait(place: pathlib.Path) -> None:
    async def main() -> None:
        async with trio_uring.SpooledTemporaryFile(1) as file:
            going_on, is_moving = threading.Event(), trio.Event()
            make = file._make

            def slow() -> Any:
                trio.from_thread.run_sync(is_moving.set)
                assert going_on.wait(60)
                return make()

            file._make = slow  # type: ignore[assignment]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(file.write, b"first")
                await is_moving.wait()
                nursery.start_soon(file.write, b"second")
                nursery.start_soon(file.rollover)
                await wait_all_tasks_blocked()
                assert file.name is None
                going_on.set()
            await file.seek(0)
            assert await file.read() == b"firstsecond"

    URING.run(main)


def test_spooled_file_that_is_closed_while_it_is_moved_is_gone(place: pathlib.Path) -> None:
    async def main() -> None:
        file = trio_uring.SpooledTemporaryFile(1)
        going_on, is_moving = threading.Event(), trio.Event()
        make = file._make

        def slow() -> Any:
            trio.from_thread.run_sync(is_moving.set)
            assert going_on.wait(60)
            return make()

        file._make = slow  # type: ignore[assignment]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.write, b"first")
            await is_moving.wait()
            nursery.start_soon(file.aclose)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            going_on.set()
        assert file.closed
        assert is_gone(place)

    URING.run(main)


def test_spooled_file_that_cannot_be_moved_has_its_data(place: pathlib.Path) -> None:
    async def main() -> None:
        async with trio_uring.SpooledTemporaryFile(10) as file:
            with files_no_longer_than(5), pytest.raises(OSError) as raised:  # noqa: PT011
                await file.write(b"0123456789ab")
            assert raised.value.errno == errno.EFBIG
            assert open_here(place) == []
            await file.seek(0)
            assert await file.read() == b"0123456789ab"
            await file.rollover()
            assert await file.tell() == 12
            await file.seek(0)
            assert await file.read() == b"0123456789ab"

    URING.run(main)


def test_large_spooled_file_is_moved_as_a_whole(place: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the kernel takes less than it is asked to."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:1000], offset))

    async def main() -> None:
        async with trio_uring.SpooledTemporaryFile() as file:
            await file.write(bytes(range(256)) * 100)
            await file.rollover()
            await file.seek(0)
            assert await file.read() == bytes(range(256)) * 100

    EPOLL.run(main)
