"""A ring opens, and its kernel refuses one operation, as a sandbox may: the caller of each use that needs the
operation is told, all others work, and no byte is lost. What each run needs ends the run with the kernel's
error: nothing hangs, and nothing is tried for ever.

The kernel itself refuses (EACCES). Where a library can stand before liburing (conftest.py), it answers with
other errors as well. System calls that are made beside the ring are refused by a seccomp filter."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from child_process import SUPPORT, preloaded, run_python
from refused import USES

import trio_uring
from trio_uring.ring.opcodes import OPCODES

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Path(__file__).parent
USED = [row.name for row in OPCODES if row.used]
NEEDED_BY_EACH_RUN = ("poll_add", "async_cancel")
LIMIT = 120
CALLS = ["openat2", "preadv2", "statx", "fstatfs"]
"""By which the calling thread does at once what would need the ring else, or learns whether it may."""
# Copies instead, as it does for a file that cannot be spliced.
DOES_WITHOUT = {("send_file", "splice", "EINVAL")}


def is_used(operation: str) -> bool:
    """Whether runs on this kernel make the operation, as the environment leaves it."""
    return any(row.name == operation and row.state == "used" for row in trio_uring.capabilities().operations)


def answers_of(call: str, library: str = "") -> list[dict[str, int]]:
    """What a call of refused.py returns in a child process."""
    environment = {"PYTHONPATH": os.pathsep.join((str(FOLDER), str(SUPPORT)))}
    if library:
        environment |= preloaded(library)
    done = run_python(
        f"import json, refused; print(json.dumps(refused.{call}))", env=environment, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, int]] = json.loads(done.stdout)
    # A run that its ring ends leaves coroutines, which say so when they are collected.
    assert done.stderr == "" or any("run" in answer for answer in answers), done.stderr
    return answers


def said(operation: str, errors: Sequence[str], library: str = "") -> list[dict[str, int]]:
    if not is_used(operation):
        pytest.skip("no run makes this operation here")
    numbers = [getattr(errno, error) for error in errors]
    answers = answers_of(f"main({operation!r}, {numbers}, {library!r})", library)
    assert len(answers) == len(errors)
    return answers


def check(operation: str, error: str, said: dict[str, int]) -> None:
    number = getattr(errno, error)
    if operation in NEEDED_BY_EACH_RUN:
        assert said["run"] == number
        return
    for use, needs in USES.items():
        name = use.__name__
        if f"{operation}?" in needs.split():
            assert said[name] in (0, number), name
        elif operation in needs.split() and (name, operation, error) not in DOES_WITHOUT:
            assert said[name] == number, name
        else:
            assert said[name] == 0, name


@pytest.mark.parametrize("operation", USED)
def test_an_operation_that_the_kernel_refuses_is_an_error_of_its_caller(operation: str) -> None:
    (answer,) = said(operation, ["EACCES"])
    check(operation, "EACCES", answer)


@pytest.mark.parametrize("operation", [name for name in USED if name != "nop"])
def test_whatever_the_error_is(library: Path, operation: str) -> None:
    errors = ["EPERM", "EINVAL", "ENOSYS"]
    for error, answer in zip(errors, said(operation, errors, str(library)), strict=True):
        check(operation, error, answer)


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
@pytest.mark.parametrize("call", CALLS)
def test_a_system_call_beside_the_ring_that_is_refused_is_done_without(call: str, error: str) -> None:
    (answer,) = answers_of(f"main_without([{call!r}], {getattr(errno, error)})")
    assert answer == dict.fromkeys((use.__name__ for use in USES), 0)
