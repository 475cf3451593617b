"""A Hypothesis state machine: random calls on a file of the standard library and on a subject.

Each rule makes its call at once on the standard library's file, notes what could be observed,
and is added to a program. At the end the subject runs the program, in one Trio run, on a file
of the same name with the same contents at first; every call of it has to be a checkpoint and to
show what the standard library's showed. The file's contents are compared when they have to be
on the file: after a flush, a truncation, a seek, and a close.

What is not asked, because the standard library leaves it open:

- how much `peek` returns;
- what a text file does with a position that is not 0, nor the end, nor an answer of `tell`
  that the same contents gave;
- which newlines a text file has translated so far, after its position was asked for or moved,
  which decodes again;
- the position of a text file that was iterated and then flushed, until it is moved: what is
  right is an error before the flush, and what CPython answers after it is wrong;
- whether an unbuffered file can seek, before that was asked: CPython would deny it for ever
  if the first seek went before the start;
- positions in iso2022_jp, of which CPython raises OverflowError wherever it is in a state;
- whether a text file begins with a mark when what was written first could not be encoded;
- the descriptor's position under a buffer (of an unbuffered file it is compared);
- what becomes of O_DIRECT with memory that is not aligned.
"""

from __future__ import annotations

import io
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import warnings
from array import array
from contextlib import suppress
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arguments import Border, far, lengths, near, openings, sizes, wrong
from calls import Ahead, File, Returned, Synchronous, attributes_of, finish
from contents import chunks, texts
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from program import SETTLING, Program, Step
from random_programs import programs_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from program import Call, Opening
    from subjects import Subject

MARKED = {"utf-8-sig", "utf-16", "utf-32"}
READING = {"iterate", "peek", "read", "read1", "readall", "readinto", "readinto1", "readline", "readlines"}
FORGETS_WRITES = sys.version_info < (3, 13)
"""Before 3.13 a file open for both could read ahead of what was written and not yet flushed, and
then write that in the wrong place. So there the machine seeks between writing and reading."""
CHANGING = {"direct", "elsewhere", "write", "writelines", "truncate"}

UNALIGNED = (READING | CHANGING) - {"direct", "elsewhere", "truncate"}
"""Calls that read to and write from memory of chance."""


def check(subject: Subject, *, shrinks: bool = True) -> None:
    """Raises AssertionError, with the program in the message, if the subject shows anything else."""
    run_state_machine_as_test(
        lambda: Files(subject),  # type: ignore[arg-type]
        settings=programs_of(
            subject.examples,
            stateful_step_count=40,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink] if shrinks else [Phase.generate],
        ),
    )


async def use_descriptor(who: str, what: str, file: File) -> object:
    """What a thread or a child does with the file's descriptor, which it shares."""
    fd = file.fileno()
    if who == "child":
        command = {"write": ["printf", "by a child"], "read": ["cat"], "seek": ["true"]}[what]
        stream = {"write": "stdout", "read": "stdin", "seek": "stdin"}[what]
        done = subprocess.run(
            command, **{"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, stream: fd}, check=False
        )
        return done.returncode, done.stdout
    seen: list[object] = []

    def work() -> None:
        try:
            if what == "write":
                seen.append(os.write(fd, b"by a thread"))
            else:
                seen.append(os.read(fd, 5) if what == "read" else os.lseek(fd, 3, os.SEEK_SET))
        except OSError as error:
            seen.append(error.args)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return seen


class Files(RuleBasedStateMachine):
    """The machine."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject = subject
        self.directory = tempfile.TemporaryDirectory()
        self.handles: list[File] = []
        self.cookies: list[int] = []
        self.kind = ""

    @initialize(
        opening=openings(), tells=st.booleans(), looks=st.booleans(), cancels=st.none() | st.integers(0, 9)
    )
    def open(self, opening: Opening, tells: bool, looks: bool, cancels: int | None) -> None:
        """``tells``: the position is asked for after each call; ``looks``: the descriptor's, if the
        file has no buffer; ``cancels``: some of the subject's calls are cancelled."""
        self.tells, self.looks = tells, looks
        self.program = Program(Path(self.directory.name) / "file", opening, cancels=cancels)
        self.program.prepare()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # Line buffering of binary files.
            file = open(**opening.on(self.program.path))  # noqa: SIM115
        self.handles.append(Synchronous(file, iterates_by_readline=self.subject.iterates_by_readline))
        file.seekable()
        self.set_kind()

    def is_text(self) -> bool:
        return self.kind == "text"

    def is_binary(self) -> bool:
        return self.kind in ("buffered", "unbuffered")

    def is_buffered(self) -> bool:
        return self.kind == "buffered"

    def is_direct(self) -> bool:
        return self.program.opening.way == "direct" and self.kind == "unbuffered"

    def is_detached(self) -> bool:
        return len(self.handles) > 1

    def has_cookies(self) -> bool:
        return self.is_text() and bool(self.cookies)

    # Reading; and once in a while from the start, so that there is something to read.

    @rule(
        method=st.sampled_from(["read", "read", "readline", "readline", "readlines"]),
        size=sizes,
        rewinds=st.sampled_from([False] * 6 + [True]),
    )
    def read(self, method: str, size: int | Border | None, rewinds: bool) -> None:
        if rewinds:
            self.do("seek", 0)
        self.do(method, -1 if size is None and method == "readline" else size)

    @rule(count=st.sampled_from([1, 1, 2, 3, 20, 300]))
    def iterate(self, count: int) -> None:
        async def lines(file: File) -> list[object]:
            found: list[object] = []
            async for line in file:
                found.append(line)
                if len(found) == count:
                    break
            return found

        self.do("iterate", count, call=lines)

    @precondition(is_binary)
    @rule(size=sizes, method=st.sampled_from(["read1", "read1", "readall"]))
    def read_once_or_all(self, size: int | None, method: str) -> None:
        self.do(method, *(() if method == "readall" or size is None else (size,)))

    @precondition(is_binary)
    @rule(
        size=lengths,
        method=st.sampled_from(["readinto", "readinto1"]),
        form=st.sampled_from([bytearray, bytearray, memoryview, array, bytes]),
    )
    def readinto(self, size: int | Border, method: str, form: Callable[..., Any]) -> None:
        length = self.length(size)

        async def read(file: File) -> object:
            target = array("H", bytes(length * 2)) if form is array else form(bytearray(length))
            return await getattr(file, method)(target), bytes(target)

        self.do(method, length, form.__name__, call=read)

    @precondition(is_buffered)
    @rule(size=sizes)
    def peek(self, size: int | Border | None) -> None:
        if isinstance(size, Border):
            size = self.length(size)

        async def look(file: File) -> object:
            return Ahead(await file.peek(*(() if size is None else (size,))))

        self.do("peek", size, call=look)

    # Writing

    @precondition(is_text)
    @rule(text=texts)
    def write_text(self, text: str) -> None:
        self.do("write", self.encodable(text))

    @precondition(is_binary)
    @rule(data=chunks, form=st.sampled_from([bytes, bytearray, memoryview]))
    def write_bytes(self, data: bytes, form: Callable[[bytes], object]) -> None:
        self.do("write", form(data))

    @rule(parts=st.lists(st.one_of(texts, chunks), max_size=4), form=st.sampled_from([list, tuple, iter]))
    def writelines(self, parts: list[str | bytes], form: Callable[[object], object]) -> None:
        kind = str if self.is_text() else bytes
        lines = [self.encodable(part) for part in parts if isinstance(part, kind)]

        async def write(file: File) -> object:
            return await file.writelines(form(lines))

        self.do("writelines", lines, call=write)

    @rule(size=st.one_of(st.none(), far, far, near))
    def truncate(self, size: int | Border | None) -> None:
        self.do("truncate", size)

    # Positions

    @rule()
    def tell(self) -> None:
        if not self.is_misled():
            self.do("tell")

    @precondition(is_binary)
    @rule(
        offset=lengths,
        back=st.sampled_from([False, False, True]),
        whence=st.sampled_from([1, 1, 1, 1, 1, 1, 0, 0, 2, 2, os.SEEK_DATA, os.SEEK_HOLE, 9]),
    )
    def seek(self, offset: int | Border, back: bool, whence: int) -> None:
        self.do("seek", -self.length(offset) if back else self.length(offset), whence)

    @precondition(is_text)
    @rule(
        where=st.sampled_from(
            [(0,), (0,), (0,), (0, 0), (0, 1), (0, 2), (1, 1), (-1, 2), (-1,), (0, 9), ("0",)]
        )
    )
    def seek_text(self, where: tuple[object, ...]) -> None:
        if where != (0, 1) or not self.is_misled():
            self.do("seek", *where)

    @precondition(has_cookies)
    @rule(index=st.integers(0, 20))
    def seek_back(self, index: int) -> None:
        self.do("seek", self.cookies[index % len(self.cookies)])

    # The rest

    @rule()
    def attributes(self) -> None:
        opening = self.program.opening
        untold = all(step.name not in ("tell", "seek") for step, _ in self.program.steps)

        async def ask(file: File) -> object:
            answers = attributes_of(file)
            if opening.way == "descriptor":
                answers["name"] = Returned.of(None)  # a number that is left to chance
            return answers if untold else answers | {"newlines": None}

        self.do("attributes", call=ask)

    @rule(
        method=st.sampled_from(
            ["read", "readline", "readlines", "readinto", "peek", "write", "writelines", "truncate"]
        ),
        argument=wrong,
    )
    def misuse(self, method: str, argument: object) -> None:
        if method == "peek":
            argument = 1.5
        self.do(method, argument)

    @rule(method=st.sampled_from([*["flush"] * 30, "detach", "aclose"]))
    def flush_or_leave(self, method: str) -> None:
        self.do(method)

    # Others who have the descriptor

    @rule(
        who=st.sampled_from([*["thread"] * 9, "child"]),
        what=st.sampled_from(["write", "write", "read", "seek"]),
        rarely=st.integers(0, 3),
    )
    def elsewhere(self, who: str, what: str, rarely: int) -> None:
        if rarely:
            return
        buffered = self.kind != "unbuffered"
        if buffered:  # of which the descriptor's position is left open, unless it has just moved
            before = len(self.program.steps)
            self.do("seek", 0, 2)
            sought = self.program.steps[before:]  # not all are followed by a tell
            if not sought or not isinstance(sought[0][1].outcome, Returned):
                return
        self.do("elsewhere", who, what, call=partial(use_descriptor, who, what))
        if buffered:
            self.do("seek", 0)

    @precondition(is_direct)
    @rule(pages=st.integers(1, 3), writes=st.booleans())
    def past_the_page_cache(self, pages: int, writes: bool) -> None:
        async def transfer(file: File) -> object:
            with mmap.mmap(-1, pages * mmap.PAGESIZE) as memory:
                memory[:] = b"d" * len(memory)
                count = await (file.write(memory) if writes else file.readinto(memory))
                return count, memory[:]

        self.do("direct", pages, writes, call=transfer)

    @precondition(is_detached)
    @rule(
        call=st.sampled_from(
            [
                *(("read", 1), ("readline",), ("write", "a"), ("tell",), ("seek", 0), ("truncate", 0)),
                *(("flush",), ("detach",), ("aclose",)),
            ]
        )
    )
    def use_after_detach(self, call: tuple[str, object]) -> None:
        self.do(*call, handle=-2)

    # What the rules stand on

    def set_kind(self) -> None:
        file = self.handles[-1]._file
        if isinstance(file, io.TextIOBase):
            self.kind = "text"
        else:
            self.kind = "unbuffered" if isinstance(file, io.RawIOBase) else "buffered"

    def is_misled(self) -> bool:
        """Whether the standard library would not say where the file is."""
        if self.is_text() and self.program.opening.arguments["encoding"] == "iso2022_jp":
            return True
        since: list[str] = []
        for step, observation in self.program.steps:
            if step.name == "seek" and isinstance(observation.outcome, Returned):
                since.clear()
            since.append(step.name)
        walks = [index for index, name in enumerate(since) if name in ("iterate", "readlines")]
        return self.is_text() and bool(walks) and not SETTLING.isdisjoint(since[walks[0] :])

    def has_written(self) -> bool:
        """Whether the last that was done was writing, without a seek that succeeded since then."""
        written = False
        for step, observation in self.program.steps:
            if step.name in CHANGING:
                written = True
            elif step.name == "seek" and isinstance(observation.outcome, Returned):
                written = False
        return written

    def encodable(self, part: str | bytes) -> str | bytes:
        if isinstance(part, str) and self.program.opening.arguments.get("encoding") in MARKED:
            return part.replace("\udc80", "x")
        return part

    def length(self, length: int | Border) -> int:
        if isinstance(length, int):
            return length
        buffer, position = self.program.opening.arguments["buffering"], 0
        if buffer < 2:
            buffer = io.DEFAULT_BUFFER_SIZE
        with suppress(OSError, ValueError):  # It is closed, or detached.
            if not self.is_text():
                position = self.handles[-1].position()
        return max(0, int(-position % buffer) + length.behind)

    def do(self, name: str, *arguments: object, call: Call | None = None, handle: int = -1) -> None:
        if self.is_direct() and name in UNALIGNED:
            return
        if FORGETS_WRITES and handle == -1 and name in READING and self.has_written():
            self.do("seek", 0)
        arguments = tuple(self.length(value) if isinstance(value, Border) else value for value in arguments)
        step = Step(
            name,
            arguments,
            call or methodcaller(name, *arguments),
            len(self.handles) + handle,
            self.kind == "unbuffered" and handle == -1 and self.looks,
        )
        observation = finish(step.on(self.handles, self.program.path, checkpoints=False))
        self.program.steps.append((step, observation))
        if name in CHANGING:
            self.cookies.clear()
        if name == "detach":
            self.set_kind()
        outcome = observation.outcome
        if name == "tell":
            if isinstance(outcome, Returned) and isinstance(outcome.value, int):
                self.cookies.append(outcome.value)
        elif self.tells:
            self.tell()

    def teardown(self) -> None:
        with self.directory:
            if not self.handles:
                return
            for handle in range(-1, -1 - len(self.handles), -1):
                self.do("aclose", handle=handle)
            self.program.check(self.subject)
