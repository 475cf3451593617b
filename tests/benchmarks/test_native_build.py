"""The C programs of the benchmarks are compiled when they have to be, and what is missing is named."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from load import failure, limit

from measure.programs import NativeBuildError, Programs, build

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
