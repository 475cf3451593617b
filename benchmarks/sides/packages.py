"""The packages of others that are measured, one of which an interpreter may not have.

Not every one has a wheel for every CPython. A side whose package is missing is left out of each
case, which the report tells where it stands.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

PACKAGES = {
    "uvloop": "uvloop",
    "rloop": "rloop",
    "blazio": "blazio",
    "aiofastnet": "aiofastnet",
    "anyio": "anyio",
    "aiofiles": "aiofiles",
    "aiofile": "aiofile",
    "turbofile": "turbofile",
    "asyncfiles": "py-asyncfiles",
}
"""What a side, or the runtime of one, is installed by."""


def missing(side: str) -> str:
    """Why the side, or runtime, cannot be measured; empty if it can, as far as packages go."""
    package = PACKAGES.get(side)
    return f"{package} is not installed" if package and not installed(package) else ""


def installed(package: str) -> str:
    """The version; empty where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
