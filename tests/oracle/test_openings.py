"""Every way to open a file, right and wrong, against the standard library."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attempts import check, open_standard
from calls import Raised, finish, outcome_of
from subjects import Subject, every_subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from calls import OpenFile, Outcome

GOOD_MODES = [
    "".join(mode) + kind for mode in itertools.product("rwax", ["", "+"]) for kind in ["", "b", "t"]
]
BAD_MODES = [
    *("", "b", "t", "+", "rw", "wa", "xr", "rr", "r++", "rbt", "tb", "bt+", "rbb", "z", "rz", "R"),
    *("br", "+r", "tr+", "r b", "r\0", "é", None, 1, b"r"),
]
if sys.version_info >= (3, 11):
    # Before, it is allowed, and `open` warns of it each time that it is called: ours calls it twice.
    BAD_MODES += ["U", "rU"]
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
