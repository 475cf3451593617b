"""A soak that is short runs all of its workload, and ends; what is planted in it, each time something else,
makes it fail, and say what it is."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import needs_completions
from holdings import TELLS_BUFFERS, of_run
from judging import LEAST, MAY_NOT_GROW, grown, left, still_open
from parts import PARTS

import trio_uring

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
PATIENCE = 300
long = pytest.mark.skipif(
    "TRIO_URING_STRESS_SECONDS" not in os.environ,
    reason="they take a minute: with TRIO_URING_STRESS_SECONDS set, to anything",
)


def soak(folder: Path, *arguments: str) -> tuple[int, str]:
    """A few seconds of it: its status, and what it has said."""
    command = [sys.executable, str(HERE), "0.01", f"--folder={folder}", "--growth=30", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_all_is_done_and_all_is_given_back(tmp_path: Path) -> None:
    status, said = soak(tmp_path)
    assert status == 0, said
    seen = json.loads((tmp_path / "samples.json").read_text())
    first, *_, last = seen["rests"]
    assert len(seen["rests"]) > LEAST
    assert "operations in flight" in first
    assert last["rounds"].keys() == {part.__name__ for part in PARTS}
    assert {"ping tls", "store unix", "flood tcp", "break off tls", "rubbish"} <= last["requests"].keys()
    assert seen["end"]["after"] == seen["end"]["before"]
    assert {"soak.svg", "soak.png"} <= {path.name for path in tmp_path.iterdir()}


@long
def test_what_leaks_is_noticed(tmp_path: Path) -> None:
    status, said = soak(tmp_path, "--growth=10", "--plant", "memory", "descriptor", "task")
    assert status == 1
    for complaint in ("memory grew by ", "descriptors: ", "tasks: ", "registered: "):
        assert f"FAILED: {complaint}" in said
    assert "after it: {" in said


def test_a_byte_that_is_another_one_is_noticed(tmp_path: Path) -> None:
    status, said = soak(tmp_path, "--plant=byte")
    assert status == 1
    assert "are not what was sent" in said


@long
def test_what_hangs_ends_it_and_its_stack_is_there(tmp_path: Path) -> None:
    status, said = soak(tmp_path, "--plant=hang", "--patience=10")
    assert status == 1
    assert re.search("longer than 10 s: .*planted", said)
    assert f"see {tmp_path}/server-stacks.txt" in said
    stacks = (tmp_path / "server-stacks.txt").read_text()
    assert "task planted" in stacks
    assert "sleep_forever" in stacks


@long
def test_a_loop_that_hangs_ends_it_and_its_stack_is_there(tmp_path: Path) -> None:
    status, said = soak(tmp_path, "--plant=block", "--patience=3")
    assert status == 1
    assert f"see {tmp_path}/server-stacks.txt" in said
    assert "in block" in (tmp_path / "server-stacks.txt").read_text()


@pytest.mark.skipif(not TELLS_BUFFERS, reason="this kernel does not tell which buffers it has")
@needs_completions
def test_a_buffer_is_in_use_until_the_tick_after_its_data() -> None:
    async def main() -> list[float]:
        left, right = (trio.SocketStream(end) for end in trio.socket.socketpair())
        found = []
        async with left, right, trio.open_nursery() as nursery:
            for _ in range(2):  # the first of each is made at once
                await right.send_all(b"data")
                await left.receive_some()
            nursery.start_soon(right.send_all, b"data")
            for step in (trio.lowlevel.checkpoint, left.receive_some, trio.lowlevel.checkpoint):
                await step()
                found.append(of_run()["buffers in use"])
        return found

    assert trio_uring.run(main) == [0, 1, 0]


# The judgement


def rests(value: Callable[[int], float], name: str = "memory") -> list[dict[str, Any]]:
    """Of which one thing is so, and all else stays as it was."""
    return [{**dict.fromkeys(MAY_NOT_GROW, 100), name: value(number)} for number in range(200)]


def noise(number: int) -> float:
    return random.Random(number).uniform(-3, 3)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda number: 100 + noise(number), id="noise"),
        pytest.param(lambda number: 50 + min(number, 40), id="warm-up"),
        pytest.param(lambda number: 100 if number % 50 else 10_000, id="a peak now and then"),
        pytest.param(lambda number: 100 - number / 10, id="less"),
    ],
)
def test_what_is_flat_has_not_grown(value: Callable[[int], float]) -> None:
    assert grown(rests(value), 0.05) == []


@pytest.mark.parametrize("name", MAY_NOT_GROW)
def test_what_grows_is_named(name: str) -> None:
    (complaint,) = grown(rests(lambda number: 100 + number / 5 + noise(number), name), 0.05)
    assert complaint.startswith(f"{name} grew by ")


def test_of_few_rests_nothing_is_said() -> None:
    assert grown(rests(lambda number: number)[: LEAST - 1], 0.05) == []


def test_what_is_more_at_rest_than_before_is_named() -> None:
    before = {"descriptors": 12, "tasks": 5, "read ahead": 0}
    assert left(before, {"descriptors": 12, "tasks": 4, "read ahead": 0}) == []
    assert left(before, {"descriptors": 13, "tasks": 5, "read ahead": 0}) == [
        "descriptors: 12 before the load, and 13 after it"
    ]


def test_a_descriptor_that_the_run_has_left_is_named() -> None:
    assert still_open({"before": 3, "after": 3, "left": {}}) == []
    (complaint,) = still_open({"before": 3, "after": 4, "left": {"7": "pipe:[1]"}})
    assert "pipe:[1]" in complaint
