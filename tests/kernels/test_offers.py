"""The table of what kernels offer has all that the doctor tells of, from the kernel on that brought it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from offers import expected

from trio_uring.ring.features import FEATURES, SETUP_FLAGS
from trio_uring.ring.opcodes import OPCODES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_uring.ring.features import Feature, SetupFlag
    from trio_uring.ring.opcodes import Opcode

ROWS: Final[dict[str, Sequence[SetupFlag | Feature | Opcode]]] = {
    "setup_flags": SETUP_FLAGS,
    "features": FEATURES,
    "operations": OPCODES,
}
# Debian's 5.10 has the io_uring of 5.15, but for the operations that are newer than unlinkat.
BACKPORTED = {"ext_arg", "rsrc_tags", "renameat", "unlinkat"}


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "6.18"])
def test_each_kernel_offers_what_is_not_newer_than_itself(kernel: str) -> None:
    states = expected(version(kernel))
    assert states.keys() == ROWS.keys()
    for group, rows in ROWS.items():
        assert states[group].keys() == {row.name for row in rows}
        for row in rows:
            is_there = version(row.since) <= version(kernel) or row.name in BACKPORTED
            assert (states[group][row.name] != "missing") is is_there, row.name
