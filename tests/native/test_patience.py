"""A kernel that refuses is given up after two seconds in which it was asked, and not because the process was
stopped, or the machine suspended, between two refusals."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")

pytestmark = pytest.mark.skipif(
    not (ROOT / "native").is_dir() or not shutil.which(COMPILER[0]), reason="the core cannot be compiled here"
)


def test_patience_counts_the_time_in_which_the_kernel_was_asked(tmp_path: Path) -> None:
    program = tmp_path / "patience"
    sources = [str(Path(__file__).with_name("patience.c")), str(ROOT / "native/identity.c")]
    options = ["-std=c11", "-D_GNU_SOURCE", "-pthread", f"-I{ROOT / 'native'}"]
    command = [*COMPILER, *options, *sources, "-luring", "-o", str(program)]
    subprocess.run(command, check=True, timeout=120)
    said = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    by_milliseconds, by_tenths, by_hours, with_pauses = map(int, said.split())
    assert by_milliseconds == 2001
    assert by_tenths == by_hours == 21
    assert with_pauses == 1_000_000
