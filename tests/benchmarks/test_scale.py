"""The script behind docs/scale.md tells what it says that it measures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "scale.py"


@pytest.mark.usefixtures("many_descriptors")
def test_the_script_tells_of_memory_of_wake_ups_and_of_locked_memory() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--most", "100", "--rounds", "1"],
        capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    rows = {
        cells[1].strip(): cells[2:-1]
        for cells in (line.split("|") for line in done.stdout.splitlines())
        if cells[1:]
    }
    for name in ("the process, bytes", "CPU until all tasks have run, ms", "io_uring_enter"):
        assert float(rows[name][1]) > 0
    assert float(rows["io_uring_enter"][0]) == 0
    if os.geteuid() == 0:
        without, with_sockets = map(int, rows["64 KiB"])
        assert without >= with_sockets > 0
