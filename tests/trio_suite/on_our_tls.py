"""A pytest plugin that has Trio's tests of SSLStream test ours, over any stream: most of them are about
streams in memory, which otherwise are left to Trio.

Without it the same tests show that those are, and that streams over sockets are as Trio's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trio_uring.loop.current import current_run
from trio_uring.sockets import tls

if TYPE_CHECKING:
    from trio_uring.loop.run import Run

_asked_for: set[type] = set()


def _run_for(transport: object) -> Run | None:
    _asked_for.add(type(transport))
    return None if transport is None else current_run()


tls.run_for = _run_for


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and not _asked_for:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    streams = ", ".join(sorted(one.__qualname__ for one in _asked_for))
    terminalreporter.write_line(f"SSLStreams were ours over {streams}")
