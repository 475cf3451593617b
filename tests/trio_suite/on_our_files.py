"""A pytest plugin that has Trio's tests of files and paths test ours.

They look the names up in the module `trio`, some when they are imported, so this
replaces them there, for the whole session: it is for these test files only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

import trio_uring

if TYPE_CHECKING:
    import pytest

REPLACED = ("Path",)

LEFT_OUT = {
    "test_instantiate_posix": "trio.Path makes a subclass for the platform; ours is for Linux and one class",
    "test_repr": "expects the name trio.Path",
}

for _name in REPLACED:
    setattr(trio, _name, getattr(trio_uring, _name))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if item.name in LEFT_OUT]
    assert len(left_out) == len(LEFT_OUT), "Trio has renamed a test that is left out"
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
