"""Programs that a test runs in a Python process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUPPORT = Path(__file__).resolve().parent
"""The folder of these modules, for children that import some."""
SECCOMP = SUPPORT / "seccomp.py"


def run_python(
    program: str,
    *,
    flags: Sequence[str] = (),
    before: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Runs ``program``, dedented, and returns what it printed and how it ended.

    ``before`` is a command that runs the interpreter's, and ``flags`` are the interpreter's.
    """
    return subprocess.run(
        [*before, sys.executable, *flags, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(env or {})},
        check=False,
    )


def output_of(program: str, **arguments: object) -> str:
    """What ``program`` prints; it has to succeed and to say nothing on standard error."""
    done = run_python(program, **arguments)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "", done.stderr
    return done.stdout


def preloaded(library: str | os.PathLike[str]) -> dict[str, str]:
    """Variables, for ``env``, by which a child loads this library before its own: after those that this
    process has so, since a sanitizer's comes first or refuses to run."""
    return {"LD_PRELOAD": " ".join([*os.environ.get("LD_PRELOAD", "").split(), os.fspath(library)])}


def refused(answer: str, *calls: str) -> list[str]:
    """A command, for ``before``, under which these system calls answer ``answer``."""
    return [sys.executable, str(SECCOMP), answer, *calls, "--"]
