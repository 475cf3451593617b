"""What is in the files, and what is written to them: awkward at every border of a buffer."""

from __future__ import annotations

import codecs
from functools import lru_cache

from hypothesis import strategies as st

# Borders of the standard library's chunks of text, of the blocks of most file systems,
# of the small bufferings, and of what is read ahead at once elsewhere.
BORDERS = [0, 2, 7, 64, 1000, 4096, 8192, 16384, 24576]
FAR_BORDERS = [65536, 131072]

CHARACTERS = [
    *("\n", "\r", "\r\n", "\r\r\n", "\n\r", "\r\r", "a", "b\n", "\t", "\0"),
    *("é", "e\u0301", "漢字", "ア", "€", "😀", "\ufeff", "\x85", "\u2028", "\udc80"),
]
# Beginnings of characters, bytes that are in none, marks and shifts where they do not belong.
BROKEN = [
    *(b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f", b"\x80", b"\x81", b"\x81\x30"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x00\xd8", b"\x1b$B", b"\x1b(B", b"\x1b", b"\x00"),
]
FILLERS = ["a", "abc\n", "line of text\r\n", "ab\r", "é\n", "漢字\r\n", "😀", "\n"]

pieces = st.one_of(st.sampled_from(CHARACTERS), st.sampled_from(BROKEN))
borders = st.sampled_from(BORDERS * 4 + FAR_BORDERS)
places = st.lists(st.tuples(borders, st.integers(0, 6), st.lists(pieces, min_size=1, max_size=4)), max_size=4)


@st.composite
def binary(draw: st.DrawFn, encoding: str = "utf-8") -> bytes:
    """A file's contents: filler, with pieces that begin a few bytes before some of the borders."""
    encoder = codecs.getincrementalencoder(encoding)("replace")
    filler = draw(st.sampled_from(FILLERS))
    made = bytearray()
    for border, before, inserted in sorted(draw(places), key=lambda place: place[0]):
        missing = border - before - len(made)
        if missing > 0:
            made += encoder.encode(filler * (missing // _size(encoding, filler)))
            made += encoder.encode("x" * ((border - before - len(made)) // _size(encoding, "x")))
        for piece in inserted:
            made += encoder.encode(piece) if isinstance(piece, str) else piece
    made += encoder.encode(filler * draw(st.sampled_from([20, 20, 0, 1, 5000])))
    return bytes(made)


repetitions = st.sampled_from([1, 1, 1, 1, 2, 9, 700, 5000])
texts = st.builds(
    lambda parts, times: "".join(parts) * times,
    st.lists(st.sampled_from(CHARACTERS), max_size=5),
    repetitions,
)
chunks = st.builds(
    lambda parts, times: b"".join(parts) * times,
    st.lists(st.one_of(st.sampled_from(BROKEN), st.binary(max_size=12)), max_size=5),
    repetitions,
)


@lru_cache
def _size(encoding: str, text: str) -> int:
    """Bytes that more of the text takes, the mark at the beginning left out."""
    encoder = codecs.getincrementalencoder(encoding)("replace")
    encoder.encode(text)
    return len(encoder.encode(text)) or 1
