"""The standard library's `open` is the oracle of `trio_uring.open_file`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from attempts import renew
from state_machine import check
from subjects import Subject, every_subject

if TYPE_CHECKING:
    from pathlib import Path


@every_subject
def test_programs_show_what_the_standard_library_shows(subject: Subject) -> None:
    check(subject)


@every_subject
@pytest.mark.parametrize("kind", ["text", "buffered", "raw"])
@pytest.mark.parametrize("mode", ["r", "w", "a", "r+", "w+"])
def test_names_of_the_object(subject: Subject, mode: str, kind: str, playground: Path) -> None:
    """The methods and attributes of Trio's object, and those that only ours have."""
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
    allowed = {"wrapped", "pread", "pread_into", "pwrite", "fsync", "fdatasync"}
    assert listed ^ expected <= allowed
    assert found ^ expected <= allowed
