"""What the tests of operations ask for."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest
from comparison import make_tree
from in_flight import Pipe
from trio._core import _thread_cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def threads() -> None:
    """For tests whose calls move the position of a file, which only a thread can."""


@pytest.fixture(autouse=True)
def _no_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "threads" in request.fixturenames:
        return

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a thread was started")

    monkeypatch.setattr(_thread_cache.ThreadCache, "start_thread_soon", refuse)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    with Pipe() as pipe:
        yield pipe


@pytest.fixture
def same_descriptors() -> Iterator[None]:
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_tree()
    return tmp_path
