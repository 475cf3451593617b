"""A program: a file, calls on it, and what the standard library's file showed of each."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
from calls import File, Outcome, Returned, contents_of, descriptor_position, outcome_of
from trio.testing import assert_checkpoints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from subjects import Subject

Call: TypeAlias = "Callable[[File], Awaitable[object]]"

SETTLING = {"flush", "truncate", "seek", "aclose", "detach"}
"""After these what was written has to be on the file."""


@attrs.frozen
class Opening:
    """How a file is opened, which succeeds, and what is in it before: None, it does not exist."""

    contents: bytes | None
    arguments: dict[str, Any]


@attrs.frozen
class Observation:
    """What a call did; the descriptor's position and the file's contents, if they are settled."""

    outcome: Outcome
    position: int | None = None
    contents: bytes | None = None


@attrs.frozen
class Step:
    """A call of a program, and on which of the files: `detach` adds one."""

    name: str
    arguments: tuple[object, ...]
    call: Call
    handle: int
    unbuffered: bool

    async def on(self, handles: list[File], path: Path, *, checkpoints: bool) -> Observation:
        file = handles[self.handle]
        outcome, value = await outcome_of(
            partial(self.call, file), checkpoints=checkpoints and self.name != "attributes"
        )
        if isinstance(outcome, Returned) and self.name == "detach":
            handles.append(value)
            outcome = Returned.of(None)
        return Observation(
            outcome,
            descriptor_position(file) if self.unbuffered else None,
            contents_of(path) if self.name in SETTLING and isinstance(outcome, Returned) else None,
        )

    def __str__(self) -> str:
        return f"files[{self.handle}].{self.name}({', '.join(map(shortened, self.arguments))})"


@attrs.define
class Program:
    path: Path
    opening: Opening
    steps: list[tuple[Step, Observation]] = attrs.field(factory=list)

    def prepare(self) -> None:
        """The file is as it was before the program."""
        self.path.unlink(missing_ok=True)
        if self.opening.contents is not None:
            self.path.write_bytes(self.opening.contents)

    def check(self, subject: Subject) -> None:
        """Raises AssertionError if the subject, on the same file, shows or leaves anything else."""
        contents = contents_of(self.path)
        self.prepare()
        subject.backend.run(partial(self._run, subject))
        assert contents_of(self.path) == contents, self._report(subject, "the contents at the end differ")

    async def _run(self, subject: Subject) -> None:
        with warnings.catch_warnings(), assert_checkpoints():
            warnings.simplefilter("ignore", RuntimeWarning)
            file = await subject.open_file(self.path, **self.opening.arguments)
        file.seekable()
        handles = [file]
        try:
            for count, (step, expected) in enumerate(self.steps, 1):
                seen = await step.on(handles, self.path, checkpoints=True)
                assert seen == expected, self._report(subject, difference(expected, seen), count)
        finally:
            await handles[-1].aclose()

    def _report(self, subject: Subject, finding: str, count: int | None = None) -> str:
        """The program that shows it, up to the step that did."""
        lines = [
            f"{subject.name}: {finding}",
            f"contents = {shortened(self.opening.contents)}",
            f"files = [await open_file(path, **{self.opening.arguments})]",
            *(f"await {step}" for step, _ in self.steps[:count]),
        ]
        return "\n".join(lines)


def difference(expected: object, seen: object) -> str:
    return f"\n  expected {shortened(expected, 2000)}\n  but got  {shortened(seen, 2000)}"


def shortened(value: object, length: int = 300) -> str:
    if isinstance(value, memoryview):
        return f"memoryview({shortened(bytes(value), length)})"
    text = repr(value)
    if len(text) <= length:
        return text
    return f"{text[: length // 2]} ... {text[-length // 2 :]} ({len(text)} characters)"
