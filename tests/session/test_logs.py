"""The logger ``trio_uring``: what a process runs on, once, to whoever listens."""

from __future__ import annotations

import os
import platform

import pytest
from child_process import output_of, refused, run_python

CONFIGURE = (
    "import logging, sys\n"
    "logging.basicConfig(level=LEVEL, stream=sys.stdout, format='%(name)s %(levelname)s %(message)s')\n"
)


def listening(level: str = "'INFO'") -> str:
    return CONFIGURE.replace("LEVEL", level)


RUNS = "import trio, trio_uring\nfor _ in range(3): trio_uring.run(trio.sleep, 0)\n"


def test_process_says_once_what_it_runs_on() -> None:
    environment = {"TRIO_URING_CHECKPOINT_BUDGET": "3", "TRIO_URING_DISABLE": ""}
    (line,) = output_of(listening() + RUNS, env=environment).splitlines()
    assert line.startswith(f"trio_uring INFO Trio runs on io_uring: Linux {platform.release()}; entries=64 ")
    assert " checkpoint_budget=3 " in line
    assert "disabled=nothing" in line


def test_process_without_a_run_says_nothing() -> None:
    assert output_of(listening() + "import trio, trio_uring; trio_uring.install()") == ""


@pytest.mark.parametrize("level", ["'WARNING'", "'ERROR'"])
def test_who_does_not_want_to_know_is_not_told(level: str) -> None:
    assert output_of(listening(level) + RUNS) == ""


def test_nothing_is_configured_by_us() -> None:
    program = (
        RUNS
        + "import logging\nprint(logging.root.handlers, 'trio_uring' in logging.Logger.manager.loggerDict)"
    )
    assert output_of(program) == "[] False\n"


def test_run_that_configures_the_log_is_told_then() -> None:
    """As hypercorn's does; also by a configuration that disables all loggers that are there."""
    program = """
        import logging.config
        import trio, trio_uring
        async def main():
            await trio.sleep(0.001)
            logging.config.dictConfig({
                "version": 1,
                "handlers": {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}},
                "root": {"level": "INFO", "handlers": ["out"]},
            })
            for _ in range(5):
                await trio.sleep(0.001)
        trio_uring.run(main)
        trio_uring.run(trio.sleep, 0)
    """
    assert output_of(program).count("Trio runs on io_uring") == 1


@pytest.mark.parametrize("waits", ["trio.sleep(0.002)", "trio.lowlevel.checkpoint()"])
def test_who_never_listens_costs_a_run_nothing_in_the_end(waits: str) -> None:
    program = f"""
        import trio, trio_uring
        from trio_uring.loop.current import current_run
        async def main():
            manager = current_run()
            before = "get_events" in vars(manager)
            for _ in range(1100 if "checkpoint" in "{waits}" else 110):
                await {waits}
            print(before, "get_events" in vars(manager))
        import trio_uring.session.runs
        trio_uring.run(main)
    """
    assert output_of(program) == "True False\n"


def test_each_process_says_it() -> None:
    program = """
        import os
        trio_uring.run(trio.sleep, 0)
        pid = os.fork()
        if not pid:
            trio_uring.run(trio.sleep, 0)
            os._exit(0)
        os.waitpid(pid, 0)
    """
    text = listening() + "import trio, trio_uring\n" + "\n".join(line[8:] for line in program.splitlines())
    assert output_of(text).count("Trio runs on io_uring") == 2


def test_fallback_is_a_warning_of_the_log_beside_the_warning() -> None:
    done = run_python(
        listening() + RUNS, before=refused("EPERM", "io_uring_setup"), env={"TRIO_URING_FALLBACK": "epoll"}
    )
    assert done.returncode == 0
    lines = [line.split(" ", 2)[1:] for line in done.stdout.splitlines()]
    assert [level for level, _ in lines] == ["WARNING", "INFO"]
    assert lines[0][1].startswith("This runs on epoll, not on io_uring: ")
    assert lines[1][1].startswith("Trio runs on epoll: ")
    assert done.stderr.count("UringFallbackWarning") == 1


def test_fallback_that_was_warned_of_before_the_log_was_configured_is_logged() -> None:
    program = "import trio, trio_uring; trio_uring.install()\n" + listening() + "trio.run(trio.sleep, 0)"
    done = run_python(
        program, before=refused("EPERM", "io_uring_setup"), env={"TRIO_URING_FALLBACK": "epoll"}
    )
    assert done.stdout.count("trio_uring WARNING This runs on epoll") == 1
    assert done.stderr.count("UringFallbackWarning") == 1


def test_fallback_is_told_once_where_nobody_listens() -> None:
    done = run_python(RUNS, before=refused("EPERM", "io_uring_setup"), env={"TRIO_URING_FALLBACK": "epoll"})
    assert done.stderr.count("This runs on epoll") == 1


def test_fallback_as_an_error_ends_the_command_in_one_line() -> None:
    program = "import os, sys; os.execv(sys.executable, [sys.executable, '-W', 'error', *ARGUMENTS])"
    arguments = ["-m", "trio_uring", "--fallback", "epoll", "-c", "print('ran')"]
    done = run_python(
        program.replace("ARGUMENTS", repr(arguments)), before=refused("EPERM", "io_uring_setup")
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("trio_uring: This runs on epoll, not on io_uring: ")
    assert done.stderr.count("\n") == 1


def test_warnings_that_are_errors_leave_the_traceback_to_the_program() -> None:
    code = "import trio, warnings\nasync def main(): warnings.warn('old', DeprecationWarning)\ntrio.run(main)"
    plain = run_python(
        f"import os, sys; os.execv(sys.executable, [sys.executable, '-W', 'error', '-c', {code!r}])"
    )
    ours = ["-W", "error", "-m", "trio_uring", "-c", code]
    done = run_python(f"import os, sys; os.execv(sys.executable, [sys.executable, *{ours!r}])")
    assert (done.returncode, done.stderr) == (plain.returncode, plain.stderr)
    assert os.path.basename(__file__) not in done.stderr
