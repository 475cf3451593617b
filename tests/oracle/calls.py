"""Programs of calls on a file object, and what can be observed of each call.

A call is an async function of the file, written once. On the standard library's file it
runs through `Synchronous`, which gives that file the asynchronous names and never waits:
`finish` then runs the call to its end without an event loop.
"""

from __future__ import annotations

import os
import stat
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import attrs
from trio.testing import assert_checkpoints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

T = TypeVar("T")
File: TypeAlias = Any
"""An asynchronous file object: of Trio, of trio-uring, or `Synchronous`."""
OpenFile: TypeAlias = "Callable[..., Awaitable[File]]"

ASYNCHRONOUS = frozenset(
    [
        "flush",
        "peek",
        "read",
        "read1",
        "readall",
        "readinto",
        "readinto1",
        "readline",
        "readlines",
        "seek",
        "tell",
        "truncate",
        "write",
        "writelines",
    ]
)
ATTRIBUTES = ["closed", "closefd", "encoding", "errors", "line_buffering", "mode", "name", "newlines"]
ANSWERS = ["isatty", "readable", "seekable", "writable"]


class Synchronous:
    """A file of the standard library with the names of `trio.open_file`'s.

    Trio iterates by ``readline``, and so does this if it is told to. ``next`` is the same
    but for one thing: a text file refuses ``tell`` until the iteration is over.
    """

    def __init__(self, file: Any, *, iterates_by_readline: bool = False) -> None:
        self._file = file
        self._iterates_by_readline = iterates_by_readline

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._file, name)
        if name not in ASYNCHRONOUS:
            return value

        async def call(*args: object) -> object:
            return value(*args)

        return call

    def __aiter__(self) -> Synchronous:
        return self

    async def __anext__(self) -> object:
        line = self._file.readline() if self._iterates_by_readline else next(self._file, None)
        if not line:
            raise StopAsyncIteration
        return line

    def position(self) -> int:
        """Of a binary file, which does not change by being asked."""
        position: int = self._file.tell()
        return position

    async def aclose(self) -> None:
        self._file.close()

    async def detach(self) -> Synchronous:
        return Synchronous(self._file.detach(), iterates_by_readline=self._iterates_by_readline)


def finish(call: Coroutine[Any, Any, T]) -> T:
    """Runs a call that does not wait."""
    try:
        call.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the standard library's file waited")


@attrs.frozen
class Raised:
    """An exception, as far as a program can tell two of them apart."""

    type: type[BaseException]
    details: tuple[object, ...] = ()

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        if isinstance(error, AttributeError):
            return cls(AttributeError)  # Trio's has the bare name as its message.
        if isinstance(error, OSError):
            return cls(type(error), (error.args, error.filename, error.filename2, str(error)))
        return cls(type(error), error.args)


@attrs.frozen
class Returned:
    type: type
    value: object

    @classmethod
    def of(cls, value: object) -> Returned:
        return cls(type(value), value)


@attrs.frozen(eq=False)
class Ahead:
    """Bytes that are next in the file: how many is left to the implementation, if any."""

    data: bytes

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ahead) or bool(self.data) != bool(other.data):
            return False
        return self.data.startswith(other.data) or other.data.startswith(self.data)

    __hash__ = None  # type: ignore[assignment]


Outcome: TypeAlias = "Raised | Returned"


async def outcome_of(call: Callable[[], Awaitable[object]], *, checkpoints: bool) -> tuple[Outcome, Any]:
    """How the call ended, and what it returned; with ``checkpoints`` it has to be one."""
    guard: AbstractContextManager[None] = assert_checkpoints() if checkpoints else nullcontext()
    try:
        with guard:
            value = await call()
    except Exception as error:
        return Raised.of(error), None
    return Returned.of(value), value


def contents_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def descriptor_position(file: File) -> int | None:
    try:
        return os.lseek(file.fileno(), 0, os.SEEK_CUR)
    except (OSError, ValueError):
        return None


def attributes_of(file: File) -> dict[str, Outcome]:
    """Every synchronous attribute; a descriptor's number is left to chance, what it is open on is not."""

    def ask(name: str) -> object:
        value = getattr(file, name)
        if name == "fileno":
            return stat.S_IFMT(os.fstat(value()).st_mode)
        return value() if name in ANSWERS else value

    answers: dict[str, Outcome] = {}
    for name in [*ATTRIBUTES, *ANSWERS, "fileno"]:
        try:
            answers[name] = Returned.of(ask(name))
        except Exception as error:
            answers[name] = Raised.of(error)
    return answers
