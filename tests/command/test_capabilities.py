"""`capabilities` and the table behind it, against the real kernel and against refusals of it."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import trio
from child_process import SECCOMP
from equivalence import no_descriptors_left

import trio_uring
from trio_uring import _core
from trio_uring.command import capabilities
from trio_uring.ring import features
from trio_uring.ring.opcodes import OPCODES, Opcode

# The environment of the test session must not decide what is found.
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("TRIO_URING_")}


pytestmark = pytest.mark.usefixtures("plain_environment")


async def flags_of_this_run() -> tuple[str, ...]:
    statistics = trio.lowlevel.current_statistics().io_statistics
    assert isinstance(statistics, trio_uring.UringStatistics)
    return statistics.flags


def test_what_is_said_to_be_used_is_what_a_run_uses() -> None:
    found = trio_uring.capabilities()
    assert found.usable
    assert (found.reason, found.remedy, found.errno) == ("", "", None)
    assert found.used == trio_uring.run(flags_of_this_run)


def test_every_row_of_the_tables_is_answered() -> None:
    found = trio_uring.capabilities()
    assert [row.name for row in found.setup_flags] == [flag.name for flag in features.SETUP_FLAGS]
    assert [row.name for row in found.features] == [feature.name for feature in features.FEATURES]
    assert [row.name for row in found.operations] == [opcode.name for opcode in OPCODES]
    for row in (*found.setup_flags, *found.features, *found.operations):
        assert row.gain
        assert bool(row.reason) == (row.state in ("off", "missing"))


def test_versions_are_those_of_this_process() -> None:
    found = trio_uring.capabilities()
    assert found.kernel == os.uname().release
    assert found.trio == trio.__version__
    assert found.python == sys.version.split()[0]
    assert found.liburing_path in Path("/proc/self/maps").read_text()


def test_liburing_is_the_library_or_inside_the_core() -> None:
    found = trio_uring.capabilities()
    if found.liburing_inside:
        assert found.liburing_path == os.path.realpath(_core.__file__)
        assert found.liburing_loaded == found.liburing_built
    else:
        assert Path(found.liburing_path).name == f"liburing.so.{found.liburing_loaded}"


def test_capabilities_may_be_asked_for_within_a_run_and_leave_it_alone() -> None:
    async def main() -> bool:
        usable = trio_uring.capabilities().usable
        await trio.lowlevel.checkpoint()
        return usable

    assert trio_uring.run(main)
    assert trio.run(main)


def test_nothing_stays_open() -> None:
    trio_uring.capabilities()
    gc.collect()  # so that it closes nothing of earlier tests meanwhile
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        trio_uring.capabilities()
    assert os.listdir("/proc/self/fd") == before


def test_capabilities_are_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        trio_uring.capabilities().usable = False  # type: ignore[misc]


def test_coop_taskrun_is_off_while_defer_taskrun_is_used() -> None:
    found = trio_uring.capabilities()
    if "defer_taskrun" not in found.used:
        pytest.skip("this kernel has no defer_taskrun")
    rows = {row.name: row for row in found.setup_flags}
    assert rows["coop_taskrun"].state == "off"
    assert "defer_taskrun" in rows["coop_taskrun"].reason


def test_disabled_feature_is_off_and_so_is_what_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    if not {"single_issuer", "no_iowait"} <= set(trio_uring.capabilities().used):
        pytest.skip("this kernel lacks them anyway")
    monkeypatch.setenv("TRIO_URING_DISABLE", "single_issuer,no_iowait")
    found = trio_uring.capabilities()
    rows = {row.name: row for row in (*found.setup_flags, *found.features)}
    assert {name for name, row in rows.items() if row.state == "off"} == {
        "single_issuer",
        "defer_taskrun",
        "no_iowait",
    }
    assert rows["single_issuer"].reason == "switched off by TRIO_URING_DISABLE"
    assert rows["no_iowait"].reason == "switched off by TRIO_URING_DISABLE"
    assert "needs single_issuer" in rows["defer_taskrun"].reason
    assert rows["coop_taskrun"].state == "used"


def test_without_completions_no_run_uses_the_operations_of_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIO_URING_DISABLE", "completions")
    states = {row.name: row.state for row in trio_uring.capabilities().operations}
    assert [states[name] for name in ("accept", "recv", "send")] == ["available"] * 3
    assert states["poll_add"] == "used"


def test_options_of_install_are_told_from_the_environment() -> None:
    with trio_uring.installed(trio_uring.RingOptions(features={"cqsize": False})):
        found = trio_uring.capabilities()
        assert found.used == trio.run(flags_of_this_run)
    rows = {row.name: row for row in found.setup_flags}
    assert rows["cqsize"].state == "off"
    assert "RingOptions.features" in rows["cqsize"].remedy


def test_kernel_that_is_too_old_is_named_with_the_one_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that no kernel has yet stands for an operation that this one lacks."""
    monkeypatch.setattr(capabilities, "OPCODES", (Opcode("future", 255, "999.1", "tests"),))
    (row,) = trio_uring.capabilities().operations
    assert row.state == "missing"
    assert row.reason == f"it takes Linux 999.1, this is {os.uname().release}"
    assert row.remedy == "Use Linux 999.1 or newer"


def refused(*rules: str, **environment: str) -> dict[str, object]:
    program = "import attrs, json, trio_uring; print(json.dumps(attrs.asdict(trio_uring.capabilities())))"
    command = [sys.executable, str(SECCOMP), *rules, "--", sys.executable, "-c", program]
    done = subprocess.run(
        command, env={**PLAIN, **environment}, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS", "EMFILE", "ENOMEM"])
def test_refused_set_up_is_an_answer_with_cause_and_remedy(error: str) -> None:
    found = refused(error, "io_uring_setup")
    assert found["usable"] is False
    assert error in str(found["reason"])
    assert found["remedy"]
    for rows in (found["setup_flags"], found["features"], found["operations"]):
        assert isinstance(rows, list)
        assert {row["state"] for row in rows} == {"missing"}
        assert all(error in row["reason"] for row in rows)


def test_flags_that_this_kernel_should_have_are_not_blamed_on_its_age() -> None:
    rows = refused("EINVAL", "io_uring_setup")["setup_flags"]
    assert isinstance(rows, list)
    assert rows[0]["name"] == "cqsize"
    assert "refuses it (EINVAL" in rows[0]["reason"]
    assert "though Linux 5.5 has it" in rows[0]["reason"]


@pytest.mark.parametrize("call", ["io_uring_enter", "io_uring_register"])
def test_ring_that_opens_but_cannot_be_used_is_no_ring(call: str) -> None:
    found = refused("EPERM", call)
    assert found["usable"] is False
    assert f"{call} is refused" in str(found["reason"])
    assert "(EPERM, " in str(found["reason"])
    assert call in str(found["remedy"])


def test_fallback_to_epoll_does_not_make_io_uring_usable() -> None:
    found = refused("EPERM", "io_uring_setup", TRIO_URING_FALLBACK="epoll")
    assert (found["usable"], found["fallback"]) == (False, "epoll")


def test_no_descriptor_left_is_an_answer() -> None:
    trio_uring.capabilities()
    with no_descriptors_left():
        found = trio_uring.capabilities()
    assert not found.usable
    assert "EMFILE" in found.reason


def test_unknown_trio_is_in_the_way_and_named() -> None:
    program = (
        "import trio._core._run as trio_run; del trio_run.setup_runner; import trio_uring;"
        "found = trio_uring.capabilities(); print(found.usable, found.errno, found.reason)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=PLAIN, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("False None ")
    assert f"Trio {trio.__version__}" in done.stdout
