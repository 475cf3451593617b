"""A `RingOptions.checkpoint_budget` ends in a tick of which it has taken a third: on a clock of ours."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from steps import Steps

import trio_uring
from trio_uring import RingOptions, open_file
from trio_uring.loop import run

if TYPE_CHECKING:
    from trio_uring.files.async_file import AsyncFile

BUDGET = 16
LARGE = 1 << 20


@attrs.define
class Clock:
    """It goes on when told to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(run, "_now", clock)
    return clock


@attrs.define(eq=False)
class Ticks(trio.abc.Instrument):
    """How long each was."""

    clock: Clock
    began: float = attrs.field(init=False)
    lengths: list[float] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.began = self.clock.now

    def after_io_wait(self, timeout: float) -> None:
        self.began = self.clock.now

    def before_io_wait(self, timeout: float) -> None:
        self.lengths.append(self.clock.now - self.began)


async def call(file: AsyncFile[Any], clock: Clock, microseconds: float, calls: int) -> list[int]:
    """So many calls in a row that take so long: how many there were in each step."""
    await trio.lowlevel.checkpoint()
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    for _ in range(calls):
        clock.now += microseconds / 1e6
        await file.seek(0)
        steps.calls[-1] += 1
    trio.lowlevel.remove_instrument(steps)
    return steps.calls


def run_one(clock: Clock, budget: int, microseconds: float, calls: int) -> list[int]:
    async def main() -> list[int]:
        async with await open_file("/dev/null", "rb", 0) as file:
            return await call(file, clock, microseconds, calls)

    return trio_uring.run(main, ring=RingOptions(checkpoint_budget=budget))


def test_one_task_whose_calls_are_short_has_all_of_its_budget(clock: Clock) -> None:
    assert run_one(clock, BUDGET, 0.5, 2 * BUDGET + 2) == [BUDGET, BUDGET + 1, 1]


@pytest.mark.parametrize("microseconds", [50, 1000])
def test_calls_that_take_long_end_a_budget(clock: Clock, microseconds: int) -> None:
    """The clock is looked at for each fourth call; that which yields is the next step's."""
    assert max(run_one(clock, LARGE, microseconds, 40)) == 5


@pytest.mark.parametrize("budget", [1, BUDGET, LARGE])
def test_a_budget_makes_no_tick_of_many_tasks_twice_as_long(clock: Clock, budget: int) -> None:
    microseconds, tasks = 10, 100

    async def main() -> float:
        ticks = Ticks(clock)
        async with AsyncExitStack() as stack:
            opened = [await open_file("/dev/null", "rb", 0) for _ in range(tasks)]
            files = [await stack.enter_async_context(file) for file in opened]
            trio.lowlevel.add_instrument(ticks)
            async with trio.open_nursery() as nursery:
                for file in files:
                    nursery.start_soon(call, file, clock, microseconds, 50)
            trio.lowlevel.remove_instrument(ticks)
        return max(ticks.lengths) * 1e6

    without = trio_uring.run(main)
    assert without == pytest.approx(tasks * microseconds)
    assert without < trio_uring.run(main, ring=RingOptions(checkpoint_budget=budget)) < 2 * without
