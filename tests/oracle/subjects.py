"""What is compared with the standard library, and where it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from equivalence import EPOLL, URING

import trio_uring

if TYPE_CHECKING:
    from calls import OpenFile
    from equivalence import Backend


@attrs.frozen
class Subject:
    name: str
    backend: Backend
    open_file: OpenFile
    examples: int = 300
    iterates_by_readline: bool = False


# A line of 100 KB through a buffer of two bytes is 50,000 calls: 15 s through threads, 2 s through a ring.
PATIENCE = 600

# Trio's has to pass: that proves the tests, not Trio.
TRIO = Subject("trio", EPOLL, trio.open_file, examples=40, iterates_by_readline=True)
SUBJECTS = [
    TRIO,
    Subject(
        "io_uring",
        attrs.evolve(URING, patience=PATIENCE),
        trio_uring.open_file,
        examples=250,
        iterates_by_readline=True,
    ),
    Subject(
        "epoll",
        attrs.evolve(EPOLL, patience=PATIENCE),
        trio_uring.open_file,
        examples=60,
        iterates_by_readline=True,
    ),
]

every_subject = pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
