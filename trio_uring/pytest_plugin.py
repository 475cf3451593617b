"""A pytest plugin: ``--trio-uring``, or ``trio_uring = true`` in the ini file, puts
every Trio run of the session on io_uring. Off otherwise."""

from __future__ import annotations

import pytest

from . import session
from .options import RingOptions


def pytest_addoption(parser: pytest.Parser) -> None:
    help_text = "run Trio on io_uring in this session (trio-uring)"
    parser.getgroup("trio").addoption("--trio-uring", action="store_true", help=help_text)
    parser.addini("trio_uring", help_text, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--trio-uring") or config.getini("trio_uring"):
        session.install(RingOptions())
        config.add_cleanup(session.uninstall)


