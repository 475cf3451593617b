"""Makes a release, up to the upload: ``nox -s release -- VERSION``, with the arguments of wheels.py.

Writes the version and the changelog's date, makes, checks and tries what goes to PyPI (wheels.py),
and only then commits the two files and tags the commit. If anything fails, they are as they were.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
from typing import TYPE_CHECKING

import wheels
from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    from pathlib import Path

CHANGELOG = "CHANGELOG.md"
PACKAGE = "trio_uring/__init__.py"
UNRELEASED = re.compile(r"^## Unreleased$", re.MULTILINE)
VERSION = re.compile(r'^__version__ = ".*"$', re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes a release, up to the upload.")
    parser.add_argument("version")
    parser.add_argument("--manylinux", action="store_true")
    parser.add_argument("interpreters", nargs="*", metavar="PYTHON")
    arguments = parser.parse_args()
    version, root = arguments.version, wheels.ROOT
    check(root, version)
    before = {name: (root / name).read_text() for name in (CHANGELOG, PACKAGE)}
    try:
        write(root, version, datetime.datetime.now(datetime.timezone.utc).date())
        wheels.make(arguments.interpreters, manylinux=arguments.manylinux)
    except BaseException:
        for name, text in before.items():
            (root / name).write_text(text)
        raise
    git(root, "commit", "--quiet", "-m", f"Release {version}", "--", *before)
    git(root, "tag", "-a", f"v{version}", "-m", f"trio-uring {version}")
    print(f"dist/ and the tag v{version} are ready. See docs/releasing.md for what is next")


def check(root: Path, version: str) -> None:
    """Ends with a sentence where no release of this version can be made."""
    try:
        new = Version(version)
    except InvalidVersion as error:
        raise SystemExit(f"{error}: a version is, for example, 1.2.3 or 1.2.3rc1") from None
    if str(new) != version:
        raise SystemExit(f"as a version, {version} is written {new}")
    tags = [tag.removeprefix("v") for tag in git(root, "tag", "--list", "v[0-9]*").splitlines()]
    if tags and new <= (last := max(map(Version, tags))):
        raise SystemExit(f"{last} is released already, and {version} is not newer")
    if changed := git(root, "status", "--porcelain"):
        raise SystemExit(f"these are not committed:\n{changed}")
    text = (root / CHANGELOG).read_text()
    sections = UNRELEASED.split(text)
    if len(sections) != 2 or not sections[1].lstrip().startswith("- "):
        raise SystemExit(f"{CHANGELOG} needs one section '## Unreleased', with what has changed")


def write(root: Path, version: str, date: datetime.date) -> None:
    """The version into the package, and the changelog's section gets version and date."""
    for name, pattern, line in (
        (CHANGELOG, UNRELEASED, f"## {version} ({date.isoformat()})"),
        (PACKAGE, VERSION, f'__version__ = "{version}"'),
    ):
        text, count = pattern.subn(line, (root / name).read_text())
        if count != 1:
            raise SystemExit(f"{name} has no line that says its version")
        (root / name).write_text(text)


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


if __name__ == "__main__":
    main()
