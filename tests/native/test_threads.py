"""Threads that meet in the core share nothing but what is made for that, and no wake-up is lost: the
interrupt, and the wait of a guest run (threads.c).

ThreadSanitizer sees that a write comes before a read. That a store is seen by others before the next load
is made only the machine itself shows, in a program that nothing slows down: so there is one without it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from core_program import build, needs_a_compiler

SECONDS = round(float(os.environ.get("TRIO_URING_STRESS_SECONDS", "2")))


@needs_a_compiler
@pytest.mark.parametrize("option", ["-fsanitize=thread", "-O2"])
def test_threads_that_meet_in_the_core(option: str, tmp_path: Path) -> None:
    program = tmp_path / "threads"
    refused = build(program, Path(__file__).with_name("threads.c"), "-g", option)
    if refused and "tsan" in refused:
        pytest.skip(f"the compiler has no ThreadSanitizer: {refused}")
    assert refused is None
    # A program's own sanitizer and one that is loaded before it do not go together.
    env = {**os.environ, "LD_PRELOAD": "", "TSAN_OPTIONS": "halt_on_error=1"}
    command = [str(program), str(SECONDS)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=env, timeout=SECONDS + 120, check=False
    )
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer cannot have the addresses that it needs here")
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 0
