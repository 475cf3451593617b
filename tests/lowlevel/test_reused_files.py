"""An operation is for the file that it was asked for: not for whatever has its descriptor's number by
the time that the kernel is entered."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from page_cache import find_nothing
from steps import interrupted

import trio_uring
from trio_uring import lowlevel
from trio_uring.ring.features import has_operation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


QUEUED: dict[str, Callable[[Any], Awaitable[object]]] = {
    "read": lambda file: lowlevel.read(file, bytearray(5), 0),
    "write": lambda file: lowlevel.write(file, b"12345", 0),
    "readv": lambda file: lowlevel.readv(file, [bytearray(5)], 0),
    "writev": lambda file: lowlevel.writev(file, [b"12345"], 0),
    "ftruncate": lambda file: lowlevel.ftruncate(file, 0),
    "fallocate": lambda file: lowlevel.fallocate(file, 0, 0, 100),
}


@pytest.mark.parametrize("name", QUEUED)
def test_what_is_queued_for_a_file_that_is_closed_meanwhile_is_for_no_other(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its descriptor's number is another file's in the same tick, before the kernel is entered."""
    if name == "ftruncate" and not has_operation(name):
        pytest.skip("this kernel has no such operation")
    ours, others = tmp_path / "ours", tmp_path / "others"
    for path in (ours, others):
        path.write_bytes(b"contents")
    find_nothing(monkeypatch)

    async def main() -> None:
        with ours.open("r+b") as file, others.open("r+b") as other:
            number = file.fileno()

            def reuse() -> None:
                file.close()
                os.dup2(other.fileno(), number)

            with pytest.raises(OSError, match="Bad file descriptor"):
                await interrupted(QUEUED[name](file), reuse)
            os.close(number)

    trio_uring.run(main)
    assert others.read_bytes() == b"contents"


def test_neither_side_of_a_splice_is_another_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"contents")

    async def main() -> None:
        for closed in ("source", "destination"):
            with path.open("rb") as source, path.open("rb") as other:
                reader, writer = os.pipe()
                with open(reader, "rb"), open(writer, "wb") as destination:
                    file = source if closed == "source" else destination
                    number = file.fileno()

                    def reuse(file: Any = file, number: int = number, other: Any = other) -> None:
                        file.close()
                        os.dup2(other.fileno(), number)

                    with pytest.raises(OSError, match="Bad file descriptor"):
                        await interrupted(lowlevel.splice(source, destination, 5, source_offset=0), reuse)
                    os.close(number)

    trio_uring.run(main)


POSITIONLESS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "pread": lambda file: file.pread(5, 0),
    "pread_into": lambda file: file.pread_into(bytearray(5), 0),
    "pwrite": lambda file: file.pwrite(b"12345", 0),
    "fsync": lambda file: file.fsync(),
    "fdatasync": lambda file: file.fdatasync(),
}


@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("name", POSITIONLESS)
def test_what_a_file_is_asked_for_out_of_turn_is_of_no_other_file(
    name: str, buffering: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    for path in (ours, others):
        path.write_bytes(b"contents")
    find_nothing(monkeypatch)

    async def main() -> None:
        file = await trio_uring.open_file(ours, "r+b", buffering)
        number = file._own_fileno()

        def reuse() -> None:
            close_now(file)
            assert os.open(others, os.O_RDWR) == number

        with pytest.raises(ValueError, match="closed file"):
            await interrupted(POSITIONLESS[name](file), reuse)
        os.close(number)

    trio_uring.run(main)
    assert others.read_bytes() == b"contents"


def close_now(file: Any) -> None:
    """As far as the first checkpoint of ``aclose``."""
    closing = file.aclose()
    closing.send(None)
    closing.close()
