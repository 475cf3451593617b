"""A pytest plugin that has Trio's tests of files and paths test ours.

In those two modules the name `trio` stands for Trio with our names, from their import
on; nowhere else, since ours call Trio's. What they expect to be an `AsyncIOWrapper`
may be one of our files as well.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio

import trio_uring
from trio_uring.files.async_file import AsyncFile

OURS = {name: getattr(trio_uring, name) for name in ("Path", "open_file", "wrap_file")}
THEIRS = {name: getattr(trio, name) for name in OURS}

LEFT_OUT = {
    "test_instantiate_posix": "trio.Path makes a subclass for the platform; ours is for Linux and one class",
    "test_repr": "expects the name trio.Path",
}

vars(trio).update(OURS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    vars(trio).update(THEIRS)
    modules = {node.obj for item in items if (node := item.getparent(pytest.Module))}
    for module in modules:
        module.trio = SimpleNamespace(**{**vars(trio), **OURS})
        module.AsyncIOWrapper = (module.AsyncIOWrapper, AsyncFile)
    left_out = [item for item in items if item.name in LEFT_OUT]
    assert len(left_out) == len(LEFT_OUT), "Trio has renamed a test that is left out"
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
