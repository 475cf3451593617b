"""Every way to open a file, right and wrong, and files of every kind, against the standard library."""

from __future__ import annotations

import itertools
import os
import pty
import stat
import tty
import warnings
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from calls import Raised, Returned, Synchronous, attributes_of, contents_of, finish, outcome_of
from equivalence import open_descriptors
from subjects import Subject, every_subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from calls import File, OpenFile, Outcome

CONTENTS = b"\xef\xbb\xbfone\r\ntwo\nthr\xc3\xa9e\r"

GOOD_MODES = [
    "".join(mode) + kind for mode in itertools.product("rwax", ["", "+"]) for kind in ["", "b", "t"]
]
BAD_MODES = [
    *("", "b", "t", "+", "rw", "wa", "xr", "rr", "r++", "rbt", "tb", "bt+", "rbb", "U", "rU", "z", "rz", "R"),
    *("br", "+r", "tr+", "r b", "r\0", "é", None, 1, b"r"),
]
BUFFERINGS = [-1, 0, 1, 5, -2, 1 << 40, None, 1.5, "1", True]
ENCODINGS = [
    None,
    "utf-8",
    "UTF8",
    "utf-8-sig",
    "utf-16",
    "locale",
    "nonsense",
    "",
    "utf\0",
    "hex",
    "rot13",
    5,
]
ERRORS = [None, "strict", "replace", "surrogateescape", "nonsense", "", "a\0b", 5]
NEWLINES = [None, "", "\n", "\r", "\r\n", "\n\r", "x", "\0", "\n\n", 5, b"\n"]
NAMES: list[object] = [
    *("file", "missing", "directory", "directory/", "file/under", "missing/under", "link to nowhere", "loop"),
    *(
        "",
        "nul\0",
        "x" * 300,
        b"file",
        b"missing",
        b"nul\0",
        Path("file"),
        Path("missing"),
        Path("directory"),
    ),
    *("surrog\udc80te", "surrog\ud800te", None, 1.5, [], -1, -5, 1 << 40, 9999),
]


class Opener:
    """An `opener` that notes how it is called."""

    def __init__(self, answer: Callable[[str, int], object]) -> None:
        self.answer = answer
        self.calls: list[tuple[object, int]] = []

    def __call__(self, path: str, flags: int) -> Any:
        self.calls.append((path, flags))
        return self.answer(path, flags)


def failing(path: str, flags: int) -> int:
    raise RuntimeError("the opener's own")


def of_directory(path: str, flags: int) -> int:
    return os.open(".", os.O_RDONLY)


OPENERS: list[Callable[[str, int], object]] = [
    os.open,
    failing,
    of_directory,
    lambda path, flags: -1,
    lambda path, flags: -7,
    lambda path, flags: None,
    lambda path, flags: "1",
    lambda path, flags: 1.5,
    lambda path, flags: 9999,
    lambda path, flags: 1 << 40,
    lambda path, flags: os.open(path, os.O_RDONLY),
]


@pytest.fixture
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("directory").mkdir()
    Path("link to nowhere").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    return tmp_path


def renew() -> None:
    """The same start for every opening."""
    for name in ["missing", "nowhere", "UTF8", "surrog\udc80te"]:
        Path(name).unlink(missing_ok=True)
    Path("file").write_bytes(CONTENTS)


async def attempt(open_file: OpenFile, arguments: dict[str, Any], *, checkpoints: bool) -> dict[str, object]:
    """What can be seen of one attempt to open a file, of reading or writing it, and of closing it."""
    renew()
    descriptors = open_descriptors()
    seen: dict[str, object] = {}
    if opener := arguments.get("opener"):
        arguments = {**arguments, "opener": (opener := Opener(opener))}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        outcome, file = await outcome_of(lambda: open_file(**arguments), checkpoints=checkpoints)
    seen["warnings"] = [(warning.category, str(warning.message)) for warning in warned]
    seen["calls of the opener"] = getattr(opener, "calls", None)
    if isinstance(outcome, Raised):
        seen["outcome"] = outcome
    else:
        seen["attributes"] = attributes_of(file)
        seen["position"] = (await outcome_of(file.tell, checkpoints=checkpoints))[0]
        call = (
            file.read if file.readable() else lambda: file.write("four\n" if seen_text(file) else b"four\n")
        )
        seen["outcome"] = (await outcome_of(call, checkpoints=checkpoints))[0]
        seen["closing"] = (await outcome_of(file.aclose, checkpoints=checkpoints))[0]
        seen["attributes when closed"] = attributes_of(file)
    seen["files"] = {name: contents_of(Path(name)) for name in ["file", "missing", "nowhere"]}
    seen["descriptors left open"] = open_descriptors() - descriptors
    return seen


def seen_text(file: File) -> bool:
    return hasattr(file, "encoding")


async def open_standard(**arguments: Any) -> Synchronous:
    return Synchronous(open(**arguments))


def differences(subject: Subject, cases: list[dict[str, Any]]) -> list[str]:
    """Opens all of them in one run."""

    async def compare() -> list[str]:
        found = []
        for arguments in cases:
            expected = finish(attempt(open_standard, arguments, checkpoints=False))
            seen = await attempt(subject.open_file, arguments, checkpoints=True)
            found += [
                f"{arguments}: {name}: expected {expected[name]!r}, but got {seen.get(name)!r}"
                for name in expected
                if seen.get(name) != expected[name]
            ]
        return found

    return subject.backend.run(compare)


def check(subject: Subject, cases: list[dict[str, Any]]) -> None:
    found = differences(subject, cases)
    assert not found, "\n".join([f"{len(found)} differences", *found[:20]])


@every_subject
@pytest.mark.parametrize("kind", ["", "b"], ids=["text", "binary"])
def test_modes_and_bufferings(subject: Subject, kind: str, playground: Path) -> None:
    modes = [mode for mode in [*GOOD_MODES, *BAD_MODES] if ("b" in str(mode)) == bool(kind)]
    check(
        subject,
        [
            {"file": name, "mode": mode, "buffering": buffering}
            for mode in modes
            for buffering in BUFFERINGS
            if buffering != 1 << 40  # Text and buffers ask for the memory.
            for name in ["file", "missing"]
        ],
    )


@every_subject
def test_encodings_errors_and_newlines(subject: Subject, playground: Path) -> None:
    check(
        subject,
        [
            {"file": "file", "mode": mode, "encoding": encoding, "errors": errors, "newline": newline}
            for mode in ["r", "w", "a+", "rb"]
            for encoding, errors, newline in [
                *itertools.product(ENCODINGS, [None, "nonsense", 5], [None]),
                *itertools.product([None, "utf-8"], ERRORS, [None]),
                *itertools.product([None, "nonsense"], [None, 5], NEWLINES),
            ]
        ],
    )


@every_subject
def test_which_of_several_mistakes_is_told(subject: Subject, playground: Path) -> None:
    check(
        subject,
        [
            dict(zip(("file", "mode", "buffering", "encoding", "newline", "closefd"), case, strict=True))
            for case in itertools.product(
                ["missing", None, "directory"],
                ["r", "wb", "rw", 5],
                [-1, 0, "x"],
                [None, "nonsense", 5],
                [None, "x"],
                [True, False],
            )
        ],
    )


@every_subject
def test_names(subject: Subject, playground: Path) -> None:
    check(
        subject,
        [
            {"file": name, "mode": mode, "buffering": buffering, "closefd": closefd}
            for name in NAMES
            for mode, buffering in [("r", -1), ("rb", 0), ("w", -1), ("ab", -1), ("x", -1), ("r+b", -1)]
            for closefd in [True, False]
        ],
    )


@every_subject
def test_openers(subject: Subject, playground: Path) -> None:
    check(
        subject,
        [
            {"file": name, "mode": mode, "opener": opener}
            for name in ["file", "missing", b"file", Path("file"), "directory"]
            for mode in ["r", "rb", "w", "a+", "xb"]
            for opener in OPENERS
        ],
    )


@pytest.fixture
def unprivileged(playground: Path) -> Iterator[None]:
    """Root, who may open every file, becomes nobody."""
    user = os.geteuid()
    playground.chmod(0o777)
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@every_subject
def test_files_without_permission(subject: Subject, unprivileged: None) -> None:
    async def use(open_file: OpenFile, permission: int, mode: str) -> Outcome | None:
        Path("locked").touch(permission)
        try:
            outcome, file = await outcome_of(lambda: open_file(file="locked", mode=mode), checkpoints=False)
            if file is not None:
                await file.aclose()
            return outcome if isinstance(outcome, Raised) else None
        finally:
            os.unlink("locked")

    async def use_all(open_file: OpenFile) -> list[Outcome | None]:
        cases = itertools.product([0o000, 0o200, 0o400], ["r", "w", "a", "r+", "x"])
        return [await use(open_file, *case) for case in cases]

    expected = finish(use_all(open_standard))
    assert {outcome.type for outcome in expected if outcome} == {PermissionError, FileExistsError}
    assert subject.backend.run(lambda: use_all(subject.open_file)) == expected


@every_subject
def test_files_that_the_kernel_makes_up(subject: Subject, playground: Path) -> None:
    check(
        subject,
        [
            {"file": name, "mode": mode, "buffering": buffering}
            for name in ["/dev/null", "/proc/version", "/proc/self/limits", "/proc", "/dev/full", "/dev/tty"]
            for mode, buffering in [
                ("r", -1),
                ("rb", -1),
                ("rb", 0),
                ("w", -1),
                ("r+b", 0),
                ("a", -1),
                ("x", -1),
            ]
            if (name, mode[0]) != ("/dev/full", "r")  # Zeros without end.
        ],
    )


@every_subject
@pytest.mark.parametrize("kind", ["text", "buffered", "raw"])
@pytest.mark.parametrize("mode", ["r", "w", "a", "r+", "w+"])
def test_names_of_the_object(subject: Subject, mode: str, kind: str, playground: Path) -> None:
    """Exactly the methods and attributes of Trio's object."""
    by_kind: dict[str, dict[str, Any]] = {
        "text": {"mode": mode},
        "buffered": {"mode": mode + "b"},
        "raw": {"mode": mode + "b", "buffering": 0},
    }
    arguments = by_kind[kind]

    async def names() -> tuple[set[str], set[str], set[str]]:
        renew()
        async with (
            await trio.open_file("file", **arguments) as theirs,
            await subject.open_file("file", **arguments) as file,
        ):
            expected = {name for name in dir(theirs) if not name.startswith("_") and hasattr(theirs, name)}
            listed = {name for name in dir(file) if not name.startswith("_")}
            return expected, listed, {name for name in expected | listed if hasattr(file, name)}

    expected, listed, found = subject.backend.run(names)
    allowed = {"wrapped"}
    assert listed ^ expected <= allowed
    assert found ^ expected <= allowed


@every_subject
@pytest.mark.parametrize("closefd", [True, False])
@pytest.mark.parametrize("mode", ["r", "rb", "r+", "a"])
def test_a_descriptor_instead_of_a_name(subject: Subject, mode: str, closefd: bool, playground: Path) -> None:
    """It starts where the descriptor is, and is closed only if it is to be."""

    async def use(open_file: OpenFile) -> list[object]:
        renew()
        fd = os.open("file", os.O_RDWR)
        os.lseek(fd, 4, os.SEEK_SET)
        file = await open_file(file=fd, mode=mode, closefd=closefd)
        seen: list[object] = [file.name == fd, file.mode, await file.tell(), attributes_of(file)["closed"]]
        assert isinstance(attributes_of(file)["fileno"], Returned)
        if file.readable():
            seen.append(await file.readline())
            seen.append(await file.tell())
        if file.writable():
            await file.write("written")
        await file.aclose()
        return [*seen, close_if_open(fd), contents_of(Path("file"))]

    expected = finish(use(open_standard))
    assert subject.backend.run(lambda: use(subject.open_file)) == expected


@every_subject
@pytest.mark.parametrize("buffering", [-1, 0])
def test_a_file_over_4_gib(subject: Subject, buffering: int, playground: Path) -> None:
    at = 5 * 1024**3 + 7

    async def use(open_file: OpenFile) -> list[object]:
        file = await open_file(file="large", mode="w+b", buffering=buffering)
        try:
            return [
                await file.seek(at),
                await file.write(b"end\nof it"),
                await file.tell(),
                await file.seek(-9, os.SEEK_END),
                await file.readline(),
                await file.tell(),
                await file.truncate(at + 2),
                await file.seek(at - 2),
                await file.read(),
                await file.tell(),
            ]
        finally:
            await file.aclose()
            os.unlink("large")

    expected = finish(use(open_standard))
    assert expected[4] == b"end\n"
    assert subject.backend.run(lambda: use(subject.open_file)) == expected


@every_subject
@pytest.mark.parametrize("kind", ["text", "buffered", "raw"])
def test_a_fifo_between_two_files(subject: Subject, kind: str, playground: Path) -> None:
    """Both ends are opened and used at the same time; neither can seek."""
    os.mkfifo("fifo")
    binary, extra = kind != "text", {"buffering": 0} if kind == "raw" else {}
    data: Any = b"line\n" * 30_000 if binary else "l\u00edne\n" * 30_000
    read: list[Any] = []

    async def write() -> None:
        async with await subject.open_file("fifo", "wb" if binary else "w", **extra) as file:
            sent = 0
            while sent < len(data):
                sent += await file.write(data[sent:])
            assert not file.seekable()
            for call in [file.tell, lambda: file.seek(0)]:
                with pytest.raises(OSError, match="seek"):
                    await call()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            async with await subject.open_file("fifo", "rb" if binary else "r", **extra) as file:
                while chunk := await file.read(10_000):
                    read.append(chunk)
                assert not file.seekable()

    subject.backend.run(main)
    assert data[:0].join(read) == data


@every_subject
def test_what_a_pipe_cannot_do(subject: Subject) -> None:
    modes = ["r", "rb", "w", "wb", "a", "r+", "r+b"]

    async def use(open_file: OpenFile, end: int, mode: str, buffering: int) -> list[object]:
        ends = os.pipe()
        outcome, file = await outcome_of(
            lambda: open_file(file=ends[end], mode=mode, buffering=buffering), checkpoints=False
        )
        os.close(ends[1 - end])
        if file is None:
            assert isinstance(outcome, Raised)
            return [outcome.type, close_if_open(ends[end])]
        async with aclosing(file):
            return [
                (await outcome_of(file.tell, checkpoints=False))[0],
                (await outcome_of(lambda: file.seek(0), checkpoints=False))[0],
                (await outcome_of(lambda: file.truncate(1), checkpoints=False))[0],
                (await outcome_of(lambda: file.read(1), checkpoints=False))[0],
                [file.isatty(), file.seekable(), file.readable(), file.writable()],
            ]

    async def use_all(open_file: OpenFile) -> list[list[object]]:
        return [await use(open_file, *case) for case in itertools.product([0, 1], modes, [-1, 0])]

    expected = finish(use_all(open_standard))
    assert subject.backend.run(lambda: use_all(subject.open_file)) == expected


def close_if_open(fd: int) -> str:
    try:
        os.close(fd)
    except OSError:
        return "closed"
    return "left open"


@every_subject
@pytest.mark.parametrize("mode", ["r", "rb"])
def test_a_terminal_gives_lines_as_they_come(subject: Subject, mode: str) -> None:
    async def main() -> None:
        master, slave = pty.openpty()
        tty.setraw(slave)
        assert stat.S_ISCHR(os.fstat(slave).st_mode)
        async with (
            await subject.open_file(master, "wb", 0) as keyboard,
            await subject.open_file(slave, mode) as file,
        ):
            assert file.isatty()
            if mode == "r":
                assert file.line_buffering
            for text in [b"first\n", b"sec", b"ond\nthird\n"]:
                await keyboard.write(text)
            lines = [await file.readline() for _ in range(3)]
        assert lines == (
            ["first\n", "second\n", "third\n"] if mode == "r" else [b"first\n", b"second\n", b"third\n"]
        )

    subject.backend.run(main)
