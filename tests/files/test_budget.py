"""What `RingOptions.checkpoint_budget` makes of calls on files that need not wait."""

from __future__ import annotations

from operator import methodcaller
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing
from equivalence import Backend
from page_cache import read_at_once
from steps import Steps

from trio_uring import RingOptions, open_file

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

BLOCK = 4096  # no smaller than what a buffer holds, so that a read of it goes past the buffer
LINES = b"".join(b"%07d\n" % number for number in range(64 * BLOCK // 8))


@attrs.frozen
class Call:
    make: Callable[[Any], Awaitable[Any]]
    mode: str = "rb"
    buffering: int = -1


CALLS = {
    "read without a buffer": Call(lambda file: file.read(5), buffering=0),
    "readinto without a buffer": Call(lambda file: file.readinto(bytearray(5)), buffering=0),
    "seek without a buffer": Call(lambda file: file.seek(5), buffering=0),
    "tell without a buffer": Call(lambda file: file.tell(), buffering=0),
    "read past the buffer": Call(lambda file: file.read(BLOCK), buffering=BLOCK),
    "read from the buffer": Call(lambda file: file.read(5)),
    "read1": Call(lambda file: file.read1(5)),
    "readinto": Call(lambda file: file.readinto(bytearray(5))),
    "readline": Call(lambda file: file.readline()),
    "a line": Call(methodcaller("__anext__")),
    "seek": Call(lambda file: file.seek(5)),
    "tell": Call(lambda file: file.tell()),
    "write": Call(lambda file: file.write(b"12345"), "r+b"),
    "read of text": Call(lambda file: file.read(5), "r"),
    "readline of text": Call(lambda file: file.readline(), "r"),
    "a line of text": Call(methodcaller("__anext__"), "r"),
    "write of text": Call(lambda file: file.write("12345"), "r+"),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def budget(calls: int) -> Backend:
    return Backend(f"budget of {calls}", RingOptions(checkpoint_budget=calls))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(LINES)
    return path


@pytest.fixture
def cached(path: Path) -> Iterator[Path]:
    """A file of which reads are served at once."""
    with read_at_once(path):
        yield path


@pytest.mark.usefixtures("still_clock")
@pytest.mark.parametrize("calls", [0, 1, 3, 16])
@every_call
def test_a_task_makes_so_many_calls_at_once_and_no_more(cached: Path, call: Call, calls: int) -> None:
    """And one more: that which has yielded is finished by the step that it yields to."""

    async def main() -> list[int]:
        async with await open_file(cached, call.mode, call.buffering) as file:
            await trio.lowlevel.checkpoint()
            steps = Steps()
            trio.lowlevel.add_instrument(steps)
            for _ in range(3 * (calls + 1)):
                await call.make(file)
                steps.calls[-1] += 1
            trio.lowlevel.remove_instrument(steps)
            return steps.calls

    assert budget(calls).run(main) == [calls, calls + 1, calls + 1, 1]


@pytest.mark.usefixtures("still_clock")
def test_calls_on_all_files_of_a_task_spend_one_budget(cached: Path) -> None:
    async def main() -> list[int]:
        async with await open_file(cached, "rb", 0) as one, await open_file(cached) as other:
            await trio.lowlevel.checkpoint()
            steps = Steps()
            trio.lowlevel.add_instrument(steps)
            for number in range(5):
                await (other.readline() if number % 2 else one.read(5))
                steps.calls[-1] += 1
            trio.lowlevel.remove_instrument(steps)
            return steps.calls

    assert budget(4).run(main) == [4, 1]


@every_call
def test_a_budget_does_not_outlive_a_cancellation(cached: Path, call: Call) -> None:
    async def main() -> None:
        made = 0
        async with await open_file(cached, call.mode, call.buffering) as file:
            await trio.lowlevel.checkpoint()
            with trio.CancelScope() as scope:
                for _ in range(10):
                    await call.make(file)
                    made += 1
                    if made == 5:
                        scope.cancel()
            assert scope.cancelled_caught
        assert made == 5

    budget(16).run(main)


def test_what_a_cancelled_call_would_have_read_is_read_by_the_next(cached: Path) -> None:
    async def main() -> None:
        async with await open_file(cached, "rb", 0) as file:
            assert await file.read(8) == LINES[:8]
            with trio.CancelScope() as scope:
                scope.cancel()
                await file.read(8)
            assert await file.tell() == 8
            assert await file.read() == LINES[8:]

    budget(16).run(main)


@pytest.mark.parametrize("buffering", [0, -1])
def test_a_read_that_is_not_made_at_once_yields_whatever_the_budget(buffering: int) -> None:
    async def main() -> list[int]:
        async with await open_file("/dev/zero", "rb", buffering) as file:
            steps = Steps()
            trio.lowlevel.add_instrument(steps)
            for _ in range(4):
                assert await file.read(1 << 16) == bytes(1 << 16)
                steps.calls[-1] += 1
            trio.lowlevel.remove_instrument(steps)
            return steps.calls

    assert max(budget(16).run(main)) == 1


def test_the_end_yields_whatever_the_budget(path: Path) -> None:
    async def main() -> None:
        async with await open_file(path, "rb", 0) as file:
            await file.seek(0, 2)
            for _ in range(3):
                with trio.testing.assert_checkpoints():
                    assert await file.read(5) == b""

    budget(16).run(main)
