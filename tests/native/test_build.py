"""The build says in one sentence what is missing and how to install it; what is in a wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from core_program import needs_a_compiler

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "native"

pytestmark = pytest.mark.skipif(not SOURCE.is_dir(), reason="the source of the core is not here")
pytest.importorskip("cffi.recompiler")


def build(**environment: str) -> subprocess.CompletedProcess[str]:
    """Runs what setup.py runs first: it checks the tools before anything is compiled."""
    return subprocess.run(
        [sys.executable, str(SOURCE / "build.py")],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_names_the_packages(done: subprocess.CompletedProcess[str], missing: str) -> None:
    assert done.returncode == 1
    message = done.stderr.strip()
    assert len(message.splitlines()) == 1
    assert message.startswith(f"trio-uring needs {missing}")
    for command in ("apt-get install", "dnf install", "pacman -S"):
        assert command in message
    assert f"python{sys.version_info.major}.{sys.version_info.minor}-dev" in message


@needs_a_compiler
def test_complete_tools_are_enough() -> None:
    done = build()
    assert (done.returncode, done.stderr) == (0, "")


def test_missing_compiler_is_named() -> None:
    done = build(CC="/nonexistent/cc")
    assert_names_the_packages(done, "a C compiler")
    assert "/nonexistent/cc" in done.stderr
    assert "gcc" in done.stderr


@pytest.mark.parametrize(
    ("header", "text", "owner", "reason"),
    [
        ("liburing.h", '#include "nowhere.h"', "liburing", "nowhere.h: No such file or directory"),
        ("liburing.h", "", "liburing", "liburing.h is empty"),
        ("liburing.h", "#define IORING_SETUP_IOPOLL 1", "liburing", "liburing.h is too old"),
        ("Python.h", '#include "nowhere.h"', "CPython", "nowhere.h: No such file or directory"),
        ("Python.h", "", "CPython", "Python.h is empty"),
        ("Python.h", "#define PY_VERSION_HEX 0x03050000", "CPython", "Python.h is of another version"),
    ],
)
@pytest.mark.parametrize("variable", ["CFLAGS", "CPPFLAGS"])
@needs_a_compiler
def test_headers_that_are_missing_empty_or_of_another_version_are_told_apart(
    tmp_path: Path, variable: str, header: str, text: str, owner: str, reason: str
) -> None:
    (tmp_path / header).write_text(f"{text}\n")
    done = build(**{variable: f"-I{tmp_path}"})
    assert_names_the_packages(done, f"the headers of {owner}")
    assert f"({reason})" in done.stderr
    assert "liburing-dev" in done.stderr


@pytest.mark.parametrize(("linked", "library"), [("shared", "liburing.so"), ("static", "liburing.a")])
@needs_a_compiler
def test_library_that_cannot_be_linked_is_named(tmp_path: Path, linked: str, library: str) -> None:
    (tmp_path / library).write_text("no library\n")
    done = build(LDFLAGS=f"-L{tmp_path}", TRIO_URING_LIBURING=linked)
    assert_names_the_packages(
        done, "liburing.so" if linked == "shared" else "a liburing.a that can be linked"
    )
    assert str(tmp_path / library) in done.stderr


def test_liburing_is_shared_or_static() -> None:
    done = build(TRIO_URING_LIBURING="none")
    assert (done.returncode, done.stderr) == (1, "TRIO_URING_LIBURING is shared or static, not 'none'\n")


@pytest.mark.parametrize(("name", "value"), [("platform", "darwin"), ("implementation.name", "pypy")])
def test_build_elsewhere_ends_with_one_sentence(name: str, value: str) -> None:
    program = f"import cffi, sys, runpy; sys.{name} = {value!r}; runpy.run_path({str(SOURCE / 'build.py')!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("trio-uring is for CPython on Linux")
    assert value in done.stderr


def test_wheel_gets_the_file_that_interpreters_read_as_they_start(tmp_path: Path) -> None:
    """And RECORD, so that it goes when the package is uninstalled."""
    sys.path.insert(0, str(ROOT / "start"))
    try:
        import backend
    finally:
        sys.path.remove(str(ROOT / "start"))
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as wheel:
        wheel.writestr("some/__init__.py", "")
        wheel.writestr("some.dist-info/RECORD", "some/__init__.py,,\nsome.dist-info/RECORD,,\n")
    assert backend._with_start_file(str(tmp_path), "some.whl") == "some.whl"
    with zipfile.ZipFile(tmp_path / "some.whl") as wheel:
        assert wheel.read(backend.START_FILE) == (ROOT / "start" / backend.START_FILE).read_bytes()
        assert wheel.namelist()[-1] == "some.dist-info/RECORD"
        lines = wheel.read("some.dist-info/RECORD").decode().splitlines()
    name, digest, size = lines[0].split(",")
    assert (name, int(size)) == (backend.START_FILE, (ROOT / "start" / backend.START_FILE).stat().st_size)
    assert digest.startswith("sha256=")
    assert lines[1:] == ["some/__init__.py,,", "some.dist-info/RECORD,,"]
