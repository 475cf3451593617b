"""What several of the test files ask for."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import equivalence
import pytest
from equivalence import PATIENCE, failing_if_it_hangs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from measure.programs import Programs

pytest_plugins = ["pytester"]


def pytest_configure() -> None:
    equivalence.stderr = os.dup(2)  # which is not captured yet
    # A script starts its background jobs with SIGINT ignored; then no Ctrl-C would come.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def _garbage_of_this_module_alone() -> None:
    """What other modules left behind would make each `gc.collect()` of a test take seconds."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 11_000:
        pytest.skip(f"the hard limit of open files, {hard}, does not allow 11,000")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 11_000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """The C programs of the benchmarks."""
    from measure.programs import build

    return build(tmp_path_factory.mktemp("native"))


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test session was told by variables does not count for runs in this process."""
    monkeypatch.delenv("TRIO_URING_FALLBACK", raising=False)
    monkeypatch.delenv("TRIO_URING_DISABLE", raising=False)


@pytest.fixture
def no_hanging() -> Iterator[None]:
    with failing_if_it_hangs(3 * PATIENCE):
        yield


@pytest.fixture
def still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes for a `RingOptions.checkpoint_budget`, which is then used up by calls alone."""
    monkeypatch.setattr("trio_uring.loop.run._now", lambda: 0.0)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Reader and writer."""
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(fd)


@pytest.fixture
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a name of each kind but a file, which tests write anew each time."""
    monkeypatch.chdir(tmp_path)
    Path("directory").mkdir()
    Path("link to nowhere").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    return tmp_path


@pytest.fixture
def port() -> int:
    """One that nobody has at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        number: int = one.getsockname()[1]
    return number


unused_port = port  # another one
