"""What several of the test files ask for."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["pytester"]


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 11_000:
        pytest.skip(f"the hard limit of open files, {hard}, does not allow 11,000")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 11_000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
