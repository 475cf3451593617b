"""Each Python process of a program's tree is on io_uring, whoever starts it and however; and what does
not import Trio does not notice."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest
from child_process import SECCOMP

PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("TRIO_URING")}
OURS = ("-m", "trio_uring")

PROGRAM = """
import concurrent.futures
import multiprocessing
import os
import subprocess
import sys

import trio

HERE = os.path.dirname(os.path.abspath(__file__))
CODE = f"import sys; sys.path.insert(0, {HERE!r}); import program; print(program.child())"

async def backend():
    return trio.lowlevel.current_statistics().io_statistics.backend

def child():
    return trio.run(backend)

def python(*flags, **arguments):
    command = [sys.executable, *flags, "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **arguments)
    assert done.stderr == "", done.stderr
    return done.stdout.strip()

def pool(method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        return pool.apply(child)

def executor(method):
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(child).result()

async def trio_parallel():
    import trio_parallel
    return await trio_parallel.run_sync(child)

async def anyio_process():
    import anyio.to_process
    return await anyio.to_process.run_sync(child)

if __name__ == "__main__":
    print(child(), eval(sys.argv[1]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def run(
    *command: str, folder: Path | None = None, status: int = 0, errors: str | None = "", **environment: str
) -> str:
    """What the command prints; ``errors`` is all that it says on standard error, None if that is up to it."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**PLAIN, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    if errors is not None:
        assert done.stderr == errors
    return done.stdout if status == 0 else done.stderr


def code(text: str) -> tuple[str, str]:
    return "-c", textwrap.dedent(text)


@pytest.mark.parametrize(
    "child",
    [
        "pool('spawn')",
        "pool('forkserver')",
        "pool('fork')",
        "executor('spawn')",
        "python()",
        "python('-I')",
        "python('-E', '-s')",
        "trio.run(trio_parallel)",
        "trio.run(anyio_process)",
    ],
)
def test_child_is_on_io_uring(folder: Path, child: str) -> None:
    assert run(*OURS, "program.py", child, folder=folder) == "io_uring io_uring\n"


def test_environment_takes_in_a_program_that_is_started_by_another_command(folder: Path) -> None:
    printed = run("program.py", "pool('spawn'), python()", folder=folder, TRIO_URING="1")
    assert printed == "io_uring ('io_uring', 'io_uring')\n"


def test_program_that_replaces_itself_stays_on_io_uring(folder: Path) -> None:
    text = "import os, program, sys; os.execv(sys.executable, [sys.executable, '-c', program.CODE])"
    assert run(*OURS, "-c", text, folder=folder) == "io_uring\n"


@pytest.mark.parametrize("how", ["--no-children", "TRIO_URING=0"])
def test_children_may_be_left_as_they_are(folder: Path, how: str) -> None:
    options = [how] if how.startswith("-") else []
    environment = {} if options else {"TRIO_URING": "0"}
    printed = run(*OURS, *options, "program.py", "pool('spawn'), python()", folder=folder, **environment)
    assert printed == "io_uring ('epoll', 'epoll')\n"


@pytest.mark.parametrize("child", ["python('-S')", "python(env={})"])
def test_child_that_cannot_be_told_is_plain(folder: Path, child: str) -> None:
    """As the table in docs/processes.md has it."""
    text = "import sys; path = [name for name in sys.path if name]; print(path)"
    path = eval(run("-c", text))  # -S knows of no installed package
    program = PROGRAM.replace("import trio\n", f"sys.path.extend({path!r})\nimport trio\n", 1)
    (folder / "program.py").write_text(program)
    assert run(*OURS, "program.py", child, folder=folder) == "io_uring epoll\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root may have the rights of another user")
@pytest.mark.parametrize(
    ("real", "effective", "printed"),
    [
        ((65534, 0), (0, 0), "None 64"),  # as of a setuid program
        ((65534, 65534), (65534, 0), "None 64"),  # setgid
        ((0, 0), (65534, 65534), "1 16"),  # a service of root's that has put its rights aside
        ((65534, 65534), (65534, 65534), "1 16"),
    ],
)
def test_who_has_started_a_process_with_more_rights_than_his_own_has_no_say(
    real: tuple[int, int], effective: tuple[int, int], printed: str
) -> None:
    text = f"""
        import os
        from trio_uring.session import children, settings
        os.setresgid({real[1]}, {effective[1]}, {effective[1]})
        os.setresuid({real[0]}, {effective[0]}, {effective[0]})
        print(children.told() or None, settings.resolve(None).entries)
    """
    assert run(*code(text), TRIO_URING="1", TRIO_URING_ENTRIES="16") == f"{printed}\n"


def test_options_of_the_command_line_are_those_of_the_children() -> None:
    ask = """
        import trio
        async def main():
            run = trio.lowlevel.current_statistics().io_statistics
            print(run.entries, run.cq_entries, "no_iowait" in run.flags)
        trio.run(main)
    """
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {textwrap.dedent(ask)!r}])"
    options = ("--entries", "16", "--cq-entries=512", "--disable", "no_iowait")
    assert run(*OURS, *options, "-c", parent) == "16 512 False\n"
    again = f"import subprocess, sys; subprocess.run([sys.executable, '-m', 'trio_uring', '-c', {parent!r}])"
    assert run(*OURS, *options, "-c", again) == "16 512 False\n"
    assert run(*OURS, *options, "-c", parent, TRIO_URING_ENTRIES="32") == "32 512 False\n"


RUN = "import trio; trio.run(trio.sleep, 0)"
REFUSE = (str(SECCOMP), "EPERM", "io_uring_setup", "--", sys.executable)


def test_child_that_is_refused_io_uring_gets_the_error_when_it_runs(folder: Path) -> None:
    text = "import trio, program; print('imported', flush=True); program.child()"
    done = run(*REFUSE, "-c", text, folder=folder, TRIO_URING="1", status=1, errors=None)
    last = done.splitlines()[-1]
    assert last.startswith("trio_uring.UringUnavailableError: io_uring cannot be used here: ")
    assert "EPERM" in last


def test_child_that_is_refused_io_uring_gets_the_fallback_of_its_parent(folder: Path) -> None:
    text = f"""
        import program, subprocess, sys
        refuse = [sys.executable, {str(SECCOMP)!r}, "EPERM", "io_uring_setup", "--"]
        done = subprocess.run([*refuse, sys.executable, "-c", program.CODE], capture_output=True, text=True)
        print(program.child(), done.stdout.strip(), done.stderr.count("UringFallbackWarning: This runs"))
    """
    assert run(*OURS, "--fallback", "epoll", *code(text), folder=folder) == "io_uring epoll 1\n"


def test_wrong_option_in_the_environment_is_an_error_of_the_childs_run() -> None:
    done = run("-c", RUN, TRIO_URING="1", TRIO_URING_ENTRIES="many", status=1, errors=None)
    said = "TRIO_URING_ENTRIES has to be an int from 1 to 32768 (submissions), not 'many'"
    assert done.splitlines()[-1] == f"ValueError: {said}"


def test_wrong_switch_is_an_error_of_each_run() -> None:
    twice = "import trio\ntry: trio.run(trio.sleep, 0)\nexcept ValueError: trio.run(trio.sleep, 0)"
    done = run("-c", twice, TRIO_URING="yes", status=1, errors=None)
    assert done.splitlines()[-1] == (
        "ValueError: TRIO_URING has to be 1 (every run on io_uring) or 0, not 'yes'"
    )


def test_trio_that_is_not_known_is_an_error_of_each_run() -> None:
    text = """
        import trio
        import trio._core._run as trio_run
        print("trio_uring.session.runs" in __import__("sys").modules)
        try:
            trio.run(trio.sleep, 0)
        except RuntimeError as error:
            print(error)
            trio.run(trio.sleep, 0)
    """
    thread = "import threading; e = threading.Event(); threading.Thread(target=e.wait, daemon=True).start()\n"
    lacking = "    del trio_run.CancelStatus\n"
    text = thread + textwrap.dedent(text).replace("try:\n", f"try:\n{lacking}")
    done = run("-c", text, TRIO_URING="1", status=1, errors=None)
    assert "CancelStatus is missing" in done.splitlines()[-1]


# Nobody notices


def test_process_that_does_not_import_trio_imports_next_to_nothing() -> None:
    text = "import sys; print(*sorted(sys.modules))"
    before = set(run("-c", text).split())
    told = set(run("-c", text, TRIO_URING="1").split())
    # The finder of what is installed to be edited imports some of its own.
    ours = {"trio_uring", "trio_uring.session", "trio_uring.session.children"}
    assert {name for name in told - before if "editable" not in name} <= ours


def test_parts_that_a_starting_process_imports_import_nothing_but_os_and_sys() -> None:
    text = """
        import sys
        before = set(sys.modules)
        import trio_uring.session.children
        trio_uring.session.children.start()
        print(sorted(set(sys.modules) - before))
    """
    assert run("-I", *code(text)) == "['trio_uring', 'trio_uring.session', 'trio_uring.session.children']\n"


def test_start_may_be_called_again_and_the_finder_leaves_when_trio_is_there() -> None:
    text = """
        import sys
        from trio_uring.session import children
        def finders():
            return [type(finder).__module__ for finder in sys.meta_path].count("trio_uring.session.children")
        children.start(); children.start()
        print(finders())
        import trio
        print(finders())
        children.start()
        print(finders())
    """
    assert run(*code(text), TRIO_URING="1") == "1\n0\n0\n"


def test_threads_that_import_us_and_trio_at_once_do_not_wait_for_each_other() -> None:
    text = """
        import sys, threading
        sys.setswitchinterval(1e-5)
        barrier = threading.Barrier(6)
        found = []
        async def main():
            import trio
            return trio.lowlevel.current_statistics().io_statistics.backend
        def by_trio():
            import trio
            return trio.run(main)
        def by_us():
            import trio_uring
            return trio_uring.run(main)
        def by_a_module_of_ours():
            from trio_uring import lowlevel
            import trio
            return trio.run(main)
        RUNS = by_trio, by_us, by_a_module_of_ours
        def work(run):
            barrier.wait()
            found.append(run())
        threads = [threading.Thread(target=work, args=[run]) for run in RUNS * 2]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(found)
    """

    for _ in range(3):
        assert run(*code(text), TRIO_URING="1") == f"{['io_uring'] * 6}\n"


def test_first_run_that_somebody_has_wrapped_is_on_io_uring() -> None:
    """Imported beside another thread: the session is not there before the run."""
    text = """
        import sys, threading
        done = threading.Event()
        threading.Thread(target=done.wait).start()
        import trio
        from trio._core import _run
        print("trio_uring.session.runs" in sys.modules)
        below = _run.setup_runner
        calls = []
        def wrapper(*args, **kwargs):
            calls.append(1)
            return below(*args, **kwargs)
        _run.setup_runner = wrapper
        async def main():
            return trio.lowlevel.current_statistics().io_statistics.backend
        print(trio.run(main), len(calls), trio.run(main), len(calls))
        import trio_uring
        trio_uring.uninstall()
        print(trio.run(main), len(calls), _run.setup_runner is wrapper)
        done.set()
    """
    assert run(*code(text), TRIO_URING="1") == "False\nio_uring 1 io_uring 2\nepoll 3 True\n"


IMPORTED = """
    import importlib, importlib.machinery, importlib.util, re, sys

    def tell(*what):
        print(re.sub("0x[0-9a-f]+", "", " ".join(map(str, what))))

    found = importlib.util.find_spec("trio")
    tell(found.origin, found.cached, found.submodule_search_locations)
    tell(isinstance(found.loader, importlib.machinery.SourceFileLoader), found.loader.is_package("trio"))
    tell(found.loader.get_source("trio") == open(found.origin).read())
    import trio
    tell(trio.__spec__, trio.__loader__, type(trio.__loader__), trio.__spec__.loader is trio.__loader__)
    tell(trio.__file__, trio.__path__, trio.__package__)
    tell(importlib.reload(trio) is trio, trio.__spec__, type(trio.__spec__.loader))
    import importlib.resources
    tell(importlib.resources.files("trio").joinpath("py.typed").is_file())
"""


def test_trio_is_imported_as_without_us() -> None:
    assert run(*code(IMPORTED), TRIO_URING="1") == run(*code(IMPORTED))


def test_module_of_a_specification_is_trio_on_io_uring() -> None:
    text = """
        import importlib.util, sys
        found = importlib.util.find_spec("trio")
        trio = sys.modules["trio"] = importlib.util.module_from_spec(found)
        found.loader.exec_module(trio)
        async def main():
            return trio.lowlevel.current_statistics().io_statistics.backend
        print(trio.run(main), type(trio.__spec__.loader).__name__)
    """
    assert run(*code(text), TRIO_URING="1") == "io_uring SourceFileLoader\n"


def test_trio_that_fails_to_import_shows_nothing_of_us(tmp_path: Path) -> None:
    (tmp_path / "trio").mkdir()
    (tmp_path / "trio/__init__.py").write_text("def fail():\n    1 / 0\n\nfail()\n")
    text = "import trio"
    plain = run("-c", text, folder=tmp_path, status=1, errors=None)
    assert "ZeroDivisionError" in plain
    assert run("-c", text, folder=tmp_path, status=1, errors=None, TRIO_URING="1") == plain


def test_trio_that_is_not_there_is_not_there(tmp_path: Path) -> None:
    text = """
        import sys
        sys.path[:] = [name for name in sys.path if "site-packages" not in name]
        import trio
    """
    plain = run(*code(text), status=1, errors=None)
    assert "ModuleNotFoundError: No module named 'trio'" in plain
    assert run(*code(text), status=1, errors=None, TRIO_URING="1") == plain


def test_module_of_the_users_that_is_called_trio_is_his(tmp_path: Path) -> None:
    (tmp_path / "trio.py").write_text("name = 'mine'\n")
    text = "import sys, trio; print(trio.name, type(trio.__loader__).__name__)"
    assert run("-c", text, folder=tmp_path, TRIO_URING="1") == "mine SourceFileLoader\n"


def test_threads_that_import_trio_at_once_all_get_it() -> None:
    text = """
        import threading
        barrier = threading.Barrier(8)
        found = []
        def work():
            barrier.wait()
            import trio
            async def main():
                return trio.lowlevel.current_statistics().io_statistics.backend
            found.append(trio.run(main))
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(len(found), set(found))
    """
    assert run(*code(text), TRIO_URING="1") == "8 {'io_uring'}\n"


@pytest.mark.parametrize("name", ["sitecustomize", "usercustomize"])
@pytest.mark.parametrize("text", ["print('mine')", "import trio; print('mine')"])
def test_customization_of_the_users_goes_on_working(
    tmp_path: Path, folder: Path, name: str, text: str
) -> None:
    (tmp_path / f"{name}.py").write_text(text + "\n")
    printed = run("-c", "import program; print(program.child())", PYTHONPATH=str(folder), TRIO_URING="1")
    has_user_site = run("-c", "import site; print(site.ENABLE_USER_SITE)", TRIO_URING="0") == "True\n"
    mine = "mine\n" if name == "sitecustomize" or has_user_site else ""
    assert printed == mine + "io_uring\n"


def test_start_file_is_part_of_what_is_installed() -> None:
    """Also where it is installed to be edited."""
    name = "trio_uring.start" if sys.version_info >= (3, 18) else "trio_uring.pth"
    assert Path(sysconfig.get_path("platlib"), name).is_file()


def test_start_file_says_nothing_where_the_package_is_gone(tmp_path: Path) -> None:
    line = Path(__file__).parents[2].joinpath("start/trio_uring.pth").read_text()
    text = f"import sys; sys.modules['trio_uring'] = None; exec({line!r})"
    assert run("-c", text) == ""
    assert run("-c", text, TRIO_URING="1") == ""


def test_leaving_children_behind_and_taking_them_along(monkeypatch: pytest.MonkeyPatch) -> None:
    from trio_uring.session import children

    monkeypatch.delenv("TRIO_URING", raising=False)
    children.take_along({"--entries": " 16", "--disable": "a, b"})
    assert os.environ["TRIO_URING"] == "1 --entries=16 --disable=a,b"
    children.leave_behind()
    assert "TRIO_URING" not in os.environ
