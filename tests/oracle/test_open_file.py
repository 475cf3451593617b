"""The standard library's `open` is the oracle of `trio_uring.open_file`."""

from __future__ import annotations

import os

import pytest
import trio
from equivalence import EPOLL, URING
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from machine import Subject, machine

import trio_uring

EXAMPLES = int(os.environ.get("TRIO_URING_ORACLE_EXAMPLES", "0"))
"""How many programs each test runs. 0: a few hundred, and the same ones every time."""

TRIO = Subject("trio.open_file", EPOLL, trio.open_file, iterates_by_readline=True)


def ours() -> list[Subject]:
    if not hasattr(trio_uring, "open_file"):
        return []
    return [
        Subject("trio_uring.open_file on io_uring", URING, trio_uring.open_file),
        Subject("trio_uring.open_file on epoll", EPOLL, trio_uring.open_file),
    ]


@pytest.mark.parametrize("subject", [TRIO, *ours()], ids=lambda subject: subject.name.replace(" ", "-"))
def test_programs_show_what_the_standard_library_shows(subject: Subject) -> None:
    run_state_machine_as_test(
        machine(subject),
        settings=settings(
            max_examples=EXAMPLES or 300,
            stateful_step_count=25,
            derandomize=not EXAMPLES,
            database=None,
            deadline=None,
            print_blob=bool(EXAMPLES),
            suppress_health_check=list(HealthCheck),
        ),
    )
