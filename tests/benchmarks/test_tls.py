"""The tls group has each of its sides in each case, measured or named with what it lacks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

for module in ("trustme", "hypercorn", "httpx"):
    pytest.importorskip(module)

from groups import tls  # noqa: E402
from groups.plan import SCALES, Planned  # noqa: E402
from measure.programs import Programs  # noqa: E402
from sides import packages  # noqa: E402


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Planned]:
    monkeypatch.setattr(tls, "programs", lambda: Programs(Path(), Path(), tls=True))
    return tls.plan(SCALES["full"])


def test_cases(planned: list[Planned]) -> None:
    names = [one.case.name for one in planned]
    for size in ("64 B", "64 KiB"):
        for count in ("1 connection", "50 connections", "500 connections"):
            assert f"echo, TLS 1.3, {size}, {count}" in names
        assert f"echo, TLS 1.2, {size}, 50 connections" in names
    assert [name.split()[0] for name in names if "handshake" in name] == ["full", "resumed"]
    assert [name.split(", ")[1] for name in names if "hypercorn" in name] == ["HTTP/1.1", "HTTP/2"]
    assert sum("httpx" in name for name in names) == 1
    assert len(names) == len(set(names)) == 13


def test_each_side_is_measured_or_says_why_not(planned: list[Planned]) -> None:
    for one in planned:
        reasons = {side: series.failure for side, series in one.case.series.items()}
        assert {*one.jobs, *reasons} >= {*tls.SIDES}
        assert not {*one.jobs} & {*reasons}
        assert reasons["rloop"] == "rloop does not support TLS"


def test_a_side_whose_package_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, planned: list[Planned]
) -> None:
    monkeypatch.setitem(packages.PACKAGES, "blazio", "no-such-package")
    for one in tls.plan(SCALES["full"]):
        assert "blazio" not in one.jobs
        assert one.case.series["blazio"].failure == "no-such-package is not installed"
    assert planned


def test_without_openssl_the_native_load_generator_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "programs", lambda: Programs(Path(), Path(), tls=False))
    for one in tls.plan(SCALES["full"]):
        if one.case.name.startswith(("echo", "full", "resumed")):
            assert not one.jobs
            assert "libssl-dev" in one.case.series["asyncio"].failure
        else:
            assert one.jobs or not shutil.which("wrk")
