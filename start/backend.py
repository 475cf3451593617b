"""The build backend: setuptools, whose wheels get the file that an interpreter reads as it starts.

Setuptools has no place for one: what it calls data goes to another folder, and not into a wheel
of ``pip install -e``. So the wheel is written once more, with that file beside the package and in
RECORD. Both kinds of wheel are for one version of CPython, so each has the file that is the
better one there:

- ``trio_uring.pth``, whose line an interpreter executes, and which costs 0.02 ms where there is
  nothing to do. CPython 3.18 will execute no such lines any more.
- ``trio_uring.start`` names a function. CPython 3.15 to 3.17 read it as well, but they import
  pkgutil to call that, which takes every process 4 ms.
"""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

_HERE = Path(__file__).resolve().parent
START_FILE = "trio_uring.start" if sys.version_info >= (3, 18) else "trio_uring.pth"


def build_wheel(folder: str, *arguments: Any) -> str:
    return _with_start_file(folder, build_meta.build_wheel(folder, *arguments))


def build_editable(folder: str, *arguments: Any) -> str:
    return _with_start_file(folder, build_meta.build_editable(folder, *arguments))


def _with_start_file(folder: str, name: str) -> str:
    """Adds it to the wheel of this name, and returns the name."""
    wheel = Path(folder, name)
    finished = wheel.with_suffix(".finished")
    data = (_HERE / START_FILE).read_bytes()
    with zipfile.ZipFile(wheel) as before, zipfile.ZipFile(finished, "w", zipfile.ZIP_DEFLATED) as after:
        for entry in before.infolist():
            content = before.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                after.writestr(START_FILE, data)
                content = _line_of_record(data) + content
            after.writestr(entry, content)
    finished.replace(wheel)
    return name


def _line_of_record(data: bytes) -> bytes:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{START_FILE},sha256={digest},{len(data)}\n".encode()


__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]
