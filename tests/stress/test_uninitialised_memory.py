"""What is read of a buffer ends with what was received: neither a result, nor a file, nor a peer gets bytes
of memory that nobody has written to, whatever happens to a file while it is read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from turns import PATIENCE, SECONDS, SEED

PROGRAM = Path(__file__).with_name("uninitialised.py")
# Python marks fresh memory with 0xCD and freed memory with 0xDD; the C library marks with the other bits of
# the number, and with the number.
MARKED = {"PYTHONMALLOC": "debug", "MALLOC_PERTURB_": "50"}


def test_memory_that_nobody_has_written_to_is_never_seen(tmp_path: Path) -> None:
    print(f"TRIO_URING_STRESS_SEED={SEED}")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), str(SECONDS), str(SEED)],
        env={**os.environ, **MARKED},
        capture_output=True,
        text=True,
        timeout=SECONDS + PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(int(seen) for seen in done.stdout.split()), done.stdout
