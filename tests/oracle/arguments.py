"""How files are opened, and the lengths that their methods are asked for: those around borders."""

from __future__ import annotations

from typing import Any

import attrs
from contents import BORDERS, binary
from hypothesis import strategies as st
from program import Opening

MODES = ["r", "r", "r", "r", "r+", "r+", "r+", "r+", "r+", "w", "w+", "a", "a+", "x", "x+"]
# utf-16 and utf-8-sig begin with a mark, iso2022_jp has states, the bytes of
# shift_jis' and gb18030's characters can look like ASCII.
ENCODINGS = [
    *("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "ascii"),
    *("shift_jis", "iso2022_jp", "gb18030"),
]
ERRORS = ["strict", "strict", "strict", "replace", "ignore", "surrogateescape"]
NEWLINES = [None, "", "\n", "\r", "\r\n"]
BUFFERINGS = [-1, 1, 2, 7, 64, 1000, 4 << 20]
HOLES = [0, 0, 0, 0, 5000, 70_000]


@attrs.frozen
class Border:
    """A length that ends some bytes behind the next border of a buffer that began at 0."""

    behind: int


@st.composite
def openings(draw: st.DrawFn) -> Opening:
    arguments: dict[str, Any] = {"mode": draw(st.sampled_from(MODES))}
    encoding = draw(st.sampled_from([*ENCODINGS, *[None] * 6]))
    if encoding is None:
        arguments["mode"] += "b"
        arguments["buffering"] = draw(st.sampled_from([0, 0, 7, 64, *BUFFERINGS]))
    else:
        arguments["buffering"] = draw(st.sampled_from(BUFFERINGS))
        arguments["encoding"] = encoding
        arguments["errors"] = draw(st.sampled_from(ERRORS))
        arguments["newline"] = draw(st.sampled_from(NEWLINES))
    exists = {"r": True, "x": False}.get(arguments["mode"][0])
    if exists is None:
        exists = draw(st.integers(0, 9)) != 9
    ways = ["name"] * 6 + ["opener", "appending", "descriptor"]
    if arguments["buffering"] == 0:
        ways += ["direct"] * 3
    # In pieces of a few bytes a hole takes too long.
    hole = draw(st.sampled_from(HOLES)) if arguments["buffering"] in (0, -1, 1000) else 0
    contents = draw(binary(encoding or "utf-8")) if exists else None
    return Opening(contents, arguments, draw(st.sampled_from(ways)), hole)


# Around the borders, where the mistakes are; and short, so as not to be at the end at once.
few = st.integers(0, 12)
near = st.builds(Border, st.integers(-2, 2))
far = st.builds(lambda border, more: max(0, border + more), st.sampled_from(BORDERS), st.integers(-3, 3))
lengths = st.one_of(few, few, near, near, far)
sizes = st.one_of(few, few, few, near, near, near, far, st.sampled_from([None, -1, 20_000, 200_000]))
wrong = st.sampled_from([1.5, "1", b"1", None, [1], ["a", b"b", 3], -5, 1 << 70])
