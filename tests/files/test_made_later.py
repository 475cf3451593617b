"""A binary file makes the standard library's buffered file only when it is needed: nobody can tell."""

from __future__ import annotations

import gc
import io
import json
import os
import resource
import warnings
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from equivalence import URING, python
from open_files import on_both

from trio_uring import open_file
from trio_uring.files.made_later import BufferedLater

if TYPE_CHECKING:
    from pathlib import Path

    from equivalence import Backend

MODES = ["rb", "r+b", "wb", "w+b", "ab", "a+b"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\n")
    return path


@on_both
@pytest.mark.parametrize("mode", MODES)
def test_wrapped_is_the_file_that_open_makes(backend: Backend, path: Path, mode: str) -> None:
    async def main() -> None:
        async with await open_file(path, mode) as file:
            wrapped = file.wrapped
            with open(path, mode) as theirs:
                assert type(wrapped) is type(theirs)
                assert repr(wrapped) == repr(theirs)
                assert (wrapped.name, wrapped.mode) == (theirs.name, theirs.mode)
                assert (file.name, file.mode) == (theirs.name, theirs.mode)
            assert wrapped is file.wrapped
            assert wrapped.raw is file.raw
            wrapped.close()
            assert file.closed
            with pytest.raises(ValueError, match="closed file"):
                await file.tell()

    backend.run(main)


CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("read", ()),
    ("read1", ()),
    ("readinto", (bytearray(1),)),
    ("readline", ()),
    ("write", (b"",)),
    ("seek", (0,)),
    ("tell", ()),
    ("truncate", ()),
    ("flush", ()),
    ("peek", ()),
    ("fileno", ()),
    ("isatty", ()),
    ("readable", ()),
    ("writable", ()),
    ("seekable", ()),
    ("detach", ()),
]


def outcome_of(call: Any) -> tuple[type, str]:
    try:
        answer = call()
    except Exception as error:
        return type(error), str(error)
    return type(answer), str(answer)


@pytest.mark.parametrize("mode", MODES)
def test_a_closed_file_says_what_the_standard_librarys_says(path: Path, mode: str) -> None:
    async def main() -> None:
        for name, arguments in CALLS:
            theirs: Any = open(path, mode)  # noqa: SIM115
            theirs.close()
            file: Any = await open_file(path, mode)
            await file.aclose()
            wrapped = file._wrapped
            expected = outcome_of(lambda: getattr(theirs, name)(*arguments))  # noqa: B023
            assert outcome_of(lambda: getattr(wrapped, name)(*arguments)) == expected, name  # noqa: B023
            assert wrapped.closed
            assert wrapped.made().closed
            assert wrapped.made().name == theirs.name
            assert wrapped.made().raw is wrapped.raw
            for made, other in ((wrapped.raw, theirs.raw), (wrapped, theirs)):
                for asked in ("readable", "writable", "seekable"):
                    assert outcome_of(getattr(made, asked)) == outcome_of(getattr(other, asked))

    URING.run(main)


def test_a_closed_file_needs_no_descriptor_to_say_so(path: Path) -> None:
    async def main() -> None:
        file = await open_file(path, "rb")
        await file.aclose()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            with pytest.raises(ValueError, match="read of closed file"):
                await file.read()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    URING.run(main)


@pytest.mark.parametrize("mode", MODES)
def test_the_warning_of_a_file_that_was_not_closed_is_the_standard_librarys(path: Path, mode: str) -> None:
    def warning_of(opened: list[Any]) -> str:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            opened.clear()
            gc.collect()
        (warning,) = (each for each in caught if each.category is ResourceWarning)
        return str(warning.message)

    async def main() -> None:
        assert warning_of([await open_file(path, mode)]) == warning_of([open(path, mode)])  # noqa: SIM115

    URING.run(main)


@on_both
def test_a_detached_file_is_no_file_any_more(backend: Backend, path: Path) -> None:
    async def main() -> None:
        file = await open_file(path, "rb")
        assert await file.read(4) == b"one\n"
        raw = await file.detach()
        with pytest.raises(ValueError, match="detached"):
            _ = file.closed
        assert isinstance(raw.wrapped, io.FileIO)
        await raw.aclose()

    backend.run(main)


@on_both
@pytest.mark.parametrize("mode", [*MODES, "r", "w+"])
def test_a_detached_file_still_has_what_it_has_wrapped(backend: Backend, path: Path, mode: str) -> None:
    """As Trio's has. That object has no descriptor any more, so nobody can move a position by it."""

    async def main() -> None:
        file = await open_file(path, mode)
        below = await file.detach()
        was_ours = below._position.is_ours
        with open(path, mode) as theirs:
            assert type(file.wrapped) is type(theirs)
        assert file.wrapped is file.wrapped
        assert below._position.is_ours == was_ours
        with pytest.raises(ValueError, match="detached"):
            file.wrapped.fileno()
        await below.aclose()

    backend.run(main)


AUDITED = """
import json, os, sys
import trio_uring
seen = []
def hook(event, arguments):
    if event == "open" and arguments[0] == sys.argv[1]:
        seen.append(arguments[1:])
sys.addaudithook(hook)
async def main():
    for mode in ("rb", "r+b", "wb"):
        await (await trio_uring.open_file(sys.argv[1], mode)).aclose()
    ours, seen[:] = seen[:], ()
    for mode in ("rb", "r+b", "wb"):
        open(sys.argv[1], mode).close()
    print(json.dumps([ours, seen]))
trio_uring.run(main)
"""


def test_an_audit_hook_is_told_of_the_name(path: Path) -> None:
    ours, theirs = json.loads(python(AUDITED, os.fspath(path)))
    assert ours == theirs


@on_both
@pytest.mark.parametrize("buffering", [-1, 100, 1 << 17])
def test_buffer_and_wrapped_are_as_large_as_open_makes_them(
    backend: Backend, path: Path, buffering: int
) -> None:
    path.write_bytes(bytes(1 << 18))

    async def main() -> None:
        async with await open_file(path, "rb", buffering) as file:
            with open(path, "rb", buffering) as theirs:
                size = len(theirs.peek())
                assert len(await file.peek()) == size
            file.wrapped.seek(0)
            assert len(file.wrapped.peek()) == size

    backend.run(main)


@pytest.mark.parametrize("is_closed", [True, False])
def test_threads_that_need_it_at_the_same_time_get_the_same_one(path: Path, is_closed: bool) -> None:
    """A second one would close the descriptor when it is collected."""
    got: list[object] = []

    class Raw(io.FileIO):
        """Has another thread ask while one is being made."""

        def tell(self) -> int:
            if not threads:
                threads.append(Thread(target=lambda: got.append(later.made())))
                threads[0].start()
                threads[0].join(0.1)  # it waits for us
            return super().tell()

    threads: list[Thread] = []
    raw = Raw(path)
    later = BufferedLater(raw, 10)
    if is_closed:
        raw.close()
    got.append(later.made())
    threads[0].join()
    assert got[0] is got[1]
    got.clear()
    gc.collect()
    assert raw.closed == is_closed
