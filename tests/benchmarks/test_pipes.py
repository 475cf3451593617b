"""The pipes group: each side sends messages there and back, on the backend of its label, and what comes back
wrong is an error."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from groups import pipes
from groups.plan import SCALES
from measure.processes import ChildError
from sides.packages import missing
from sides.runtimes import RUNTIMES, TRIO

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("side", pipes.SIDES)
@pytest.mark.parametrize("work", pipes.WORK)
def test_each_side_measures_on_its_backend(side: str, work: str) -> None:
    if reason := missing(side):
        pytest.skip(reason)
    measured, seen = pipes.Exchange(side, work, 0.01).measure()
    assert all(measured[name] > 0 for name in ("rate", "per_cpu_second", "peak_rss"))
    assert f"its loop says {RUNTIMES[side].backend!r}" in seen


LIAR = f"""#!{sys.executable}
import os
while data := os.read(0, 65536):
    os.write(1, b"x" * len(data))
"""


@pytest.mark.parametrize("side", ["trio-epoll", "trio-uring", "asyncio"])
def test_a_wrong_reply_is_an_error(side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    liar = tmp_path / "cat"
    liar.write_text(LIAR)
    liar.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ChildError, match="ReplyError"):
        pipes.Exchange(side, "child", 0.01).measure()


def test_a_side_that_is_not_installed_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "missing", lambda side: "not there" if side not in TRIO else "")
    for planned in pipes.plan(SCALES["smoke"]):
        assert {planned.case.series[side].failure for side in ("asyncio", "uvloop")} == {"not there"}
        assert set(planned.jobs) == {"trio-epoll", "trio-uring", "trio-uring-budget"}
