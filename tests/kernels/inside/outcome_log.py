"""A plugin of pytest's: writes down at once that a test began and how it ended, for when pytest is cut."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

_WORKER = "PYTEST_XDIST_WORKER" in os.environ


def write(entry: dict[str, object]) -> None:
    with open(os.environ["OUTCOME_LOG"], "a") as log:
        log.write(json.dumps(entry) + "\n")


def pytest_collection_finish(session: pytest.Session) -> None:
    if os.environ.get("PYTEST_XDIST_WORKER") in (None, "gw0") and session.items:
        write({"collected": len(session.items)})


def pytest_runtest_logstart(nodeid: str) -> None:
    if not _WORKER:
        write({"began": nodeid})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test has up to three reports, of which one tells how it ended; or two, if its end fails as well."""
    if _WORKER or (report.when != "call" and report.outcome == "passed"):
        return
    message = str(report.longrepr)[-1500:] if report.failed else ""
    write({"test": report.nodeid, "outcome": report.outcome, "message": message})
