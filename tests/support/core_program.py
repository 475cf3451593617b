"""Programs in C that tests build with the sources of the core."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

NATIVE = Path(__file__).resolve().parents[2] / "native"
COMPILER = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")

needs_a_compiler = pytest.mark.skipif(
    not NATIVE.is_dir() or not shutil.which(COMPILER[0]), reason="the core cannot be compiled here"
)


def build(
    program: Path, source: Path, *options: str, core: str = "*.c", compiler: Sequence[str] = COMPILER
) -> str | None:
    """Makes ``program`` of ``source`` and those files of ``native/`` that ``core`` names. Returns what the
    compiler says if it cannot."""
    sources = [str(source), *map(str, sorted(NATIVE.glob(core)))]
    flags = ["-std=c11", "-D_GNU_SOURCE", "-pthread", '-DTU_LIBURING_VERSION="tests"', f"-I{NATIVE}"]
    command = [*compiler, *flags, *options, *sources, "-luring", "-ldl", "-o", str(program)]
    env = {**os.environ, "LD_PRELOAD": ""}  # no sanitizer watches the compiler
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600, check=False)
    return done.stderr if done.returncode else None
