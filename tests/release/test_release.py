"""What a release writes, and when it is refused; that of a whole one is `nox -s release`."""

from __future__ import annotations

import datetime
import subprocess
from typing import TYPE_CHECKING

import pytest

import release

if TYPE_CHECKING:
    from pathlib import Path

CHANGELOG = "# Changelog\n\n## Unreleased\n\n- New.\n\n## 1.0.0 (2025-01-01)\n\n- Old.\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository whose last release is 1.0.0."""
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "trio_uring").mkdir()
    (tmp_path / "trio_uring" / "__init__.py").write_text('"""Some."""\n\n__version__ = "1.0.0"\n')
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    git(tmp_path, "tag", "v1.0.0")
    return tmp_path


def git(root: Path, *arguments: str) -> None:
    who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@localhost")
    subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, timeout=60)


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "Some")


def test_version_and_date_are_written(root: Path) -> None:
    release.check(root, "1.1.0")
    release.write(root, "1.1.0", datetime.date(2026, 1, 31))
    assert (root / "trio_uring" / "__init__.py").read_text() == '"""Some."""\n\n__version__ = "1.1.0"\n'
    assert (root / "CHANGELOG.md").read_text() == CHANGELOG.replace("Unreleased", "1.1.0 (2026-01-31)")


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("one", "a version is, for example"),
        ("1.1.0-rc1", "is written 1.1.0rc1"),
        ("1.0.0", "1.0.0 is released already"),
        ("0.9", "1.0.0 is released already"),
    ],
)
def test_wrong_version_is_refused(root: Path, version: str, reason: str) -> None:
    with pytest.raises(SystemExit, match=reason):
        release.check(root, version)


def test_what_is_not_committed_is_refused(root: Path) -> None:
    (root / "new").write_text("")
    with pytest.raises(SystemExit, match="not committed"):
        release.check(root, "1.1.0")


@pytest.mark.parametrize(
    "text", ["# Changelog\n", "## Unreleased\n\n## 1.0.0\n\n- Old.\n", "## Unreleased\n"]
)
def test_nothing_new_in_the_changelog_is_refused(root: Path, text: str) -> None:
    (root / "CHANGELOG.md").write_text(text)
    commit(root)
    with pytest.raises(SystemExit, match="## Unreleased"):
        release.check(root, "1.1.0")
