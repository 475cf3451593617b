"""Numbers that are no int, given to calls that take one, against the standard library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
from attempts import open_standard
from calls import finish, outcome_of
from subjects import Subject, every_subject

if TYPE_CHECKING:
    from calls import OpenFile, Outcome


@attrs.frozen
class Index:
    """What may stand for an int, and is none."""

    number: int

    def __index__(self) -> int:
        return self.number


NUMBERS = [None, "1", b"1", 1.5, 2.0, -1.5, float("nan"), float("inf"), True, Index(2), Index(-1), 1 << 70]
WHENCES = [None, "1", 1.0, 2.5, True, Index(0), Index(1), Index(2), Index(7), 3, 7, -1, 1 << 40]
CALLS: list[tuple[str, tuple[object, ...]]] = [
    *((name, (number,)) for name in ("read", "read1", "readline", "peek", "truncate") for number in NUMBERS),
    *(("seek", (number,)) for number in NUMBERS),
    *(("seek", (number, whence)) for number in (0, 3, 2.0, Index(3), "1") for whence in WHENCES),
]


async def uses(open_file: OpenFile, mode: str, buffering: int) -> dict[object, list[Outcome]]:
    """What each call does after a read, and where that leaves the file."""
    found = {}
    for name, arguments in CALLS:
        Path("file").write_bytes(b"one\ntwo\nthree\n" * 10)
        file = await open_file(file="file", mode=mode, buffering=buffering)
        await file.read(2)
        calls = [lambda: getattr(file, name)(*arguments), file.tell, file.readline]  # noqa: B023
        found[name, arguments] = [(await outcome_of(call, checkpoints=False))[0] for call in calls]
        await file.aclose()
    return found


@every_subject
@pytest.mark.parametrize(("mode", "buffering"), [("r", -1), ("r+", -1), ("rb", -1), ("r+b", 16), ("rb", 0)])
def test_numbers_that_are_no_int(subject: Subject, mode: str, buffering: int, playground: Path) -> None:
    expected = finish(uses(open_standard, mode, buffering))
    seen = subject.backend.run(lambda: uses(subject.open_file, mode, buffering))
    for call, outcomes in expected.items():
        assert repr(seen[call]) == repr(outcomes), call
