"""The installed package once more, elsewhere, where parts of it can be broken."""

from __future__ import annotations

import shutil
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import distribution
from pathlib import Path

import trio_uring

# Where the package is installed to be edited, what is missing in the copy would be found there.
WITHOUT_EDITABLE = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in finder.__module__]
"""
PACKAGE = Path(trio_uring.__file__).parent


def copy_package(folder: Path) -> Path:
    """Returns what belongs into PYTHONPATH: a folder with the package as pip would install it."""
    site = folder / "site"
    copy = site / "trio_uring"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    data = distribution("trio-uring")
    information = site / f"trio_uring-{data.version}.dist-info"
    information.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        text = data.read_text(name) or data.read_text("PKG-INFO")
        assert text
        (information / name).write_text(text)
    (site / "sitecustomize.py").write_text(WITHOUT_EDITABLE)
    files = "".join(f"{file.relative_to(site)},,\n" for file in sorted(copy.rglob("*.*")))
    (information / "RECORD").write_text(files)
    return site


def extension(site: Path, name: str) -> Path:
    """The extension of this name that this Python loads; a checkout may have those of others, too."""
    files = [site / "trio_uring" / f"{name}{suffix}" for suffix in EXTENSION_SUFFIXES]
    return next(file for file in files if file.exists())
