"""A pytest plugin that fails the session unless every Trio run of it was on io_uring.

The suite would pass on epoll as well, so passing says nothing about the backend.
Counted are the I/O managers that are made in this process: ours, and Trio's own.
Child processes that a test starts are plain Python, as everywhere.
"""

from __future__ import annotations

from collections import Counter
from functools import wraps
from typing import TYPE_CHECKING

import pytest
from trio._core._io_epoll import EpollIOManager

from trio_uring.loop.manager import UringManager

if TYPE_CHECKING:
    from collections.abc import Callable

_made: Counter[str] = Counter()


def _count(manager: type, backend: str) -> None:
    original: Callable[..., None] = manager.__init__  # type: ignore[misc]

    @wraps(original)
    def counting(self: object, *args: object, **kwargs: object) -> None:
        _made[backend] += 1
        original(self, *args, **kwargs)

    manager.__init__ = counting  # type: ignore[misc]


_count(UringManager, "io_uring")
_count(EpollIOManager, "epoll")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and (_made["epoll"] or not _made["io_uring"]):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"Trio runs on io_uring: {_made['io_uring']}, on epoll: {_made['epoll']}")
