"""The benchmarks' sides are what their labels say on a kernel that has all."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _nothing_is_switched_off(plain_environment: None) -> None:
    """A side that works by less than its label says is refused, as it has to be."""
