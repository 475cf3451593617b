"""What docs/architecture.md and CONTRIBUTING.md say of the code is so: the picture, the files and names that
they mention, the sessions, the words; and the links of all pages lead somewhere."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import picture
import pytest
from picture import PACKAGE, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

ARCHITECTURE = ROOT / "docs" / "architecture.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = sorted(
    path
    for folder in ("", "docs", "tests", "benchmarks", "deploy", "examples")
    for path in (ROOT / folder).glob("*.md")
)
_FILE = re.compile(r"[\w.]+(?:/[\w.]+)*/|(?:[\w.]+/)*\w[\w.]*\.(?:py|pyi|c|h|md|toml|sh)|noxfile\.py")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")


def of_page(page: Path) -> Iterator[str]:
    """What a page has between backticks, outside of blocks."""
    return iter(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)))


@cache
def sources() -> dict[Path, str]:
    """The code, by its files."""
    patterns = ("trio_uring/**/*.py", "trio_uring/*.pyi", "native/**/*.[ch]", "tests/**/*.py", "noxfile.py")
    here = Path(__file__)
    return {path: path.read_text() for pattern in patterns for path in ROOT.glob(pattern) if path != here}


def table(page: Path, heading: str) -> list[str]:
    """The first cells of the rows of the table below a heading."""
    section = page.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")]
    return rows[2:]


def anchors(page: Path) -> set[str]:
    """The names by which links reach the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# The picture


def test_the_picture_is_what_the_code_imports() -> None:
    assert picture.drawn() == picture.picture(picture.arrows()), "python docs/picture.py draws it anew"


def test_every_room_is_in_the_picture_and_in_the_table() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == set(picture.ROOMS)
    assert {room for arrow in picture.arrows() for room in arrow} == {*rooms, *picture.EXTENSIONS.values()}
    assert table(ARCHITECTURE, "The rooms") == [
        f"`{room}/`" for room in (*picture.ROOMS, "native", "native/python")
    ]


@pytest.mark.parametrize(
    ("line", "rooms"),
    [
        ("from ..loop.run import Run", {"loop"}),
        ("from ..ring import errors, opcodes", {"ring"}),
        ("from .. import lowlevel", {"lowlevel"}),
        ("from . import path", {"files"}),
        ("from .path import Path", {"files"}),
        ("from .._tasks import wake", {"native/python"}),
        ("from trio_uring._core import lib", {"native"}),
        ("import trio_uring.session.runs", {"session"}),
        ("def late():\n    from ..sockets import streams", {"sockets"}),
        ("if TYPE_CHECKING:\n    from ..command import doctor", {"command"}),
        ("import os\nfrom trio.socket import socket\nfrom .. import __version__", set()),
    ],
)
def test_an_import_is_seen_however_it_is_written(
    line: str, rooms: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture, "PACKAGE", tmp_path)
    source = tmp_path / "files" / "opening.py"
    source.parent.mkdir()
    source.write_text(line)
    assert picture.rooms_imported(source) == rooms


def test_an_arrow_is_dotted_where_a_longer_way_leads() -> None:
    drawn = picture.picture({("session", "loop"), ("loop", "ring"), ("session", "ring")})
    assert drawn.count("-.->") == 1
    assert '    session["session/"] -.-> ring["ring/"]\n' in drawn


# The pages


@pytest.mark.parametrize("page", [ARCHITECTURE, CONTRIBUTING], ids=lambda page: page.name)
def test_every_file_that_is_mentioned_exists(page: Path) -> None:
    files = {name for name in of_page(page) if _FILE.fullmatch(name)}
    assert len(files) > 30
    places = (ROOT, PACKAGE, ROOT / "tests")
    assert {name for name in files if not any((place / name).exists() for place in places)} == set()


@pytest.mark.parametrize("page", [ARCHITECTURE, CONTRIBUTING], ids=lambda page: page.name)
def test_every_name_that_is_mentioned_is_in_the_code(page: Path) -> None:
    names = {name for name in of_page(page) if _NAME.fullmatch(name) and not _FILE.fullmatch(name)}
    assert len(names) > 15
    sessions = set(table(CONTRIBUTING, "Set-up"))
    unknown = {
        name
        for name in names - {session.strip("`") for session in sessions}
        if not any(
            all(re.search(rf"\b{part}\b", text) for part in name.split(".")) for text in sources().values()
        )
    }
    assert unknown == set()


@pytest.mark.parametrize("page", [ARCHITECTURE, CONTRIBUTING], ids=lambda page: page.name)
def test_a_name_is_in_the_file_that_is_mentioned_beside_it(page: Path) -> None:
    beside = re.findall(r"`([A-Za-z_][\w.]*)`\s+(?:in |of |\()`([\w/]+\.(?:py|c|h))`", page.read_text())
    assert beside
    for name, file in beside:
        (path,) = {place / file for place in (ROOT, PACKAGE) if (place / file).exists()}
        for part in name.split("."):
            assert re.search(rf"\b{part}\b", path.read_text()), (name, file)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_folder_of_tests_has_one_line() -> None:
    text = (ROOT / "tests" / "README.md").read_text()
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/*.py")}
    assert sorted(re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE)) == sorted(folders)


def test_every_session_is_told_of() -> None:
    told = [session.strip("`") for session in table(CONTRIBUTING, "Set-up")]
    made = [
        node.name
        for node in ast.parse((ROOT / "noxfile.py").read_text()).body
        if isinstance(node, ast.FunctionDef)
        and any("nox.session" in ast.unparse(made) for made in node.decorator_list)
    ]
    assert sorted(told) == sorted(made)


def test_every_word_of_the_list_is_one_of_the_code() -> None:
    words = [word for cell in table(ARCHITECTURE, "Words") for word in cell.split(", ")]
    assert len(words) == len(set(words)) > 30
    code = "\n".join(
        re.sub(r"\n[ *#]*", " ", text)
        for path, text in sources().items()
        if path.is_relative_to(PACKAGE) or path.is_relative_to(ROOT / "native")
    )
    assert [word for word in words if not re.search(rf"\b{word}", code, re.IGNORECASE)] == []
