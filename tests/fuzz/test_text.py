"""Text files decode any bytes as the standard library does: in any encoding, cut into reads and lines
anywhere, gone back to any position that was told.

tests/oracle/ tries all calls of all files on contents that make sense. Here the bytes need not."""

from __future__ import annotations

import io
import tempfile
from typing import Any

from fuzzing import fuzzed
from hypothesis import given
from hypothesis import strategies as st

import trio_uring

CHUNK = 8192
"""The standard library's, and ours."""
ENCODINGS = [
    "ascii", "big5", "cp1252", "cp932", "euc_jp", "euc_kr", "gb18030", "gbk", "hz", "iso2022_jp", "johab",
    "koi8_r", "latin_1", "mac_roman", "shift_jis", "shift_jis_2004", "utf_16", "utf_16_be", "utf_32",
    "utf_32_le", "utf_7", "utf_8", "utf_8_sig",
]  # fmt: skip
ERRORS = ["strict", "ignore", "replace", "backslashreplace", "surrogateescape"]
PIECES = ["\r", "\n", "\r\n", "é", "漢字", "😀", "\ufeff", "a"]

Call = tuple[str, int]
calls = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["read", "readline"]), st.integers(-1, 2 * CHUNK)),
        st.tuples(st.sampled_from(["read", "readline", "readlines"]), st.integers(-1, 3)),
        st.tuples(st.sampled_from(["tell", "next", "end"]), st.just(0)),
        st.tuples(st.just("seek"), st.integers(0, 3)),
    ),
    max_size=12,
)
parts = st.one_of(
    st.binary(max_size=40),
    st.lists(st.sampled_from(PIECES), max_size=20).map("".join),
    st.integers(CHUNK - 5, CHUNK + 5),
)


def contents(drawn: list[bytes | str | int], encoding: str) -> bytes:
    """Bytes as they are, text encoded, and a number for so many characters, up to the border of a chunk."""
    made = b""
    for part in drawn:
        if isinstance(part, bytes):
            made += part
        else:
            text = "x" * part if isinstance(part, int) else part
            made += text.encode(encoding, "replace")
    return made


def is_lost(error: BaseException) -> bool:
    """Whether the standard library says that it cannot tell or restore the position. Its arithmetic may fail
    for decoders that have states."""
    return isinstance(error, OSError | OverflowError | UnicodeError)


class Steps:
    """The calls, on the standard library's file."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        self.file = file
        self.cookies = [0]

    def make(self, name: str, argument: int) -> object:
        if name == "seek":
            self.file.seek(self.cookies[argument % len(self.cookies)])
            return None
        if name == "end":
            self.file.seek(0, io.SEEK_END)
            return None
        if name == "next":
            return self.file.readline()  # `next` would keep `tell` from answering
        if name == "tell":
            self.cookies.append(self.file.tell())
            return None
        return getattr(self.file, name)(argument)


async def make(file: Any, cookies: list[int], name: str, argument: int) -> object:
    """The same call on ours."""
    if name == "seek":
        await file.seek(cookies[argument % len(cookies)])
        return None
    if name == "end":
        await file.seek(0, io.SEEK_END)
        return None
    if name == "next":
        return await anext(aiter(file), "")
    if name == "tell":
        cookies.append(await file.tell())
        return None
    return await getattr(file, name)(argument)


@fuzzed
@given(
    drawn=st.lists(parts, max_size=4),
    encoding=st.sampled_from(ENCODINGS),
    errors=st.sampled_from(ERRORS),
    newline=st.sampled_from([None, "", "\n", "\r", "\r\n"]),
    program=calls,
)
def test_text_is_decoded_as_by_the_standard_library(
    drawn: list[bytes | str | int], encoding: str, errors: str, newline: str | None, program: list[Call]
) -> None:
    opening = {"encoding": encoding, "errors": errors, "newline": newline}

    async def main() -> None:
        async with await trio_uring.open_file(path, **opening) as ours:
            with open(path, **opening) as theirs:
                steps, cookies = Steps(theirs), [0]
                for name, argument in program:
                    said: object
                    try:
                        said = steps.make(name, argument)
                    except Exception as error:
                        if name in ("tell", "seek", "end") and is_lost(error):
                            return
                        said = type(error)
                    try:
                        got = await make(ours, cookies, name, argument)
                    except Exception as error:
                        got = type(error)
                    assert got == said, (name, argument)
                    if isinstance(said, type):
                        return

    with tempfile.NamedTemporaryFile() as temporary:
        temporary.write(contents(drawn, encoding))
        temporary.flush()
        path = temporary.name
        trio_uring.run(main)
