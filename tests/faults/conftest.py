"""The library that stands before liburing, for all tests of this folder."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from injector import build, compiler, obstacle

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which(compiler()[0]):
        pytest.skip("there is no compiler here")
    library = build(tmp_path_factory.mktemp("injector"))
    if reason := obstacle(library):
        pytest.skip(reason)
    return library
