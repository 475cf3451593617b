"""What the doctor says of this kernel, beside the table of what it has to offer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from findings import Result
from offers import differences

if TYPE_CHECKING:
    from collections.abc import Iterator


def check() -> Iterator[Result]:
    done = subprocess.run(
        [sys.executable, "-m", "trio_uring", "doctor", "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        yield Result("doctor", "failed", f"it ended with {done.returncode}", done.stdout + done.stderr)
        return
    report = json.loads(done.stdout)
    version = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])
    wrong = differences(report, version)
    rows = [row for group in ("setup_flags", "features", "operations") for row in report[group]]
    used = sum(row["state"] == "used" for row in rows)
    figures = f"{used} of {len(rows)} flags, features and operations used"
    yield Result("doctor", "failed" if wrong else "passed", figures, "\n".join(wrong))
