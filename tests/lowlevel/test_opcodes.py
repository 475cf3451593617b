"""The table of operations: it says what the kernel's header, the functions of `lowlevel`, their
docstrings and their submissions say."""

from __future__ import annotations

import errno
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from answers import give_answers
from steps import interrupted

import trio_uring
from trio_uring import lowlevel
from trio_uring.loop import operation
from trio_uring.loop.current import current_run
from trio_uring.lowlevel import names, open_at, operations, performing
from trio_uring.lowlevel.arguments import address_of
from trio_uring.ring import features, opcodes
from trio_uring.ring.native import ffi
from trio_uring.ring.opcodes import NOP, OPCODES, Opcode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

ROOT = Path(__file__).parents[2]

CALLS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "openat": lambda _: lowlevel.openat("file", os.O_RDONLY | os.O_NONBLOCK),
    "close": lambda _: lowlevel.close(os.open("file", os.O_RDONLY)),
    "read": lambda file: lowlevel.read(file, bytearray(5), 0),
    "write": lambda file: lowlevel.write(file, b"12345", 0),
    "readv": lambda file: lowlevel.readv(file, [bytearray(5), bytearray(5)], 0),
    "writev": lambda file: lowlevel.writev(file, [b"12345", b"67890"], 0),
    "fsync": lowlevel.fsync,
    "fdatasync": lowlevel.fdatasync,
    "fallocate": lambda file: lowlevel.fallocate(file, 0, 0, 100),
    "ftruncate": lambda file: lowlevel.ftruncate(file, 5),
    "statx": lambda _: lowlevel.statx("file"),
    "fstat": lowlevel.fstat,
    "unlinkat": lambda _: lowlevel.unlinkat("file"),
    "mkdirat": lambda _: lowlevel.mkdirat("new"),
    "renameat": lambda _: lowlevel.renameat("file", "new"),
    "linkat": lambda _: lowlevel.linkat("file", "new"),
    "symlinkat": lambda _: lowlevel.symlinkat("file", "new"),
    "splice": lambda file: lowlevel.splice(file, file, 5, source_offset=0),
}
"""Of each function, a call that submits."""
OTHER_NAMES = {"fdatasync": "fsync", "fstat": "statx"}
"""Functions that are not called as their operations are."""
PREPARED = {
    "poll_multishot": "poll_add",
    "recv_multishot": "recv",
    "multishot_accept": "accept",
    "cancel64": "async_cancel",
}
"""Functions of liburing that are not called as the operations that they prepare are."""


@attrs.frozen
class Submission:
    opcode: Opcode
    address: int
    offset: int
    held: object


class Submissions:
    """What `perform` hands to the kernel."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._made: list[tuple[int, int, int, int]] = []
        self._submit = operation._submit
        monkeypatch.setattr(operation, "_submit", self._record)

    def _record(
        self, core: Any, number: int, fd: int, address: Any, length: int, offset: int, *rest: int
    ) -> int:
        slot = self._submit(core, number, fd, address, length, offset, *rest)
        self._made.append((slot, number & 0xFF, int(ffi.cast("uintptr_t", address)), offset))
        return slot

    def take(self) -> list[Submission]:
        """Those that have been queued, before the kernel has seen them."""
        run = current_run()
        assert run is not None
        rows = {row.number: row for row in OPCODES}
        made, self._made = self._made, []
        return [
            Submission(rows[number], address, offset, run.operations[slot].held)
            for slot, number, address, offset in made
        ]


def submissions_of(name: str, monkeypatch: pytest.MonkeyPatch) -> list[Submission]:
    taken: list[Submission] = []
    submissions = Submissions(monkeypatch)

    async def main() -> None:
        with open("file", "r+b", buffering=0) as file:
            try:
                result = await interrupted(CALLS[name](file), lambda: taken.extend(submissions.take()))
            except OSError:  # of an operation that this kernel has not, or of a splice without a pipe
                return
            if taken and taken[0].opcode.makes_descriptor:
                assert isinstance(result, int)
                os.close(result)

    trio_uring.run(main)
    return taken


def row_of(name: str) -> Opcode | None:
    """The row of a function; None if that does not submit."""
    return {row.name: row for row in OPCODES}.get(OTHER_NAMES.get(name, name))


def memory_of(held: object) -> Iterator[range]:
    """The memory that something keeps where it is."""
    if isinstance(held, tuple | list):
        for part in held:
            yield from memory_of(part)
    elif isinstance(held, bytes | bytearray | memoryview):
        yield range(address_of(held), address_of(held) + len(held))
    elif isinstance(held, ffi.CData) and ffi.typeof(held).kind == "array":  # of ffi.from_buffer
        start = int(ffi.cast("uintptr_t", held))
        yield range(start, start + len(held))


@pytest.fixture(autouse=True)
def nothing_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither names nor contents of files: so that all is for the ring, or a thread."""
    monkeypatch.setattr(names, "_find", lambda *_: -errno.EAGAIN)
    monkeypatch.setattr(performing, "_read_measured_at_once", lambda *_: -errno.EAGAIN)


# The table itself


def test_every_row_is_called_by_its_name() -> None:
    assert len({row.number for row in OPCODES}) == len(OPCODES)
    assert [getattr(opcodes, row.name.upper()) for row in OPCODES] == list(OPCODES)


def test_every_number_is_that_of_the_kernels_header() -> None:
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if not shutil.which(compiler[0]):
        pytest.skip("there is no compiler here")
    done = subprocess.run(
        [*compiler, "-E", "-P", "-x", "c", "-"],
        input="#include <linux/io_uring.h>\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        pytest.skip("there is no <linux/io_uring.h> here")
    found = re.search(r"\{([^{}]*\bIORING_OP_NOP\b[^{}]*)\}", done.stdout)
    assert found is not None
    names = re.sub(r"=\s*0\b", "", found[1]).replace(" ", "").split()
    numbers = {name.rstrip(","): number for number, name in enumerate("".join(names).split(","))}
    for row in OPCODES:
        expected = numbers.get(f"IORING_OP_{row.name.upper()}")
        if expected is None:
            assert row.number >= numbers["IORING_OP_LAST"], f"{row.name} is newer than the header"
        else:
            assert row.number == expected, row.name


def test_every_row_is_used_or_says_that_it_is_not(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = {row.name for name in CALLS if (row := row_of(name)) is not None}
    for source in (ROOT / "native").glob("*.c"):
        text = source.read_text()
        used.update(PREPARED.get(name, name) for name in re.findall(r"\bio_uring_prep_(\w+)\(", text))
        used.update(name.lower() for name in re.findall(r"\bIORING_OP_(\w+)", text))
    assert used == {row.name for row in OPCODES if row.used}


# The functions


def test_every_function_has_a_call_here() -> None:
    assert set(CALLS) == set(lowlevel.__all__) == set(operations.__all__)


@pytest.mark.parametrize("name", CALLS)
def test_a_function_submits_its_operation_once(
    name: str, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = row_of(name)
    assert [made.opcode for made in submissions_of(name, monkeypatch)] == ([] if row is None else [row])


@pytest.mark.parametrize("name", [name for name in CALLS if row_of(name)])
def test_the_memory_that_a_submission_tells_of_is_held(
    name: str, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made,) = submissions_of(name, monkeypatch)
    memory = list(memory_of(made.held))
    fields = {"address": made.address, "offset": made.offset}
    told = tuple(field for field, value in fields.items() if any(value in part for part in memory))
    assert told == made.opcode.pins


@pytest.mark.parametrize("name", CALLS)
def test_a_docstring_says_since_when_there_is_its_operation_and_what_does_the_same(name: str) -> None:
    row = row_of(name)
    said = inspect.getdoc(getattr(lowlevel, name))
    assert said is not None
    first = said.partition("\n\n")[0]
    assert re.findall(r"Linux (\d+\.\d+)", first) == ([] if row is None else [row.since])
    if row is not None and row.call and not row.call_here:
        assert callable(getattr(os, row.call))
        assert first.startswith(f"`os.{row.call if name == row.name else name}`")


def test_docstrings_of_paths_say_the_same() -> None:
    compared = set()
    for method in vars(trio_uring.Path).values():
        if not inspect.isfunction(method):
            continue
        for name in re.findall(r'_kernel_has\("(\w+)"\)', inspect.getsource(method)):
            row = row_of(name)
            assert row is not None
            assert f"Linux {row.since}." in str(method.__doc__), method
            compared.add(name)
    assert compared == {"unlinkat", "renameat", "mkdirat", "symlinkat", "linkat"}


# What is made of the rows


async def nop(*, by_worker: bool = True) -> int:
    run = current_run()
    assert run is not None
    return await operation.perform(run, attrs.evolve(NOP, by_worker=by_worker), -1)


@pytest.mark.parametrize("by_worker", [True, False])
@pytest.mark.parametrize("first", [-errno.EINTR, -errno.ECANCELED], ids=["interrupted", "no worker"])
def test_what_was_interrupted_or_had_no_worker_is_made_again_if_it_is_for_workers(
    first: int, by_worker: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_answers(monkeypatch, operation, [first, 7])
    result = trio_uring.run(partial(nop, by_worker=by_worker))
    assert result == (7 if by_worker else first)


@pytest.mark.parametrize(("failures", "result"), [(9, 7), (10, -errno.ECANCELED)])
def test_what_never_has_a_worker_fails_at_the_tenth_time_and_says_why(
    failures: int, result: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_answers(monkeypatch, operation, [-errno.ECANCELED] * failures + [7])
    assert trio_uring.run(nop) == result
    assert "could start no worker" in str(operation.failure(-errno.ECANCELED))


FILENAMES = {
    "openat": ("file", None),
    "statx": ("file", None),
    "unlinkat": ("file", None),
    "mkdirat": ("new", None),
    "renameat": ("file", "new"),
    "linkat": ("file", "new"),
    "symlinkat": ("file", "new"),
}
"""Of each function of paths, those of the exception that its call raises."""


@pytest.mark.parametrize("name", [name for name in CALLS if row_of(name)])
def test_what_the_kernel_has_not_says_since_when_there_is_one(
    name: str, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that no kernel has yet stands for an operation that this one lacks."""
    row = row_of(name)
    assert row is not None
    lacking = attrs.evolve(row, number=255)
    for module in (operations, open_at, performing):
        for attribute in [attribute for attribute, value in vars(module).items() if value is row]:
            monkeypatch.setattr(module, attribute, lacking)
    monkeypatch.setitem(features._NUMBERS, row.name, 255)

    async def main() -> OSError:
        with open("file", "r+b", buffering=0) as file, pytest.raises(OSError, match="needs") as raised:
            await CALLS[name](file)
        return raised.value

    error = trio_uring.run(main)
    assert error.errno == errno.EINVAL
    assert error.strerror == f"{os.strerror(errno.EINVAL)} ({row.name} needs Linux {row.since})"
    assert (error.filename, error.filename2) == FILENAMES.get(name, (None, None))


@pytest.mark.parametrize("name", ["read", "write", "readv", "writev"])
def test_a_thread_calls_what_the_row_says(
    name: str, tree: Path, monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    row = row_of(name)
    assert row is not None
    called: list[str] = []

    def note(function: Callable[..., object], *arguments: object) -> object:
        called.append(function.__name__)
        return function(*arguments)

    for function in (row.call, row.call_here):
        monkeypatch.setattr(os, function, partial(note, getattr(os, function)))
    monkeypatch.setattr(performing, "is_measured", lambda *_: False)
    buffer = bytearray(b"?" * 5)

    async def main() -> None:
        with open("file", "r+b", buffering=0) as file:
            assert await CALLS[name](file) in (5, 10)
            assert await getattr(lowlevel, name)(file, [buffer] if name.endswith("v") else buffer) == 5

    trio_uring.run(main)
    assert called == [row.call, row.call_here]
    contents = {"write": b"?????56789", "writev": b"?????67890"}.get(name, b"0123456789")
    assert Path("file").read_bytes() == contents
    assert buffer == contents[:5]
