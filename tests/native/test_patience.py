"""A kernel that refuses is given up after two seconds in which it was asked, and not because the process was
stopped, or the machine suspended, between two refusals."""

from __future__ import annotations

import subprocess
from pathlib import Path

from core_program import build, needs_a_compiler


@needs_a_compiler
def test_patience_counts_the_time_in_which_the_kernel_was_asked(tmp_path: Path) -> None:
    program = tmp_path / "patience"
    assert build(program, Path(__file__).with_name("patience.c"), core="identity.c") is None
    said = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    by_milliseconds, by_tenths, by_hours, with_pauses = map(int, said.split())
    assert by_milliseconds == 2001
    assert by_tenths == by_hours == 21
    assert with_pauses == 1_000_000
