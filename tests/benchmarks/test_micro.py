"""The micro group's steps run, on the backends that they claim."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from child_process import SECCOMP

from groups import micro
from groups.plan import SCALES
from measure.processes import Child, ChildError
from sides.runtimes import TRIO, WrongBackendError

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPT = ["-m", "groups.micro"]
# A child on epoll where io_uring was asked for: the kernel refuses it, and a fallback is allowed.
REFUSED = [str(SECCOMP), "EPERM", "io_uring_setup", "--", "env", "TRIO_URING_FALLBACK=epoll"]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("runtime", TRIO)
def test_script_measures_what_is_named(runtime: str) -> None:
    names = ["idle checkpoint", "trio.run of nothing"]
    options = ["--runtime", runtime, "--scale", "0.001", "--values", "1", "--warmups", "0"]
    done = run(*SCRIPT, *options, *names)
    assert done.returncode == 0, done.stderr
    for name in micro.BENCHMARKS:
        assert (f"{name}: " in done.stdout) == (name in names)


def test_suite_measures_each_benchmark_on_both_runtimes() -> None:
    planned = micro.plan(SCALES["smoke"])
    assert [one.case.name for one in planned] == list(micro.BENCHMARKS)
    opened = {"trio-epoll": "it has open: eventpoll", "trio-uring": "completions'; it has open: io_uring"}
    for one in planned:
        assert set(one.jobs) == set(opened)
        for runtime, job in one.jobs.items():
            measurement, seen = job.measure()
            assert 0 < measurement["seconds"] < 60
            assert seen.endswith(opened[runtime])


def test_each_round_measures_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["idle checkpoint", "wait_readable, ready"]
    processes = micro.Processes("trio-epoll", 0.001, 1, names)
    started = []
    measured = micro.Processes._measured
    monkeypatch.setattr(
        micro.Processes, "_measured", lambda self: started.append(self.runtime) or measured(self)
    )
    for _ in range(2):
        for name in names:
            processes.take(name)
    assert len(started) == 2


@pytest.mark.parametrize("worker", [[], ["--worker"]])
def test_script_on_another_backend_than_it_claims_fails(worker: list[str]) -> None:
    options = ["--runtime", "trio-uring", "--scale", "0.001", "--inherit-environ", "TRIO_URING_FALLBACK"]
    done = run(*REFUSED, sys.executable, *SCRIPT, *options, *worker, "idle checkpoint")
    assert done.returncode == 1
    assert f"{micro.WRONG_BACKEND}: this was to be Trio, trio-uring" in done.stderr
    assert "its loop says 'epoll'" in done.stderr


def test_suite_refuses_what_ran_on_another_backend() -> None:
    measured = "micro.Processes('trio-uring', 0.001, 1, ['idle checkpoint']).take('idle checkpoint')"
    program = f"from groups import micro; {measured}"
    done = run(*REFUSED, sys.executable, "-c", program)
    assert done.returncode == 1
    assert f"{WrongBackendError.__name__}: this was to be" in done.stderr


def test_suite_reports_a_benchmark_that_fails() -> None:
    with pytest.raises(ChildError, match="no such benchmark: nonsense"):
        micro.Processes("trio-epoll", 0.001, 1, ["nonsense"]).take("nonsense")


def test_side_on_epoll_inherits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIO_URING", "1")
    _, seen = micro.Processes("trio-epoll", 0.001, 1, ["idle checkpoint"]).take("idle checkpoint")
    assert "its loop says 'epoll'" in seen
    with Child([sys.executable, "-c", "import os; print(os.environ.get('TRIO_URING', 2))"]) as child:
        assert child.ready == 2
