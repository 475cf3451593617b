"""The releases of Trio whose steps and scopes we know: those whose source text was read for this.

What C does in the place of Trio's loop, and what a lean scope leaves out, follows from every line of these
files. So it is their text that is compared, by a hash, and not what a function looks like from outside. A
release that is not listed, a text that somebody has changed, and a Trio without its source are unknown: runs
then make their steps as Trio does, and say so.

How a release is added: CONTRIBUTING.md.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from typing import Final

import trio

from ..loop.trio_internals import knows_reschedule, trio_run

_FILES: Final = ("_run", "_traps", "_instrumentation", "_ki")
"""The modules of ``trio._core`` that are compared."""

KNOWN: Final = {
    "0.29.0": "5a071c483bbf61c66d0d4567cd7bf6b3ab3f2623c887f66df047273864e0583c",
    "0.30.0": "957cea9dca37ea36a21ec0410bc1c477b36a0bdcc113ce0f88f8b88ab8e3495e",
    "0.31.0": "dd262c58450fdb9f18dc471a3ed392836d7316feb3b13177e6f70734dab64b0e",
    "0.32.0": "52f29050bc3eb1e3fb6136fb154f132a1328057343b0b70d1f1c660a3eebeab1",
    "0.33.0": "afa4c66f3901e18a52dfcb4c5f2039c1a812435e3dc08b09ba0cb018478b0df2",
    "0.34.0": "cff77a1c8fda7c3e08624f94a593946654d6596c547453e2cf0d8089f72fc8cf",
    "0.35.0": "cff77a1c8fda7c3e08624f94a593946654d6596c547453e2cf0d8089f72fc8cf",
}
"""The SHA-256 of the text of these files, one after the other, by the release."""


@functools.cache
def source_of(module: str) -> str | None:
    """The source text of a module that was imported; None if it has none."""
    spec = getattr(sys.modules.get(module), "__spec__", None)
    get_source = getattr(getattr(spec, "loader", None), "get_source", None)
    try:
        text = get_source(module) if get_source else None
    except (ImportError, OSError):
        return None
    return text if isinstance(text, str) else None


def is_known() -> bool:
    """Whether the text of this Trio is one of those that were read. Any thread."""
    return _digest() in KNOWN.values()


def why_unknown() -> str:
    """Why the steps of this Trio cannot be made by C; empty if they can. Any thread."""
    if _digest() is None:
        return f"the source of Trio {trio.__version__} is not at hand"
    if not is_known():
        return (
            f"Trio {trio.__version__} is not one of those that are known ({', '.join(KNOWN)}), or was changed"
        )
    if not knows_reschedule():
        return "somebody has replaced Runner.reschedule"
    return ""


@functools.cache
def _digest() -> str | None:
    texts = [source_of(f"{trio_run.__package__}.{name}") for name in _FILES]
    if None in texts:
        return None
    return hashlib.sha256("".join(text or "" for text in texts).encode()).hexdigest()
