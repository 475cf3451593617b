"""Counts the system calls of child processes with strace.

A stop of the traced process may take 100 ms, where ptrace is emulated: so a test lets a
fixed small number of calls be traced. The process stops at these alone, where strace can
have it so (--seccomp-bpf); else at every call of its start too, which takes minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from equivalence import python

if TYPE_CHECKING:
    from pathlib import Path


def _why_not() -> str:
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["strace failed"])[0] if done.returncode else ""


_reason = _why_not()
with_strace = pytest.mark.skipif(bool(_reason), reason=f"system calls cannot be counted: {_reason}")


def system_calls(folder: Path, name: str, code: str, *args: str, like: str = "") -> tuple[int, str]:
    """How often a child process made one system call, with arguments like these
    (a regular expression), and what it printed."""
    log = folder / "strace"
    what = ("-e", f"trace={name}", "-e", "signal=none", "-o", str(log))
    printed = python(code, *args, before=("strace", "--seccomp-bpf", "-f", "-qq", *what), patience=600)
    return len(re.findall(rf"\b{name}\({like}", log.read_text())), printed
