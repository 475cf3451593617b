"""A program: a file, calls on it, and what the standard library's file showed of each."""

from __future__ import annotations

import os
import random
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import trio
from calls import File, Outcome, Returned, contents_of, descriptor_position, outcome_of
from trio.testing import assert_checkpoints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from subjects import Subject

Call: TypeAlias = "Callable[[File], Awaitable[object]]"

SETTLING = {"flush", "truncate", "seek", "aclose", "detach"}
"""After these what was written has to be on the file."""


def _direct(name: str, flags: int) -> int:
    try:
        return os.open(name, flags | os.O_DIRECT, 0o666)
    except OSError:  # tmpfs, before Linux 6.6
        return os.open(name, flags, 0o666)


def _appending(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_APPEND, 0o666)


def _descriptor(path: Path, mode: str) -> int:
    """Which the file object closes."""
    with open(path, mode.replace("b", "") + "b", 0) as file:
        return os.dup(file.fileno())


WAYS: dict[str, Callable[[Path, str], dict[str, Any]]] = {
    "name": lambda path, _: {"file": path},
    "opener": lambda path, _: {"file": path, "opener": lambda name, flags: os.open(name, flags, 0o666)},
    "appending": lambda path, _: {"file": path, "opener": _appending},
    "direct": lambda path, _: {"file": path, "opener": _direct},
    "descriptor": lambda path, mode: {"file": _descriptor(path, mode)},
}
"""What `open` is given besides, for each way to open a file."""

CANCELLED = {
    "read",
    "read1",
    "readall",
    "readline",
    "readlines",
    "tell",
    "flush",
    "truncate",
    "seek",
    "write",
}
"""Calls that the subject is cancelled in, if it is to be: they have happened then or not."""


@attrs.frozen
class Opening:
    """How a file is opened, which succeeds, and what is in it before: None, it does not exist."""

    contents: bytes | None
    arguments: dict[str, Any]
    way: str = "name"
    """By its ``name``, or by one of WAYS."""
    hole: int = 0
    """Bytes that the file has besides, of which there is nothing on the disk."""

    def on(self, path: Path) -> dict[str, Any]:
        """The arguments of `open`."""
        return {**self.arguments, **WAYS[self.way](path, self.arguments["mode"])}


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
    """And its descriptor may be asked for, which has the position shared from then on."""

    async def on(self, handles: list[File], path: Path, *, checkpoints: bool) -> Observation:
        file = handles[self.handle]
        outcome, value = await outcome_of(
            partial(self.call, file), checkpoints=checkpoints and self.name not in ("attributes", "elsewhere")
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
    cancels: int | None = None
    """What chooses the calls that are cancelled, and when; None: none is."""

    def prepare(self) -> None:
        """The file is as it was before the program."""
        self.path.unlink(missing_ok=True)
        if self.opening.contents is not None:
            self.path.write_bytes(self.opening.contents)
            if self.opening.hole:
                os.truncate(self.path, len(self.opening.contents) + self.opening.hole)

    def check(self, subject: Subject) -> None:
        """Raises AssertionError if the subject, on the same file, shows or leaves anything else."""
        contents = contents_of(self.path)
        self.prepare()
        subject.backend.run(partial(self._run, subject))
        assert contents_of(self.path) == contents, self._report(subject, "the contents at the end differ")

    async def _run(self, subject: Subject) -> None:
        with warnings.catch_warnings(), assert_checkpoints():
            warnings.simplefilter("ignore", RuntimeWarning)
            file = await subject.open_file(**self.opening.on(self.path))
        file.seekable()
        handles = [file]
        chance = random.Random(self.cancels)
        try:
            for count, (step, expected) in enumerate(self.steps, 1):
                seen = None
                if self.cancels is not None and step.name in CANCELLED and not chance.randrange(3):
                    seen = await self._cancelled_after(chance.randrange(5), step, handles)
                if seen is None:
                    seen = await step.on(handles, self.path, checkpoints=True)
                assert seen == expected, self._report(subject, difference(expected, seen), count)
        finally:
            await handles[-1].aclose()

    async def _cancelled_after(self, ticks: int, step: Step, handles: list[File]) -> Observation | None:
        """What the call did; None if it was cancelled, and so is to be made once more."""
        seen: Observation | None = None

        async def stop() -> None:
            for _ in range(ticks):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            seen = await step.on(handles, self.path, checkpoints=False)
            nursery.cancel_scope.cancel()
        return seen

    def _report(self, subject: Subject, finding: str, count: int | None = None) -> str:
        """The program that shows it, up to the step that did."""
        lines = [
            f"{subject.name}: {finding}",
            f"contents = {shortened(self.opening.contents)}",
            f"{self.opening.hole} bytes more, which are a hole; cancelled by {self.cancels}",
            f"files = [await open_file(path, **{self.opening.arguments})], by {self.opening.way}",
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
