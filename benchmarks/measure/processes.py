"""The processes of a measurement: where they run, what they cost, what they ask of the kernel.

A child talks lines of JSON: one when it is ready, then one for each line that it is
sent. It ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent
PATIENCE = 120.0
"""Seconds for one answer of a child."""

_CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU = _CPUS[0]
GENERATOR_CPU = _CPUS[-1]


def inherited() -> dict[str, str]:
    """The environment of a measured program: without what would put every side on io_uring."""
    return {name: value for name, value in os.environ.items() if name != "TRIO_URING"}


class ChildError(Exception):
    """A measured program, or the one that loads it, failed: with what it wrote to standard error."""


class Child:
    """A running program; as a context manager it is ended, whatever happens."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        cpu: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = [str(word) for word in command]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed in __exit__
        self._unread = b""
        with on_cpu(cpu):
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                cwd=FOLDER,
                env={**inherited(), **(environment or {})},
            )
        self.pid = self._process.pid
        try:
            self.ready = self._answer(PATIENCE)
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._errors:
            status = self.end()
            if status != 0 and kind is None:
                raise self._failed(f"ended with status {status}")

    def ask(
        self, question: Mapping[str, Any] | None = None, *, patience: float | None = PATIENCE
    ) -> dict[str, Any]:
        """Without patience, None, it waits until the child answers or ends."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question or {}).encode() + b"\n")
        except BrokenPipeError:
            raise self._failed("ended") from None
        return self._answer(patience)

    def end(self) -> int:
        """Ends its standard input, and waits; the status, negative if it had to be killed."""
        with self._process:
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.returncode

    def _answer(self, patience: float | None) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline = None if patience is None else time.monotonic() + patience
        while b"\n" not in self._unread:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._process.stdout], [], [], left)
            if not ready:
                raise self._failed(f"did not answer for {patience:.0f} s")
            received = os.read(self._process.stdout.fileno(), 1 << 16)
            if not received:
                self._process.wait(10)
                raise self._failed(f"ended with status {self._process.returncode}")
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failed(self, how: str) -> ChildError:
        self._errors.seek(0)
        errors = self._errors.read().decode(errors="replace").strip()
        return ChildError(f"{' '.join(self._command)}\n{how}; its last words: {errors[-2000:] or 'none'}")


@contextlib.contextmanager
def on_cpu(cpu: int | None) -> Iterator[None]:
    """What is started in the block inherits the CPU."""
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, _CPUS)


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of the process, dead ones and kernel workers
    of its rings as well: the sum in /proc/PID/stat, in nanoseconds instead of ticks."""
    return time.clock_gettime((~pid << 3) | 2)


def memory(pid: int, name: str) -> int:
    """Bytes, of a name in /proc/PID/status: VmRSS is what is resident, VmHWM its peak."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{pid}/status has no {name}")


@contextlib.contextmanager
def counted_system_calls(pid: int) -> Iterator[dict[str, int]]:
    """Fills the mapping, when the block ends, with the calls of all of the process's threads."""
    calls: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "table")
        with subprocess.Popen(
            ["strace", "-c", "-f", "-o", str(table), "-p", str(pid)],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        ) as strace:
            assert strace.stderr is not None
            attached = strace.stderr.readline()
            if b"attached" not in attached:
                strace.kill()
                raise ChildError(f"strace: {attached.decode().strip() + strace.stderr.read().decode()}")
            try:
                yield calls
            finally:
                strace.send_signal(signal.SIGINT)
                strace.communicate()
        calls.update(_calls(table.read_text()))


def _calls(table: str) -> dict[str, int]:
    """From lines of "% time, seconds, usecs/call, calls, [errors,] syscall"."""
    rows = (line.split() for line in table.splitlines() if line[:1].isspace() or line[:1].isdigit())
    return {row[-1]: int(row[3]) for row in rows if len(row) >= 5 and row[3].isdigit() and row[-1] != "total"}
