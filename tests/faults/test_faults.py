"""Whatever a kernel answers, no byte is lost, every run ends and leaves nothing, and an error is
one of the task that it belongs to: a mixed workload with checked contents, while a library before
liburing changes submissions and refuses calls."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from child_process import output_of, preloaded
from children import SEED, complaint, run_child
from equivalence import has_completions
from injector import Injector
from rules import RULES

if TYPE_CHECKING:
    from collections.abc import Sequence

RUNS = 6


@pytest.mark.parametrize("name", RULES)
def test_no_byte_is_lost_and_every_run_ends(library: Path, name: str) -> None:
    if RULES[name].needs_completions and not has_completions():
        pytest.skip("it is about completions, which sockets do not have here")
    print(f"TRIO_URING_FAULTS_SEED={SEED}")
    seed = random.Random(f"{SEED} {name}").randrange(1 << 32)
    if wrong := complaint(run_child(library, name, seed=seed, runs=RUNS)):
        pytest.fail(wrong, pytrace=False)


# The harness itself


def test_a_byte_that_is_lost_is_noticed(library: Path) -> None:
    outcome = run_child(library, "enter EINTR", seed=SEED, runs=1, more=["--lossy"])
    assert outcome.code == 1
    assert "are not what was sent" in outcome.said


def test_the_library_stands_before_the_ring_of_each_run(library: Path) -> None:
    outcome = run_child(library, "enter EINTR", seed=SEED, runs=2, more=["--parts", "waits"])
    assert outcome.code == 0, outcome.said
    assert outcome.rings > 2  # beside theirs, what capabilities() tries


DIRECT = """
import os, sys, trio, trio_uring
from pathlib import Path
from trio_uring import lowlevel
sys.path.insert(0, {folder!r})
from injector import Injector
injector = Injector({library!r})

async def main():
    injector.begin({rule!r}, seed=1, rate=1000, most=1)
    {calls}

trio_uring.run(main)
assert injector.count({rule!r}) == 1
"""


def direct(library: Path, rule: str, calls: Sequence[str]) -> str:
    program = DIRECT.format(
        folder=str(Path(__file__).parent), library=str(library), rule=rule, calls="\n    ".join(calls)
    )
    return output_of(program, env=preloaded(library)).strip()


@pytest.mark.parametrize(
    ("rule", "calls", "said"),
    [
        pytest.param(
            "EIO",
            [
                "fd = os.memfd_create('file')",
                "try: await lowlevel.write(fd, b'data', 0)",
                "except OSError as error: print(error.errno, os.fstat(fd).st_size, end=' ')",
                "print(await lowlevel.write(fd, b'data', 0), os.pread(fd, 9, 0))",
            ],
            "5 0 4 b'data'",
            id="an error comes instead of what was asked for, once",
        ),
        pytest.param(
            "short counts",
            [
                "fd = os.memfd_create('file')",
                "count = await lowlevel.write(fd, b'data', 0)",
                "print(0 < count < 4, os.pread(fd, 9, 0) == b'data'[:count])",
            ],
            "True True",
            id="a short count has moved what it says",
        ),
        pytest.param(
            "enter EBUSY",
            [
                "fd = os.memfd_create('file')",
                "before = trio.lowlevel.current_statistics().io_statistics.entered",
                "print(await lowlevel.write(fd, b'data', 0), os.pread(fd, 9, 0), end=' ')",
                "print(trio.lowlevel.current_statistics().io_statistics.entered - before >= 2)",
            ],
            "4 b'data' True",
            id="a refused call is made again",
        ),
        pytest.param(
            "polls wake",
            [
                "reader, writer = os.pipe()",
                "with trio.move_on_after(0.05): await trio.lowlevel.wait_readable(reader)",
                "print('went on')",
            ],
            "went on",
            id="a poll wakes",
        ),
    ],
)
def test_a_fault_is_what_it_is_named_after(library: Path, rule: str, calls: Sequence[str], said: str) -> None:
    assert direct(library, rule, calls) == said


def test_a_name_that_is_no_rule_is_refused(library: Path) -> None:
    with pytest.raises(ValueError, match="no rule"):
        Injector(library).begin("EIO", "EVERYTHING", seed=1, rate=1)
