"""The rules by turns, each time with other seeds, until the time is over.

    python tests/faults/long.py [SECONDS] [--seed SEED] [--rules RULE ...]

Seconds: TRIO_URING_FAULTS_SECONDS, else 300. Seed: TRIO_URING_FAULTS_SEED, else at random. A child
that fails is told of at once, with the command that repeats it, and the others go on.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from children import SEED, complaint, run_child
from injector import build, obstacle
from rules import RULES

import trio_uring

_RUNS = 30


def main() -> str | None:
    parser = argparse.ArgumentParser()
    seconds = float(os.environ.get("TRIO_URING_FAULTS_SECONDS", "300"))
    parser.add_argument("seconds", type=float, nargs="?", default=seconds)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        library = build(Path(folder))
        if reason := obstacle(library):
            print(f"nothing was run: {reason}")
            return None
        print(f"seed {arguments.seed}, {arguments.seconds:g} s", flush=True)
        failed = run_all(library, usable(arguments.rules), arguments.seed, arguments.seconds)
    return f"seed {arguments.seed}: failed under {', '.join(sorted(failed))}" if failed else None


def usable(names: list[str]) -> list[str]:
    has_completions = "completions" in trio_uring.capabilities().used
    return [name for name in names if has_completions or not RULES[name].needs_completions]


def run_all(library: Path, names: list[str], seed: int, seconds: float) -> set[str]:
    """Each rule at least once. Those under which something was wrong."""
    choices = random.Random(seed)
    failed = set()
    end = time.monotonic() + seconds
    for number, name in enumerate(itertools.cycle(names)):
        if number >= len(names) and time.monotonic() >= end:
            break
        outcome = run_child(library, name, seed=choices.randrange(1 << 32), runs=_RUNS)
        if wrong := complaint(outcome):
            failed.add(name)
            print(f"{name}: {wrong}", flush=True)
        else:
            figures = f"{outcome.injected} injected, {outcome.seen} seen"
            print(f"{name}: {figures}, {outcome.checked:,} bytes checked", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
