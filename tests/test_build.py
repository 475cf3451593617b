"""The build says in one sentence what is missing and how to install it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "native"

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
