"""The benchmarks run, on the backends that they claim."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
SECCOMP = Path(__file__).with_name("seccomp.py")

sys.path.insert(0, str(FOLDER))
from micro import BENCHMARKS  # noqa: E402


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_both_sides_are_compared() -> None:
    name = "wait_readable, ready"
    done = run(sys.executable, str(FOLDER / "compare.py"), "--rounds", "1", "--scale", "0.01", name)
    assert done.returncode == 0, done.stderr
    assert f"| {name} | " in done.stdout


@pytest.mark.parametrize("side", ["epoll", "io_uring"])
def test_each_benchmark_runs(side: str) -> None:
    options = ["--side", side, "--scale", "0.001", "--values", "1", "--warmups", "0"]
    done = run(sys.executable, str(FOLDER / "micro.py"), *options)
    assert done.returncode == 0, done.stderr
    for name in BENCHMARKS:
        assert f"{name}: " in done.stdout


def test_benchmark_on_another_backend_than_it_claims_fails() -> None:
    refused = [
        sys.executable,
        str(SECCOMP),
        "EPERM",
        "io_uring_setup",
        "--",
        "env",
        "TRIO_URING_FALLBACK=epoll",
    ]
    options = ["--side", "io_uring", "--scale", "0.001", "--inherit-environ", "TRIO_URING_FALLBACK"]
    done = run(*refused, sys.executable, str(FOLDER / "micro.py"), *options, "idle checkpoint")
    assert done.returncode != 0
    assert "this is epoll, not io_uring" in done.stderr
