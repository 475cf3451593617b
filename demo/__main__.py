"""Runs server.py and client.py, each in a process of its own, on epoll and on io_uring.

Usage: ``python demo``. Fails if an answer is wrong, if either side was not on the
backend that it was meant to be on, or if it takes too long. System calls are counted
by strace, where it is installed and may trace.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs

HERE = Path(__file__).resolve().parent
RUNNERS = {"epoll": [sys.executable], "io_uring": [sys.executable, "-m", "trio_uring"]}
FILE_SIZES = (0, 1, 1_000, 10_000, 100_000, 500_000)
TIME_LIMIT = 50

# What the demo's system calls are for: the loop's own, the sockets', and the hand-over
# between Trio's thread and those that read files. The rest is mostly the start of Python.
LOOP = ("epoll_wait", "epoll_ctl", "io_uring_enter")
SOCKETS = ("accept4", "connect", "recvfrom", "sendto", "sendmsg", "shutdown")
THREADS = ("futex",)
SIDES = ("server", "client")


@attrs.frozen
class Outcome:
    """What one run of server and client reported; its system calls by name, if counted."""

    report: dict[str, Any]
    calls: dict[str, Counter[str]] | None


@contextmanager
def running(command: list[str], stdin: int) -> Iterator[subprocess.Popen[str]]:
    """A child in a process group of its own, which is gone at the end."""
    child = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=HERE.parent,
        env={name: value for name, value in os.environ.items() if name != "TRIO_URING"},  # for epoll's sake
    )
    try:
        yield child
    finally:
        if child.stdin:
            child.stdin.close()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def can_trace() -> bool:
    if not shutil.which("strace"):
        return False
    trial = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, check=False)
    return trial.returncode == 0


def run(backend: str, files: Path, scratch: Path, traced: bool) -> Outcome:
    def command(side: str, *arguments: str) -> list[str]:
        strace = ["strace", "-f", "-c", "-o", str(scratch / f"{side}.{backend}")] if traced else []
        return [*strace, *RUNNERS[backend], str(HERE / f"{side}.py"), *arguments]

    with running(command("server", str(files)), subprocess.PIPE) as server:
        assert server.stdout
        address = server.stdout.readline().strip()
        if not address:
            raise SystemExit("demo: the server did not start")
        with running(command("client", address, str(files)), subprocess.DEVNULL) as client:
            output, _ = client.communicate()
    if client.returncode or server.returncode:
        raise SystemExit(
            f"demo: the client ended with {client.returncode}, the server with {server.returncode}"
        )
    calls = {side: read_summary(scratch / f"{side}.{backend}") for side in SIDES} if traced else None
    return Outcome(json.loads(output), calls)


def read_summary(file: Path) -> Counter[str]:
    """Calls by name, from the table that ``strace -c`` writes."""
    rows = [line.split() for line in file.read_text().splitlines()]
    return Counter(
        {row[-1]: int(row[3]) for row in rows if len(row) >= 5 and row[3].isdigit() and row[-1] != "total"}
    )


def show(*columns: object) -> None:
    first, *others = columns
    print(f"  {first!s:<34}" + "".join(f"{other!s:>12}" for other in others))


def show_calls(outcomes: dict[str, Outcome]) -> None:
    for side in SIDES:
        counts = [calls[side] for outcome in outcomes.values() if (calls := outcome.calls)]
        print(f"\nSystem calls of the {side} (strace)")
        show("", *outcomes)
        for name in LOOP:
            show(name, *(count[name] for count in counts))
        for label, names in (("together", LOOP), ("sockets", SOCKETS), ("threads (futex)", THREADS)):
            show(label, *(sum(count[name] for name in names) for count in counts))
        rest = [
            sum(count.values()) - sum(count[name] for name in LOOP + SOCKETS + THREADS) for count in counts
        ]
        show("others, start of Python included", *rest)


def show_entered(outcome: Outcome) -> None:
    print(
        "\nSystem calls (strace is not installed or may not trace here: the run's own count, io_uring only)"
    )
    show("", *SIDES)
    show("io_uring_enter", *(outcome.report[side]["entered"] for side in SIDES))
    show("ticks without a system call", *(outcome.report[side]["skipped"] for side in SIDES))


def give_up(*_: object) -> None:
    raise SystemExit(f"demo: not finished after {TIME_LIMIT} s")


def main() -> None:
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(TIME_LIMIT)
    traced = can_trace()
    with tempfile.TemporaryDirectory(prefix="trio-uring-demo-") as folder:
        files = Path(folder, "files")
        files.mkdir()
        for size in FILE_SIZES:
            (files / f"{size}.bin").write_bytes(random.randbytes(size))
        outcomes = {backend: run(backend, files, Path(folder), traced) for backend in RUNNERS}

    packages = " · ".join(
        f"{name} {version(name)}" for name in ("trio", "hypercorn", "httpx", "trio-websocket")
    )
    print(f"{packages} · Python {platform.python_version()} · Linux {platform.release()}")
    print("server.py and client.py, unmodified Trio programs, each run as")
    for backend, runner in RUNNERS.items():
        show(backend, " ".join(["  python", *runner[1:], "demo/server.py ..."]))
    print("\nWhat was done, every answer compared")
    show("", *outcomes)
    reports = [outcome.report for outcome in outcomes.values()]
    show("HTTP requests (httpx)", *(report["requests"] for report in reports))
    show("WebSocket messages, there and back", *(report["messages"] for report in reports))
    for side in SIDES:
        show(f"the {side} says that it is on", *(report[side]["backend"] for report in reports))
    if traced:
        show_calls(outcomes)
    else:
        show_entered(outcomes["io_uring"])
    for backend, outcome in outcomes.items():
        for side in SIDES:
            if (actual := outcome.report[side]["backend"]) != backend:
                raise SystemExit(f"\ndemo: the {side} should have been on {backend}, but it was on {actual}")


if __name__ == "__main__":
    main()
