"""Whole runs of pytest, in a process of their own, and what came out of each, as a table."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

import attrs

ROOT = Path(__file__).resolve().parents[2]


@attrs.frozen
class Outcome:
    """How many tests passed, failed and were skipped, and how long they took."""

    name: str
    passed: int
    failed: int
    skipped: int
    minutes: float


def run(name: str, arguments: list[str], environment: dict[str, str], folder: Path = ROOT) -> Outcome:
    """Runs pytest in a checkout, with these variables besides. ``name`` is for the table."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.xml")
        status = subprocess.run(
            [sys.executable, "-m", "pytest", f"--junit-xml={report}", *arguments],
            env={**os.environ, **environment},
            cwd=folder,
            check=False,
        ).returncode
        if not report.exists():  # its arguments were wrong, or it was killed
            raise SystemExit(status)
        counts = next(iter(ElementTree.parse(report).getroot())).attrib
    failed = int(counts["failures"]) + int(counts["errors"]) or min(status, 1)
    skipped = int(counts["skipped"])
    passed = int(counts["tests"]) - failed - skipped
    return Outcome(name, passed, failed, skipped, (time.monotonic() - start) / 60)


def report(what: str, outcomes: list[Outcome]) -> int:
    """Prints the table; returns the exit status."""
    print(f"\n| {what} | passed | failed | skipped | minutes |\n| --- | --- | --- | --- | --- |")
    for one in outcomes:
        print(f"| {one.name} | {one.passed:,} | {one.failed} | {one.skipped} | {one.minutes:.0f} |")
    return int(any(one.failed for one in outcomes))
