"""``python -m trio_uring doctor``: the report for people, the one for programs, and the exit status."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import io
import json
import os
import shlex
import subprocess
import sys
import tty
from pathlib import Path

import attrs
import pytest
import trio
from child_process import SECCOMP

import trio_uring
from trio_uring.command import doctor

PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("TRIO_URING_")}
DOCTOR = (sys.executable, "-m", "trio_uring", "doctor")
pytestmark = pytest.mark.usefixtures("plain_environment")
REFUSED = (sys.executable, str(SECCOMP), "EPERM", "io_uring_setup", "--", *DOCTOR)


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env={**PLAIN, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def test_status_is_0_where_a_run_uses_io_uring() -> None:
    done = run(*DOCTOR)
    assert (done.returncode, done.stderr) == (0, "")
    assert "A run uses io_uring" in done.stdout


def test_report_has_a_line_for_every_flag_feature_and_operation() -> None:
    found = trio_uring.capabilities()
    lines = [line.split()[:2] for line in run(*DOCTOR).stdout.splitlines() if line.startswith("  ")]
    rows = (*found.setup_flags, *found.features, *found.operations)
    assert lines == [[row.name, row.state] for row in rows]


def test_report_names_the_versions() -> None:
    found = trio_uring.capabilities()
    report = run(*DOCTOR).stdout
    for version in (found.kernel, found.liburing_loaded, found.liburing_built, found.python, found.trio):
        assert version in report


@pytest.mark.parametrize(
    ("inside", "said"),
    [(True, "2.9, inside the core (/core.so)"), (False, "2.9, built against 2.3 (/core.so)")],
)
def test_report_says_whether_liburing_is_inside_the_core(inside: bool, said: str) -> None:
    found = attrs.evolve(
        trio_uring.capabilities(),
        liburing_inside=inside,
        liburing_loaded="2.9",
        liburing_built="2.3",
        liburing_path="/core.so",
    )
    assert f"liburing    {said}" in list(doctor._lines(found))


def test_json_is_one_object_with_the_keys_of_capabilities() -> None:
    done = run(*DOCTOR, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(json.dumps(attrs.asdict(trio_uring.capabilities())))


def test_refusal_is_status_1_with_cause_and_remedy() -> None:
    done = run(*REFUSED)
    assert (done.returncode, done.stderr) == (1, "")
    assert "A run fails" in done.stdout
    assert "seccomp" in done.stdout
    assert "EPERM" in done.stdout
    assert done.stdout.count("Run the container with a seccomp profile") == 1


def test_refusal_of_everything_is_one_block() -> None:
    lines = run(*REFUSED).stdout.splitlines()
    assert len(lines) < 20
    assert lines[-1].startswith("Nothing can be said of 8 set-up flags, ")
    assert lines[-1].endswith(" operations: io_uring_setup is refused (EPERM, Operation not permitted).")


def test_remedy_says_where_it_belongs() -> None:
    assert "on the host" in run(*REFUSED).stdout


@pytest.mark.parametrize("call", ["io_uring_setup", "io_uring_enter", "io_uring_register"])
def test_security_module_is_not_blamed_on_seccomp(call: str) -> None:
    done = run(sys.executable, str(SECCOMP), "EACCES", call, "--", *DOCTOR)
    assert done.returncode == 1
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("  What is in the way: "))
    assert f"a security module (SELinux, AppArmor) forbids {call} (EACCES, " in line
    assert "seccomp" not in line
    assert "policy, on the host" in done.stdout


def test_legend_explains_every_state() -> None:
    report = run(*DOCTOR).stdout
    for state in ("used", "available", "off", "missing"):
        assert f"{state}: " in report


def test_options_of_the_command_line_and_of_the_environment_are_those_of_the_report() -> None:
    doctor = (sys.executable, "-m", "trio_uring", "--checkpoint-budget", "16", "--entries=16", "doctor")
    report = run(*doctor, TRIO_URING_ENTRIES="32").stdout
    assert "options     entries=32, checkpoint_budget=16\n" in report
    assert "A run uses io_uring: 32 submissions, 128 completions." in report
    assert "options     all by default\n" in run(*DOCTOR).stdout
    off = run(sys.executable, "-m", "trio_uring", "--disable", "submit_all", "doctor").stdout
    (line,) = (line for line in off.splitlines() if line.startswith("  submit_all "))
    assert "--disable" in line or "missing" in line


def test_report_tells_of_open_files() -> None:
    async def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    gc.collect()  # so that it closes nothing of earlier tests meanwhile
    own = trio_uring.run(opened) - len(os.listdir("/proc/self/fd"))
    done = run("sh", "-c", f"ulimit -S -n 64; {shlex.join(DOCTOR)}")
    assert f"open files  a run takes {own}; this process may have 64 open together, so 57 " in done.stdout


def test_report_tells_by_what_children_are_taken_along() -> None:
    found = trio_uring.capabilities()
    assert Path(found.start_file).read_text()
    assert f"taken along, by {found.start_file}\n" in run(*DOCTOR).stdout


def test_refusal_in_json() -> None:
    done = run(*REFUSED, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["usable"] is False


def test_run_that_would_fall_back_is_status_1_and_said_to_be_on_epoll() -> None:
    done = run(*REFUSED, TRIO_URING_FALLBACK="epoll")
    assert done.returncode == 1
    assert "A run uses epoll" in done.stdout


def test_feature_that_is_switched_off_is_said_to_be() -> None:
    report = run(*DOCTOR, TRIO_URING_DISABLE="submit_all").stdout
    (line,) = (line for line in report.splitlines() if line.startswith("  submit_all "))
    assert line.split()[1] in ("off", "missing")
    assert "TRIO_URING_DISABLE" in line or "missing" in line


@pytest.mark.parametrize("name", ["TRIO_URING_DISABLE", "TRIO_URING_FALLBACK"])
def test_environment_that_makes_no_sense_is_reported(name: str) -> None:
    done = run(*DOCTOR, **{name: "nonsense"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"trio_uring: {name} has")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "--json"], ["--help"], ["--version"]])
def test_who_has_read_enough_may_go(arguments: list[str]) -> None:
    """As ``head -1`` does: nobody reads from the pipe any more."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "trio_uring", *arguments],
        env=PLAIN,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("flags", [[], ["-u"]], ids=["buffered", "unbuffered"])
def test_pipe_that_does_not_block_gets_all(flags: list[str]) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    room = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    environment = {name: value for name, value in PLAIN.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, *flags, "-m", "trio_uring", "doctor", "--json"]
    with (
        open(reader, "rb") as said,
        subprocess.Popen(command, env=environment, stdout=writer, stderr=subprocess.PIPE) as done,
    ):
        os.close(writer)
        text = said.read()
        assert done.stderr is not None
        assert (done.wait(60), done.stderr.read()) == (0, b"")
    assert len(text) > room
    assert json.loads(text)["usable"] is True


def test_terminal_that_does_not_block_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    from trio_uring.command import command_line

    def read_a_part(_: object) -> None:
        said.extend(os.read(reader, 4096))

    monkeypatch.setattr(command_line, "_wait_until_writable", read_a_part)
    said = bytearray()
    text = "0123456789" * 20_000  # more than a terminal takes before somebody reads
    reader, terminal = os.openpty()
    tty.setraw(terminal)
    os.set_blocking(terminal, False)
    with open(reader, "rb"), open(terminal, "w") as stream:
        command_line._write(stream, text)
        assert said
        while not said.endswith(b"\n"):
            read_a_part(stream)
    assert said.decode() == f"{text}\n"


def test_report_tells_of_locked_memory_and_wake_ups() -> None:
    found = trio_uring.capabilities()
    lines = run(*DOCTOR).stdout.splitlines()
    (memory,) = (line for line in lines if line.startswith("memory      "))
    assert f"a ring takes {found.locked_by_ring} bytes, and {found.locked_by_buffers} for" in memory
    (wake_ups,) = (line for line in lines if line.startswith("wake-ups    "))
    assert wake_ups == "wake-ups    fast"
    assert not any(line.startswith("wrapped") for line in lines)


def test_report_tells_how_many_rings_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    from trio_uring.command import doctor
    from trio_uring.ring import locked_memory

    monkeypatch.setattr(locked_memory, "limit", lambda: 65536)
    report, _ = doctor.report(as_json=False)
    assert "may lock 65536 together, so 8 rings fit, 5 of them with stream sockets" in report


def test_report_tells_what_others_have_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    from trio._core import _run as trio_run

    from trio_uring.command import doctor

    def wrapper(*args: object) -> None: ...

    monkeypatch.setattr(trio.SocketStream, "send_all", wrapper)
    monkeypatch.setattr(trio_run.Runner, "reschedule", wrapper)
    report, _ = doctor.report(as_json=False)
    assert "wrapped     by others, and so slower: trio.SocketStream.send_all\n" in report
    assert "wake-ups    by Trio's reschedule, which is called for each task" in report


def test_what_stands_in_the_place_of_standard_output_gets_the_text() -> None:
    from trio_uring.command import command_line

    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert command_line.main(["--version"]) == 0
    assert trio_uring.__version__ in output.getvalue()
