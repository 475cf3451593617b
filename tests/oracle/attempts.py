"""Attempts to open a file, and what can be seen of each."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calls import Raised, Synchronous, attributes_of, contents_of, finish, outcome_of
from equivalence import open_descriptors

if TYPE_CHECKING:
    from collections.abc import Callable

    from calls import File, OpenFile
    from subjects import Subject

CONTENTS = b"\xef\xbb\xbfone\r\ntwo\nthr\xc3\xa9e\r"


class Opener:
    """An `opener` that notes how it is called."""

    def __init__(self, answer: Callable[[str, int], object]) -> None:
        self.answer = answer
        self.calls: list[tuple[object, int]] = []

    def __call__(self, path: str, flags: int) -> Any:
        self.calls.append((path, flags))
        return self.answer(path, flags)


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
