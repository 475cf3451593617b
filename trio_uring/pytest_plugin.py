"""A pytest plugin: ``--trio-uring``, or ``trio_uring = true`` in the ini file, puts
every Trio run of the session on io_uring, whoever makes it: pytest-trio, anyio's
plugin or the tests themselves. The options come from the environment (session/settings.py). A session
whose environment has TRIO_URING=1 is on io_uring as well (session/children.py).

pytest loads the plugin wherever trio-uring is installed. Unless io_uring is asked for, it imports
neither Trio nor the core, and a session is as it would be without it.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack

import pytest

from .session import children

_HEADER = pytest.StashKey[str]()
_ON_EPOLL = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    help_text = "run Trio on io_uring in this session (trio-uring)"
    parser.getgroup("trio").addoption("--trio-uring", action="store_true", help=help_text)
    parser.addini("trio_uring", help_text, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--trio-uring") or config.getini("trio_uring") or children.told():
        try:
            _install(config)
        except (ImportError, RuntimeError, ValueError) as error:
            raise pytest.UsageError(f"--trio-uring: {error}") from error


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [config.stash[_HEADER]] if _HEADER in config.stash else []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says at the end that Trio was on epoll, where the header was not shown."""
    if _ON_EPOLL in config.stash and (config.get_verbosity() < 0 or config.getoption("no_header")):
        terminalreporter.write_line(config.stash[_HEADER])


def _install(config: pytest.Config) -> None:
    from .command import capabilities
    from .ring import errors
    from .session import runs

    # The header says it instead.
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.UringFallbackWarning)
        stack.enter_context(runs.installed())
        found = capabilities.capabilities()
        config.add_cleanup(stack.pop_all().close)
    if found.usable:
        where = f"Trio runs on io_uring ({', '.join(found.used)})"
    else:
        where = f"Trio runs on epoll, not on io_uring: {found.reason}"
        config.stash[_ON_EPOLL] = True
    config.stash[_HEADER] = f"trio-uring {found.trio_uring}: {where}"
