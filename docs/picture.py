"""The picture of the rooms in docs/architecture.md, made from what the code imports.

    python docs/picture.py      writes it anew

An arrow goes from a room to each room that one of its modules imports from, be it for types only; it is
dotted where a longer way leads to the same room. The two extension modules are rooms, too: ``_core`` is
native/, and ``_tasks`` is native/python/.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = ROOT / "trio_uring"
PAGE: Final = ROOT / "docs" / "architecture.md"
ROOMS: Final = ("command", "session", "files", "pipes", "sockets", "accelerate", "lowlevel", "loop", "ring")
EXTENSIONS: Final = {"_tasks": "native/python", "_core": "native"}
_FENCE: Final = re.compile(r"(?<=^```mermaid\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)

Arrows: TypeAlias = "set[tuple[str, str]]"


def rooms_imported(source: Path) -> set[str]:
    """The rooms that a module of ours imports from, its own among them."""
    package = ["trio_uring", *source.relative_to(PACKAGE).parent.parts]
    found = set()
    for name in _names_imported(ast.parse(source.read_text()), package):
        top, _, rest = name.partition(".")
        room = rest.split(".")[0]
        if top == "trio_uring" and (room in ROOMS or room in EXTENSIONS):
            found.add(EXTENSIONS.get(room, room))
    return found


def _names_imported(tree: ast.AST, package: list[str]) -> Iterator[str]:
    """The full names of all that is imported, wherever in the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def arrows() -> Arrows:
    """From each room to those that it imports from."""
    found = {
        (room, other)
        for room in ROOMS
        for source in (PACKAGE / room).rglob("*.py")
        for other in rooms_imported(source)
    }
    headers = {path.name for path in (ROOT / "native").glob("*.h")}
    for source in (ROOT / "native" / "python").glob("*.[ch]"):
        if headers.intersection(re.findall(r'^#include "(.+)"', source.read_text(), re.MULTILINE)):
            found.add(("native/python", "native"))
    return {(room, other) for room, other in found if room != other}


def picture(found: Arrows) -> str:
    """These arrows, as Mermaid draws them."""
    order = [*ROOMS, *EXTENSIONS.values()]
    lines = ["graph TD\n"]
    for room, other in sorted(found, key=lambda arrow: (order.index(arrow[0]), order.index(arrow[1]))):
        line = "-.->" if _is_reached(room, other, found - {(room, other)}) else "-->"
        lines.append(f"    {_node(room)} {line} {_node(other)}\n")
    return "".join(lines)


def _is_reached(room: str, goal: str, found: Arrows) -> bool:
    """Whether a way of these arrows leads from a room to another."""
    return any(
        start == room and (end == goal or _is_reached(end, goal, found - {(start, end)}))
        for start, end in found
    )


def _node(room: str) -> str:
    return f'{room.replace("/", "_")}["{room}/"]'


def drawn() -> str:
    """The picture that the page has."""
    found = _FENCE.search(PAGE.read_text())
    assert found is not None
    return found[0]


def main() -> None:
    PAGE.write_text(_FENCE.sub(lambda _: picture(arrows()), PAGE.read_text(), count=1))


if __name__ == "__main__":
    main()
