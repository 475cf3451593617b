"""The tests of a room, as far as the time lets."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import trio
from findings import Result

_TESTS: Final = Path(__file__).resolve().parents[2]
_PATIENCE: Final = 600
"""Seconds for one test. It is many times what a test takes, emulated."""
_TOLD: Final = 40
"""Failures of which the messages are passed on."""
_TRIO: Final = "trio"
"""The room that is Trio's own suite."""


def check(room: str, deadline: float) -> Result:
    name = "Trio's own suite" if room == _TRIO else f"tests/{room}"
    left = deadline - time.monotonic()
    if left < 1:
        return Result(name, "cut", "the time was over before it began")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        log.touch()
        ended = _run(_tests_of(room), log, left)
        return _result(name, [json.loads(line) for line in log.read_text().splitlines()], ended)


def _tests_of(room: str) -> list[str]:
    """What pytest is told to run. Of Trio's suite without the tests of its source, as in the noxfile."""
    if room != _TRIO:
        return [f"tests/{room}"]
    package = Path(trio.__file__).parent
    suite = [f"--config-file={_TESTS / 'trio_suite/pytest.ini'}", f"--rootdir={package.parent}"]
    return [*suite, "--pyargs", _TRIO, f"--ignore={package / '_tests/tools'}"]


def _run(tests: list[str], log: Path, seconds: float) -> int | None:
    """pytest's status; None if it was cut. What a test has written goes with it, unless it fails, since the
    disk is small."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "--tb=short"]
    command += [f"--timeout={_PATIENCE}", "-p", "outcome_log", "-o", "tmp_path_retention_policy=failed"]
    process = subprocess.Popen(
        [*command, *tests],
        cwd=_TESTS.parent,
        stdin=subprocess.DEVNULL,
        env={
            **os.environ,
            "OUTCOME_LOG": str(log),
            "PYTHONPATH": str(Path(__file__).parent),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(log.parent / "hypothesis"),
            "HYPOTHESIS_NO_PLUGINS": "1",  # by Trio's, its functions are shown otherwise than its suite wants
        },
        start_new_session=True,
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _result(name: str, log: list[dict[str, str]], ended: int | None) -> Result:
    counts = collections.Counter(entry["outcome"] for entry in log if "outcome" in entry)
    collected = next((int(entry["collected"]) for entry in log if "collected" in entry), 0)
    done = counts["passed"] + counts["failed"] + counts["skipped"]
    figures = f"{counts['passed']:,} passed, {counts['failed']:,} failed, {counts['skipped']:,} skipped"
    failures = [entry for entry in log if entry.get("outcome") == "failed"]
    details = "\n\n".join(f"{entry['test']}\n{entry['message']}" for entry in failures[:_TOLD])
    if counts["failed"]:
        return Result(name, "failed", f"{figures}; of {collected:,}", details)
    if ended is None:
        ended_tests = {entry["test"] for entry in log if "test" in entry}
        cut = [entry["began"] for entry in log if "began" in entry and entry["began"] not in ended_tests]
        reached = f"{figures}; {collected - done:,} more did not end"
        return Result(name, "cut", f"{reached}; cut: {', '.join(cut)}" if cut else reached)
    if ended:
        return Result(name, "failed", f"{figures}; of {collected:,}; pytest ended with {ended}")
    return Result(name, "passed", figures)
