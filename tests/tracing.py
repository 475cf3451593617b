"""Counts the system calls of child processes with strace."""

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
    before = ("strace", "-f", "-qq", "-e", f"trace={name}", "-e", "signal=none", "-o", str(log))
    printed = python(code, *args, before=before)
    return len(re.findall(rf"\b{name}\({like}", log.read_text())), printed
