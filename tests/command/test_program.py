"""The command line: what ``python -m trio_uring`` runs is compared with what ``python`` runs."""

from __future__ import annotations

import os
import py_compile
import re
import signal
import subprocess
import sys
import zipfile
from importlib import metadata
from typing import TYPE_CHECKING

import pytest
from child_process import SECCOMP

if TYPE_CHECKING:
    from pathlib import Path

OURS = ("-m", "trio_uring")
BACKEND = "trio.lowlevel.current_statistics().io_statistics.backend"

REPORT = """\
import sys
print(sys.argv, sys.path, sys.modules["__main__"].__dict__ is globals(), __name__)
hidden = "__builtins__", "__loader__", "__spec__"
print({name: value for name, value in globals().items() if name not in hidden})
print(type(__loader__), getattr(__loader__, "path", None), type(__builtins__), list(globals()))
print(__spec__ and (__spec__.name, __spec__.origin, __spec__.cached, __spec__.parent))
"""

GROUP = """\
import trio

async def fail():
    raise KeyError("inner")

async def main():
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(fail)
    finally:
        raise OSError("outer")

trio.run(main)
"""

PROGRAMS = {
    "arguments and globals": REPORT,
    "end": "print('end')",
    "status": "import sys; sys.exit(7)",
    "status of a text": "import sys; sys.exit('text')",
    "status of nothing": "import sys; sys.exit()",
    "immediate exit": "import os; os._exit(9)",
    "exception": "def fail(): 1 / 0\nfail()",
    "chain": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise KeyError('second')",
    "cause": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise KeyError('second') from error",
    "exception group": GROUP,
    "exception that is no Exception": "raise GeneratorExit('base')",
    "syntax error": "x = 1\nif x\n    pass\n",
    "syntax error of an import": "import broken",
    "error of an import": "import failing",
    "keyboard interrupt": "raise KeyboardInterrupt",
    "keyboard interrupt in a run": (
        "import os, signal, trio\nasync def main():\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "    await trio.sleep_forever()\ntrio.run(main)\n"
    ),
    "signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "excepthook": (
        "import sys, traceback\n"
        "def hook(kind, value, tb):\n"
        "    print(kind, value.__context__, value.__traceback__ is tb, sys.exc_info())\n"
        "    print(sys.last_value is value, sys.last_traceback is tb, traceback.extract_tb(tb))\n"
        "sys.excepthook = hook\n1 / 0\n"
    ),
    "excepthook for a syntax error": (
        "import sys\nsys.excepthook = lambda kind, value, tb: print(kind, tb.tb_lineno, tb.tb_next)\n"
        "compile('(', 'text', 'exec')\n"
    ),
    "failing excepthook": "import sys\ndef hook(*_): {}['hook']\nsys.excepthook = hook\n1 / 0\n",
    "exiting excepthook": "import sys\nsys.excepthook = lambda *_: sys.exit(5)\n1 / 0\n",
    "interrupt and excepthook": (
        "import sys\nsys.excepthook = lambda *_: print('hook')\nraise KeyboardInterrupt\n"
    ),
    "exit handlers after the traceback": (
        "import atexit, sys\natexit.register(lambda: print('at exit', __name__, file=sys.stderr))\n1 / 0\n"
    ),
    "threads outlive the main one": (
        "import threading\nmain = threading.main_thread()\n"
        "threading.Thread(target=lambda: (main.join(), print('thread', __name__))).start()\n"
    ),
    "failing thread": "import threading\nthreading.Thread(target=lambda: 1 / 0).start()\n",
    "pickle": (
        "import pickle\nclass Thing:\n    pass\n"
        "print(type(pickle.loads(pickle.dumps(Thing()))) is Thing, Thing.__module__)\n"
    ),
    "inspect": (
        "import inspect\nclass Thing:\n    'text'\n\n"
        "print(inspect.getsource(Thing), inspect.getfile(Thing))\n"
    ),
    "spawn": (
        "import multiprocessing, os\ndef double(x):\n    return 2 * x, __name__\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(double, [1, 2]))\n"
    ),
    "subclass of keyboard interrupt": "class Stop(KeyboardInterrupt):\n    pass\n\nraise Stop('text')",
    "exit handlers after an interrupt": (
        "import atexit, sys, traceback\n"
        "def tell():\n"
        "    print(sys.excepthook is sys.__excepthook__, repr(sys.last_value), sys.last_type)\n"
        "    print(sys.last_value.__traceback__ is sys.last_traceback, sys.exc_info())\n"
        "    print(traceback.extract_tb(sys.last_traceback))\n"
        "atexit.register(tell)\nraise KeyboardInterrupt\n"
    ),
    "annotations": "x: int = 1\nprint(__annotations__, [type(value) for value in __annotations__.values()])",
    "annotations of the module": (
        "import sys\nx: int = 1\nif x:\n    y: str\n"
        "print(sys.modules['__main__'].__annotations__, list(globals()))"
    ),
    "deprecation warning": "import warnings\nwarnings.warn('old', DeprecationWarning)",
}


def run(*command: str, cwd: Path, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, re.sub(r"0x[0-9a-f]+|Thread-\d+", "...", done.stdout), done.stderr


def check_same(*command: str, cwd: Path, options: tuple[str, ...] = ()) -> int:
    """Compares exit status, output and errors; returns the status."""
    plain = run(*options, *command, cwd=cwd)
    assert run(*options, *OURS, *command, cwd=cwd) == plain
    return plain[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a script, a package, and a folder that can be run; the modules fail in several ways."""
    for name, text in {
        "report.py": REPORT,
        "broken.py": "if x\n",
        "failing.py": "def fail():\n    1 / 0\n\nfail()\n",
        "package/__init__.py": "import sys\nprint('package', sys.argv)\n",
        "package/__main__.py": REPORT,
        "package/module.py": REPORT,
        "library/__init__.py": "",
        "bad_package/__init__.py": "{}['package']\n",
        "bad_package/__main__.py": "",
        "program/__main__.py": REPORT,
        "elsewhere/report.py": REPORT,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as file:
        file.writestr("__main__.py", REPORT)
    with zipfile.ZipFile(tmp_path / "failing.zip", "w") as file:
        file.writestr("__main__.py", "1 / 0\n")
    py_compile.compile(str(tmp_path / "report.py"), str(tmp_path / "compiled.pyc"))
    (tmp_path / "link.py").symlink_to("elsewhere/report.py")
    return tmp_path


@pytest.mark.parametrize("text", PROGRAMS.values(), ids=PROGRAMS)
def test_program_behaves_as_under_plain_python(folder: Path, text: str) -> None:
    (folder / "app.py").write_text(text)
    check_same("app.py", "-x", "--fallback=epoll", "doctor", cwd=folder)


@pytest.mark.parametrize(
    "text", [PROGRAMS["exception"], PROGRAMS["keyboard interrupt"]], ids=["error", "interrupt"]
)
def test_module_fails_as_under_plain_python_without_the_frames_of_runpy(folder: Path, text: str) -> None:
    (folder / "app.py").write_text(text)
    status, output, errors = run("-m", "app", cwd=folder)
    errors = re.sub(r'  File "[^"]*\brunpy\b.*\n(    .*\n)*', "", errors)
    assert run(*OURS, "-m", "app", cwd=folder) == (status, output, errors)


@pytest.mark.parametrize(
    "command",
    [
        ["./report.py"],
        ["elsewhere/../report.py", "a", "-m", "b"],
        ["link.py"],
        ["compiled.pyc"],
        ["program", "a"],
        ["./program/"],
        ["program.zip", "a"],
        ["-m", "report", "a", "--help"],
        ["-mreport", "a"],
        ["-m", "package", "a"],
        ["-m", "package.module", "-m", "a"],
    ],
    ids=" ".join,
)
def test_every_kind_of_program_finds_its_argv_path_and_main(folder: Path, command: list[str]) -> None:
    assert check_same(*command, cwd=folder) == 0


@pytest.mark.parametrize(
    "name",
    [
        "arguments and globals",
        "status",
        "exception",
        "chain",
        "exception group",
        "syntax error",
        "error of an import",
        "keyboard interrupt",
        "excepthook",
        "annotations",
        "annotations of the module",
        "deprecation warning",
    ],
)
def test_text_behaves_as_under_plain_python(folder: Path, name: str) -> None:
    check_same("-c", PROGRAMS[name], "a", "-m", cwd=folder)


@pytest.mark.parametrize("command", [["-cprint(1)"], ["-c", "  x = 1\n  print(x)"], ["-c", "import report"]])
@pytest.mark.parametrize("options", [(), ("-I",)])
def test_text_is_found_as_by_python(folder: Path, command: list[str], options: tuple[str, ...]) -> None:
    check_same(*command, cwd=folder, options=options)


@pytest.mark.parametrize("command", [["report.py", "a"], ["-m", "report"], ["program"], ["-c", REPORT, "a"]])
def test_script_of_the_console_does_what_python_does(folder: Path, command: list[str]) -> None:
    plain = run(*command, cwd=folder)
    (script,) = (
        entry for entry in metadata.entry_points(group="console_scripts") if entry.name == "trio-uring"
    )
    text = f"import sys; from {script.module} import {script.attr}; sys.exit({script.attr}())"
    (folder / "bin").mkdir()
    (folder / "bin/trio-uring").write_text(text)
    assert run("bin/trio-uring", *command, cwd=folder) == plain


@pytest.mark.parametrize("options", [("-I",), ("-P",)], ids=" ".join)
@pytest.mark.parametrize("command", ["report.py", "program", "program.zip"])
def test_safe_path_is_honoured(folder: Path, options: tuple[str, ...], command: str) -> None:
    if options == ("-P",) and sys.version_info < (3, 11):
        pytest.skip("Python 3.11 brought -P")
    assert check_same(command, cwd=folder, options=options) == 0


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["nowhere.py"], 2),
        (["nowhere/app.py"], 2),
        (["elsewhere"], 1),
        (["-m", "nowhere"], 1),
        (["-m", "nowhere.module"], 1),
        (["-m", "package.nowhere"], 1),
        (["-m", "report.module"], 1),
        (["-m", "library"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_program_that_is_not_there_is_reported_as_by_python(
    folder: Path, command: list[str], status: int
) -> None:
    assert check_same(*command, cwd=folder) == status


@pytest.mark.parametrize(
    "command", [["-m", "broken"], ["-m", "failing"], ["-m", "bad_package"], ["failing.zip"]], ids=" ".join
)
def test_traceback_shows_nothing_above_the_program(folder: Path, command: list[str]) -> None:
    status, _, errors = run(*OURS, *command, cwd=folder)
    assert status == 1
    assert "trio_uring" not in errors
    assert "runpy" not in errors
    assert "importlib" not in errors
    assert re.search("ZeroDivisionError|KeyError|SyntaxError", errors)


def test_program_runs_on_io_uring(folder: Path) -> None:
    text = f"import trio\nasync def main():\n    print({BACKEND})\ntrio.run(main)\n"
    (folder / "app.py").write_text(text)
    assert run(*OURS, "app.py", cwd=folder) == (0, "io_uring\n", "")
    assert run(*OURS, "-m", "app", cwd=folder) == (0, "io_uring\n", "")


def test_modules_of_the_working_directory_do_not_shadow_those_of_the_program(folder: Path) -> None:
    (folder / "attrs.py").write_text("raise AssertionError('not the program\\'s')\n")
    (folder / "trio.py").write_text("raise AssertionError('not the program\\'s')\n")
    assert run(*OURS, "elsewhere/report.py", cwd=folder)[0] == 0


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_refusal_ends_the_command_before_the_program(folder: Path, error: str) -> None:
    (folder / "app.py").write_text("print('ran')")
    status, output, errors = run(
        str(SECCOMP), error, "io_uring_setup", "--", sys.executable, *OURS, "app.py", cwd=folder
    )
    assert (status, output) == (1, "")
    assert errors.startswith("trio_uring: io_uring cannot be used here: ")
    assert error in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("option", ["--fallback=epoll", ""])
def test_fallback_warns_once_and_runs_on_epoll(folder: Path, option: str) -> None:
    (folder / "app.py").write_text(
        f"import trio\nasync def main():\n    print({BACKEND})\n\ntrio.run(main)\n"
    )
    environment = {} if option else {"TRIO_URING_FALLBACK": "epoll"}
    refuse = [str(SECCOMP), "EPERM", "io_uring_setup", "--", sys.executable]
    status, output, errors = run(*refuse, *OURS, *filter(None, [option]), "app.py", cwd=folder, **environment)
    assert (status, output) == (0, "epoll\n")
    assert errors.count("UringFallbackWarning") == 1
    assert "UringFallbackWarning: This runs on epoll, not on io_uring: " in errors


def test_environment_that_makes_no_sense_is_reported(folder: Path) -> None:
    status, output, errors = run(*OURS, "report.py", cwd=folder, TRIO_URING_DISABLE="nonsense")
    assert (status, output) == (1, "")
    assert errors.startswith("trio_uring: TRIO_URING_DISABLE has no 'nonsense'")


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["-m"],
        ["-c"],
        ["--fallback=kqueue", "a.py"],
        ["--fallback", "kqueue", "a.py"],
        ["--entries"],
        ["--entries", "many", "a.py"],
        ["--entries=0", "doctor"],
        ["--cq-entries", "8", "a.py"],
        ["--files=yes", "a.py"],
        ["--disable=nonsense", "a.py"],
        ["--no-children=1", "a.py"],
        ["-x"],
        ["doctor", "--xml"],
    ],
    ids=" ".join,
)
def test_wrong_command_line_shows_the_usage(folder: Path, command: list[str]) -> None:
    status, output, errors = run(*OURS, *command, cwd=folder)
    assert (status, output) == (2, "")
    assert "usage: python -m trio_uring" in errors


def test_help_and_version(folder: Path) -> None:
    status, output, errors = run(*OURS, "--help", cwd=folder)
    assert (status, errors) == (0, "")
    assert output.startswith("usage: python -m trio_uring")
    status, output, errors = run(*OURS, "--version", cwd=folder)
    assert (status, errors) == (0, "")
    assert re.fullmatch(r"trio-uring \d+\.\d+\S*\n", output)


def test_file_called_doctor_is_run_by_its_path(folder: Path) -> None:
    (folder / "doctor").write_text("print('the file')")
    assert run(*OURS, "./doctor", cwd=folder) == (0, "the file\n", "")


def test_interrupted_command_dies_of_the_signal(folder: Path) -> None:
    (folder / "app.py").write_text(PROGRAMS["keyboard interrupt in a run"])
    assert run(*OURS, "app.py", cwd=folder)[0] == -signal.SIGINT
