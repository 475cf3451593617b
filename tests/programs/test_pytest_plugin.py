"""The pytest plugin, in pytest sessions of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from child_process import SECCOMP
from package_copy import copy_package

if TYPE_CHECKING:
    from pathlib import Path

BACKEND = "trio.lowlevel.current_statistics().io_statistics.backend"

RUN = f"""
import trio

async def main():
    return {BACKEND}

def test_run():
    assert trio.run(main) == EXPECTED
"""

PYTEST_TRIO = f"""
import pytest
import trio
from trio.testing import MockClock

@pytest.fixture
async def served():
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, echo, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()

async def echo(stream):
    async for data in stream:
        await stream.send_all(data)

MARK
async def test_backend():
    assert {BACKEND} == "io_uring"

MARK
async def test_async_fixture(served):
    async with await trio.open_tcp_stream("127.0.0.1", served) as stream:
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
    assert {BACKEND} == "io_uring"

MARK
async def test_clock_that_jumps(autojump_clock):
    await trio.sleep(10_000)
    assert trio.current_time() == 10_000
    assert {BACKEND} == "io_uring"

MARK
async def test_clock_that_stands_still(mock_clock):
    assert isinstance(mock_clock, MockClock)
    mock_clock.jump(5)
    assert trio.current_time() == 5
    assert {BACKEND} == "io_uring"
"""

ANYIO = f"""
import anyio
import pytest
import trio

@pytest.fixture
def anyio_backend():
    return "trio"

@pytest.fixture
async def group():
    async with anyio.create_task_group() as group:
        yield group
        group.cancel_scope.cancel()

@pytest.mark.anyio
async def test_backend(group):
    group.start_soon(anyio.sleep_forever)
    await anyio.to_thread.run_sync(int)
    await anyio.sleep(0.001)
    assert {BACKEND} == "io_uring"
"""


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session that runs these tests may have the plugin, and its options, itself."""
    for name in (
        "TRIO_URING",
        "TRIO_URING_FALLBACK",
        "TRIO_URING_DISABLE",
        "PYTEST_ADDOPTS",
        "PYTEST_PLUGINS",
    ):
        monkeypatch.delenv(name, raising=False)


def run(pytester: pytest.Pytester, *arguments: str, refused: str = "") -> pytest.RunResult:
    """A pytest session, in a process that is refused io_uring with this errno."""
    pytest_command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments)
    if refused:
        return pytester.run(sys.executable, SECCOMP, refused, "io_uring_setup", "--", *pytest_command)
    return pytester.run(*pytest_command)


def header(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if line.startswith("trio-uring")]


def test_option_puts_the_session_on_io_uring_and_says_so(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(RUN.replace("EXPECTED", "'io_uring'"))
    result = run(pytester, "--trio-uring")
    result.assert_outcomes(passed=1)
    (line,) = header(result)
    assert "Trio runs on io_uring (" in line
    assert "ext_arg" in line


def test_ini_file_puts_the_session_on_io_uring(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ntrio_uring = true\n")
    pytester.makepyfile(RUN.replace("EXPECTED", "'io_uring'"))
    result = run(pytester)
    result.assert_outcomes(passed=1)
    assert len(header(result)) == 1


def test_session_that_does_not_ask_is_on_epoll_without_a_word(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(RUN.replace("EXPECTED", "'epoll'"))
    result = run(pytester, "-W", "error")
    result.assert_outcomes(passed=1)
    assert header(result) == []


def test_session_that_does_not_ask_imports_neither_trio_nor_the_core(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_imports(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("trio_uring.pytest_plugin")
            assert "trio" not in sys.modules
            assert "trio_uring.ring.native" not in sys.modules
            assert "trio_uring.session.runs" not in sys.modules
        """
    )
    # Other plugins may import Trio.
    run(pytester, "-p", "no:trio", "-p", "no:anyio").assert_outcomes(passed=1)


@pytest.mark.parametrize("autoload", [True, False])
def test_plugin_named_on_the_command_line_is_there_once(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, autoload: bool
) -> None:
    if not autoload:
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(RUN.replace("EXPECTED", "'io_uring'"))
    result = run(pytester, "-p", "trio_uring.pytest_plugin", "--trio-uring")
    result.assert_outcomes(passed=1)
    assert len(header(result)) == 1


@pytest.mark.parametrize(("before", "afterwards"), [("pass", "epoll"), ("trio_uring.install()", "io_uring")])
def test_what_was_installed_before_the_session_is_so_again(
    pytester: pytest.Pytester, before: str, afterwards: str
) -> None:
    pytester.makepyfile(test_it=RUN.replace("EXPECTED", "'io_uring'"))
    program = pytester.makepyfile(
        program=f"""
        import pytest
        import trio
        import trio_uring

        async def main():
            return {BACKEND}

        {before}
        assert pytest.main(["--trio-uring", "test_it.py"]) == 0
        print("afterwards", trio.run(main))
        """
    )
    result = pytester.runpython(program)
    result.stdout.fnmatch_lines([f"afterwards {afterwards}"])


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_refusal_is_a_usage_error_with_cause_and_remedy(pytester: pytest.Pytester, error: str) -> None:
    pytester.makepyfile(RUN.replace("EXPECTED", "None"))
    result = run(pytester, "--trio-uring", refused=error)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stderr.str() + result.stdout.str()
    assert f"({error}, " in text
    assert "TRIO_URING_FALLBACK=epoll" in text
    assert "Traceback" not in text


def test_environment_that_makes_no_sense_is_a_usage_error(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_URING_DISABLE", "nonsense")
    result = run(pytester, "--trio-uring")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "TRIO_URING_DISABLE has no 'nonsense'" in result.stderr.str()
    assert "Traceback" not in result.stderr.str()


def test_fallback_is_said_once_in_the_header_even_if_warnings_are_errors(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_URING_FALLBACK", "epoll")
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    pytester.makepyfile(RUN.replace("EXPECTED", "'epoll'"))
    result = run(pytester, "--trio-uring", refused="EPERM")
    result.assert_outcomes(passed=1, warnings=0)
    (line,) = header(result)
    assert "Trio runs on epoll, not on io_uring: " in line
    assert "EPERM" in line


@pytest.mark.parametrize("quiet", ["-q", "--no-header"])
def test_fallback_is_said_once_at_the_end_where_there_is_no_header(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, quiet: str
) -> None:
    monkeypatch.setenv("TRIO_URING_FALLBACK", "epoll")
    pytester.makepyfile(RUN.replace("EXPECTED", "'epoll'"))
    (line,) = header(run(pytester, "--trio-uring", quiet, refused="EPERM"))
    assert "Trio runs on epoll, not on io_uring: " in line


def test_pytest_trio_with_marks_fixtures_and_clocks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PYTEST_TRIO.replace("MARK", "@pytest.mark.trio"))
    run(pytester, "--trio-uring").assert_outcomes(passed=4)


def test_pytest_trio_in_trio_mode(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ntrio_mode = true\ntrio_uring = true\n")
    pytester.makepyfile(PYTEST_TRIO.replace("MARK", ""))
    run(pytester).assert_outcomes(passed=4)


def test_anyio_plugin_on_trio(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(ANYIO)
    run(pytester, "--trio-uring").assert_outcomes(passed=1)


def test_workers_of_xdist_are_on_io_uring(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(RUN.replace("EXPECTED", "'io_uring'"))
    result = run(pytester, "--trio-uring", "-n", "1")
    result.assert_outcomes(passed=1)
    assert len(header(result)) == 1


def test_environment_puts_the_session_and_its_workers_on_io_uring(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_URING", "1")
    pytester.makepyfile(RUN.replace("EXPECTED", "'io_uring'"))
    for workers in ([], ["-n", "1"]):
        result = run(pytester, *workers)
        result.assert_outcomes(passed=1)
        assert len(header(result)) == 1


def test_options_of_the_environment_are_those_of_the_session(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_URING_ENTRIES", "16")
    backend = RUN.replace(BACKEND, BACKEND.replace("backend", "entries"))
    pytester.makepyfile(backend.replace("EXPECTED", "16"))
    run(pytester, "--trio-uring").assert_outcomes(passed=1)


def test_pytest_as_the_program_warns_of_nothing(tmp_path: Path) -> None:
    """As it is installed by pip, it is a plugin that is imported before pytest could rewrite it."""
    site = copy_package(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "test_it.py").write_text(RUN.replace("EXPECTED", "'io_uring'"))
    done = subprocess.run(
        [sys.executable, "-m", "trio_uring", "-m", "pytest", "-p", "no:cacheprovider"],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert "warning" not in done.stdout
