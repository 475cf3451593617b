"""The C programs of the benchmarks are compiled when they have to be, and what is missing is named."""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest
from load import failure, limit

from measure.programs import NativeBuildError, Programs, build, default_folder

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_up_to_date_is_not_compiled(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = programs.load.parent.parent
    before = programs.load.stat()
    if programs.tls:
        monkeypatch.setattr(subprocess, "run", None)
    assert build(folder) == programs
    assert programs.load.stat() == before
    monkeypatch.undo()
    monkeypatch.setenv("CFLAGS", "-DANOTHER_KEY")
    assert build(folder).load != programs.load


@pytest.mark.parametrize(
    ("variable", "value", "package"),
    [("CC", "/nonexistent/cc", "gcc"), ("CFLAGS", "-I{}", "liburing-dev")],
)
def test_what_the_build_misses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, package: str
) -> None:
    (tmp_path / "liburing.h").write_text('#include "nowhere/liburing.h"\n')
    monkeypatch.setenv(variable, value.format(tmp_path))
    with pytest.raises(NativeBuildError, match=f"apt-get install .*{package}"):
        build(tmp_path / "programs")


def test_without_libssl_tls_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "openssl").mkdir()
    (tmp_path / "openssl" / "ssl.h").write_text('#include "nowhere/ssl.h"\n')
    monkeypatch.setenv("CFLAGS", f"-I{tmp_path}")
    programs = build(tmp_path / "programs")
    assert not programs.tls
    with limit(programs, "echo") as port:
        assert "libssl-dev" in failure(programs, "echo", port, tls="1.3")


@pytest.mark.parametrize("what", ["a link to a folder of ours", "one that others may write to"])
def test_programs_are_not_run_from_a_folder_that_others_may_have_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = default_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert default_folder() == folder
    if "link" in what:
        folder.rename(tmp_path / "ours")
        folder.symlink_to("ours")
    else:
        os.chmod(folder, 0o770)
    with pytest.raises(NativeBuildError, match="not the user's alone"):
        default_folder()
