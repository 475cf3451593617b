"""The build says in one sentence what is missing and how to install it; what is in a wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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


def test_complete_tools_are_enough() -> None:
    done = build()
    assert (done.returncode, done.stderr) == (0, "")


def test_missing_compiler_is_named() -> None:
    done = build(CC="/nonexistent/cc")
    assert_names_the_packages(done, "a C compiler")
    assert "/nonexistent/cc" in done.stderr
    assert "gcc" in done.stderr


def test_missing_headers_are_named(tmp_path: Path) -> None:
    (tmp_path / "liburing.h").write_text('#include "nowhere/liburing.h"\n')
    done = build(CFLAGS=f"-I{tmp_path}")
    assert_names_the_packages(done, "the headers of liburing")
    assert "liburing-dev" in done.stderr


def test_headers_that_are_too_old_are_named(tmp_path: Path) -> None:
    (tmp_path / "liburing.h").write_text("struct io_uring;\n")
    done = build(CPPFLAGS=f"-I{tmp_path}")
    assert_names_the_packages(done, "the headers of liburing")
    assert "too old" in done.stderr


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
