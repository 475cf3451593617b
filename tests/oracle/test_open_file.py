"""The standard library's `open` is the oracle of `trio_uring.open_file`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from machine import machine
from subjects import Subject, every_subject

EXAMPLES = int(os.environ.get("TRIO_URING_ORACLE_EXAMPLES", "0"))
"""How many programs each test runs. 0: a few hundred, and the same ones every time."""

@every_subject
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
