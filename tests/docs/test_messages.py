"""Each message that the package says to its users is on the page of troubles, with what to do.

The messages are read from the code: the texts of exceptions that are ours, and of warnings. What a name of
Trio's or of the standard library's raises there in the same words is left out: `TRIOS` says why.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest
from picture import PACKAGE, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = re.sub(r"\s+", " ", (ROOT / "docs" / "troubleshooting.md").read_text())
_SAYING = {
    "UringUnavailableError",
    "UringFallbackWarning",
    "RuntimeError",
    "OSError",
    "TypeError",
    "ValueError",
    "BlockingIOError",
    "_Misused",
}
# The TypeErrors and ValueErrors of these modules are ours, as those of options. In all others only our own
# exceptions and RuntimeErrors count: a TypeError or ValueError of a call is the standard library's.
_OPTIONS = {"ring/options.py", "session/settings.py", "session/runs.py", "command/command_line.py"}
_STATEMENTS = (ast.Return, ast.Assign, ast.AugAssign, ast.AnnAssign)
_RETURNING = {
    "ring/locked_memory.py",
    "ring/native.py",
    "ring/refusals.py",
    "sockets/acceptor.py",
    "sockets/connection.py",
}
"""Modules in which functions return or put together the reason of a refusal."""
_ALONE = {"files/position.py": "BlockingIOError", "sockets/receive_buffers.py": "OSError"}
TRIOS = {
    "must be called from async context": "Trio's own words, for a call outside of a run",
}


def template(node: ast.expr) -> str:
    """A text with ``{}`` where the code puts values in; empty if it is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) or "{}" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + (template(node.right) or "{}")
    return ""


def messages() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                kind = node.func.id
                ours = kind.startswith("Uring") or kind == "RuntimeError" or name in _OPTIONS
                ours = ours or _ALONE.get(name) == kind
                texts = node.args if kind in ("UringUnavailableError", "OSError") else node.args[:1]
                if kind in _SAYING and ours:
                    yield from ((name, template(text)) for text in texts)
            elif name in _RETURNING and isinstance(node, _STATEMENTS) and node.value:
                parts = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
                yield from ((name, template(text)) for text in parts)
    yield "session/fallback.py", "This runs on epoll, not on io_uring: {}. {}"
    yield "ring/errors.py", "io_uring cannot be used here: {}. {}"


MESSAGES = sorted(
    {(name, text) for name, text in messages() if len(re.sub(r"\{\}", "", text)) > 12 and " " in text}
)


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 40
    assert {name for name, _ in MESSAGES} >= _OPTIONS | _RETURNING | {"ring/opening.py", "loop/run.py"}


@pytest.mark.parametrize(("name", "text"), MESSAGES, ids=[text[:40] for _, text in MESSAGES])
def test_message_is_on_the_page(name: str, text: str) -> None:
    if text in TRIOS:
        return
    parts = [re.escape(re.sub(r"\s+", " ", part).strip(" .;:,")) for part in text.split("{}")]
    pattern = r".{0,120}?".join(part for part in parts if part)
    assert re.search(pattern, PAGE), f"docs/troubleshooting.md does not tell of this one of {name}: {text}"
