"""The standard library's `open` is the oracle of `trio_uring.open_file`."""

from __future__ import annotations

from state_machine import check
from subjects import Subject, every_subject


@every_subject
def test_programs_show_what_the_standard_library_shows(subject: Subject) -> None:
    check(subject)
