"""Starts child.py: one at a time, in a session of its own, and with limits."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

SEED = int(os.environ.get("TRIO_URING_FAULTS_SEED", random.SystemRandom().randrange(1 << 32)))

_PROGRAM = Path(__file__).with_name("child.py")
# A run takes a tenth of a second; one that takes so long hangs, on any machine.
PATIENCE = 30


@attrs.frozen
class Outcome:
    """What became of a child's runs."""

    command: str
    code: int
    """0 if all was well."""
    said: str
    """On standard error."""
    injected: int = 0
    seen: int = 0
    """Errors that the workload met, of those that it may see."""
    checked: int = 0
    """Bytes that were as they should be."""
    rings: int = 0
    """That the library stood before."""


def run_child(library: Path, rule: str, *, seed: int, runs: int, more: Sequence[str] = ()) -> Outcome:
    """Runs the workload under a rule. However that ends, nothing of the child's session is left."""
    arguments = [str(library), rule, f"--seed={seed}", f"--runs={runs}", f"--seconds={PATIENCE}", *more]
    # Files, since a process that the child has left behind would keep a pipe open.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            [sys.executable, str(_PROGRAM), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            # A sanitizer's library, which may be in it already, has to be the first.
            env={**os.environ, "LD_PRELOAD": f"{os.environ.get('LD_PRELOAD', '')} {library}"},
            start_new_session=True,
        )
        try:
            code = child.wait(PATIENCE * 3)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        output.seek(0)
        errors.seek(0)
        figures = json.loads(output.read()) if code == 0 else {}
        return Outcome(f"{_PROGRAM.name} {' '.join(map(repr, arguments))}", code, errors.read(), **figures)


def complaint(outcome: Outcome) -> str:
    """What is wrong with it; empty if nothing is."""
    if outcome.code or outcome.said:
        return f"{outcome.command} ended with {outcome.code}:\n{outcome.said}"
    if not outcome.injected:
        return f"{outcome.command}: nothing was injected"
    if not outcome.checked:
        return f"{outcome.command}: nothing was checked"
    return ""
