"""io_uring refused, for real: seccomp filters and resource limits in child processes.

`UringUnavailableError` comes before any of the user's code and leaves nothing replaced;
with ``fallback="epoll"`` the run works on epoll, after one warning.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from child_process import output_of, refused, run_python

from trio_uring.ring import refusals

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NO_SETUP = {
    "EPERM": (errno.EPERM, ["seccomp", "profile that allows io_uring_setup"]),
    "ENOSYS": (errno.ENOSYS, ["Podman", "older than 5.1", "seccompProfile", "use a kernel"]),
}

# Before anything of a run, and for each way to start one.
STARTS = """
import warnings, sys, trio, trio.testing, trio_uring
from trio._core import _run as trio_run
originals = trio_run.TheIOManager, trio_run.setup_runner

async def main():
    print("user code ran on", trio.lowlevel.current_statistics().io_statistics.backend)

def guest(ring=None):
    import queue
    todo = queue.SimpleQueue()
    trio_uring.start_guest_run(
        main, ring=ring, run_sync_soon_threadsafe=todo.put, done_callback=lambda _: todo.put(None)
    )
    while (call := todo.get()) is not None:
        call()

def with_installed(ring=None):
    with trio_uring.installed(ring):
        trio.run(main)

def run(ring=None):
    trio_uring.run(main, ring=ring)

starts = [run, guest, with_installed, trio_uring.install]
"""

RAISES = (
    STARTS
    + """
for start in starts:
    for _ in range(2):
        try:
            start()
        except trio_uring.UringUnavailableError as error:
            print(error.errno, error)
        assert originals == (trio_run.TheIOManager, trio_run.setup_runner)
    trio.run(main)
"""
)


def check_raises(before: Sequence[str], number: int, said: Sequence[str]) -> None:
    lines = output_of(RAISES, before=before).splitlines()
    assert lines[2::3] == ["user code ran on epoll"] * 4
    for line in lines[::3] + lines[1::3]:
        assert line.startswith(f"{number} io_uring cannot be used here: ")
        for words in [*said, errno.errorcode[number], 'fallback="epoll"', "TRIO_URING_FALLBACK=epoll"]:
            assert words in line


FALLS_BACK = (
    STARTS
    + """
ring = trio_uring.RingOptions(fallback="epoll")
for start in starts:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start(ring)  # the user's line, but for those in the functions above
        if start is trio_uring.install:
            trio.run(main)
            trio.run(main)
            trio_uring.uninstall()
    for warning in caught:
        assert warning.category is trio_uring.UringFallbackWarning
        print(warning.filename, warning.lineno, warning.message)
    assert originals == (trio_run.TheIOManager, trio_run.setup_runner)
"""
)


def check_falls_back(before: Sequence[str]) -> None:
    lines = output_of(FALLS_BACK, before=before).splitlines()
    ran = "user code ran on epoll"
    program = FALLS_BACK.splitlines()

    def line_of(text: str) -> int:
        return next(number for number, line in enumerate(program, 1) if text in line)

    warned = [int(line.split()[1]) for line in lines if line != ran]
    assert [line == ran for line in lines] == [True, False, True, False, True, False, True, True, False]
    assert warned == [
        line_of("trio_uring.run(main, ring=ring)"),
        line_of("trio_uring.start_guest_run("),
        line_of("with trio_uring.installed(ring)"),
        line_of("start(ring)"),
    ]
    for line in lines:
        if line != ran:
            assert line.split()[0] == "<string>"
            assert "This runs on epoll, not on io_uring" in line


@pytest.mark.parametrize("answer", NO_SETUP)
def test_no_io_uring_setup_is_said_before_any_user_code(answer: str) -> None:
    check_raises(refused(answer, "io_uring_setup"), *NO_SETUP[answer])


@pytest.mark.parametrize("answer", NO_SETUP)
def test_without_io_uring_setup_the_fallback_runs_on_epoll_after_one_warning(answer: str) -> None:
    check_falls_back(refused(answer, "io_uring_setup"))


@pytest.mark.parametrize("answer", ["EPERM", "ENOSYS"])
@pytest.mark.parametrize("call", ["io_uring_enter", "io_uring_register"])
def test_a_call_refused_beside_io_uring_setup_is_said_before_any_user_code(call: str, answer: str) -> None:
    check_raises(refused(answer, call), getattr(errno, answer), [f"{call} is", "seccomp"])


@pytest.mark.parametrize("call", ["io_uring_enter", "io_uring_register"])
def test_a_call_refused_beside_io_uring_setup_falls_back_too(call: str) -> None:
    check_falls_back(refused("EPERM", call))


@pytest.mark.parametrize(
    ("disabled", "group", "who", "named"),
    [
        ("1", "-1", "for processes without CAP_SYS_ADMIN", False),
        ("1", "993", "for processes without CAP_SYS_ADMIN", True),
        ("2", "993", "for everybody", False),
    ],
)
def test_a_sysctl_is_said_and_a_group_only_where_there_is_one(
    disabled: str, group: str, who: str, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sysctls are machine-wide, so files stand for them."""
    (tmp_path / "io_uring_disabled").write_text(f"{disabled}\n")
    (tmp_path / "io_uring_group").write_text(f"{group}\n")
    monkeypatch.setattr(refusals, "_SYSCTLS", tmp_path)
    error = refusals.unavailable(errno.EPERM)
    assert (
        error.reason == f"kernel.io_uring_disabled={disabled} switches it off {who} (EPERM, {os.strerror(1)})"
    )
    assert "sysctl kernel.io_uring_disabled=0" in error.remedy
    assert ("group" in error.remedy) is named


def test_the_environment_asks_for_the_fallback() -> None:
    program = STARTS + "run(); run(trio_uring.RingOptions(fallback='error'))"
    done = run_python(
        program, before=refused("EPERM", "io_uring_setup"), env={"TRIO_URING_FALLBACK": "epoll"}
    )
    assert done.returncode == 0
    assert done.stdout == "user code ran on epoll\n" * 2
    assert "UringFallbackWarning: This runs on epoll" in done.stderr


def test_the_environment_forbids_the_fallback() -> None:
    program = STARTS + "run(trio_uring.RingOptions(fallback='epoll'))"
    done = run_python(
        program, before=refused("EPERM", "io_uring_setup"), env={"TRIO_URING_FALLBACK": "error"}
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "UringUnavailableError: io_uring cannot be used here" in done.stderr


@pytest.mark.parametrize("start", ["run", "guest", "with_installed", "trio_uring.install"])
def test_the_warning_made_an_error_stops_the_run_and_leaves_nothing_replaced(start: str) -> None:
    said = output_of(
        STARTS
        + f"""
try:
    {start}(trio_uring.RingOptions(fallback="epoll"))
except trio_uring.UringFallbackWarning as warning:
    print(warning)
assert originals == (trio_run.TheIOManager, trio_run.setup_runner)
trio.run(main)
""",
        flags=["-W", "error::RuntimeWarning"],
        before=refused("EPERM", "io_uring_setup"),
    )
    warning, ran = said.splitlines()
    assert warning.startswith("This runs on epoll, not on io_uring")
    assert ran == "user code ran on epoll"


# Leaves room for ``free`` more descriptors.
FEW_DESCRIPTORS = """
import os, resource
import encodings.idna, linecache, traceback  # nothing is to be imported later on
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

def leave(free):
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(highest + 1)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1 + free, hard))
    return taken

def give_back(taken):
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for fd in taken:
        os.close(fd)
"""


@pytest.mark.parametrize("free", [0, 1])
def test_no_descriptor_left_is_said_and_the_run_works_once_there_are_some(free: int) -> None:
    said = output_of(
        STARTS
        + FEW_DESCRIPTORS
        + f"""
trio_uring.RingOptions()
for start in starts:
    taken = leave({free})
    try:
        start()
    except trio_uring.UringUnavailableError as error:
        give_back(taken)
        print(error.errno, error)
    assert originals == (trio_run.TheIOManager, trio_run.setup_runner)
before = os.listdir("/proc/self/fd")
run()
assert os.listdir("/proc/self/fd") == before
"""
    ).splitlines()
    assert len(said) == 5
    for line in said[:4]:
        assert line.startswith(f"{errno.EMFILE} io_uring cannot be used here: ")
        assert "no file descriptor left" in line
        assert "ulimit -n" in line
    assert said[4] == "user code ran on io_uring"


@pytest.mark.parametrize("free", range(8))
def test_however_few_descriptors_are_left_nothing_stays_replaced_or_open(free: int) -> None:
    said = output_of(
        STARTS
        + FEW_DESCRIPTORS
        + f"""
import gc
before = os.listdir("/proc/self/fd")
taken = leave({free})
try:
    run()
except (OSError, trio_uring.UringUnavailableError) as error:
    print("refused")
gc.collect()
give_back(taken)
assert originals == (trio_run.TheIOManager, trio_run.setup_runner)
assert os.listdir("/proc/self/fd") == before
run()
"""
    ).splitlines()
    assert said[-1] == "user code ran on io_uring"
    assert said[:-1] in (["refused"], ["user code ran on io_uring"])


# Rings count as locked memory for those without CAP_IPC_LOCK only.
UNPRIVILEGED = """
import os, resource
def limit_memory(size):
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (size, size))
    if os.getuid() == 0:
        user = 100_000 + os.getpid()  # who has nothing else locked
        os.setgid(user)
        os.setuid(user)
"""


def locked_memory_counts() -> bool:
    """Whether this kernel, and this user, take a ring for locked memory."""
    done = run_python(
        STARTS
        + UNPRIVILEGED
        + """
limit_memory(0)
try:
    run()
except trio_uring.UringUnavailableError as error:
    print(error.errno)
"""
    )
    return done.stdout.strip() == str(errno.ENOMEM)


@pytest.fixture(scope="module")
def _locked_memory_counts() -> None:
    if not locked_memory_counts():
        pytest.skip("rings are not locked memory for this kernel and user")


only_as_root = pytest.mark.skipif(os.getuid() != 0, reason="others may lock memory as this user")


@pytest.mark.usefixtures("_locked_memory_counts")
class TestLockedMemory:
    def test_too_little_for_any_ring_is_said_before_any_user_code(self) -> None:
        said = output_of(
            STARTS
            + UNPRIVILEGED
            + """
limit_memory(0)
for start in starts:
    try:
        start()
    except trio_uring.UringUnavailableError as error:
        print(error.errno, error)
    assert originals == (trio_run.TheIOManager, trio_run.setup_runner)
"""
        ).splitlines()
        assert len(said) == 4
        for line in said:
            assert line.startswith(f"{errno.ENOMEM} io_uring cannot be used here: ")
            assert "locked memory" in line
            assert "ulimit -l" in line

    def test_too_little_for_any_ring_falls_back(self) -> None:
        done = run_python(
            STARTS + UNPRIVILEGED + "limit_memory(0); run(trio_uring.RingOptions(fallback='epoll'))"
        )
        assert done.stdout == "user code ran on epoll\n"
        assert done.stderr.count("UringFallbackWarning") == 1

    def test_too_little_for_the_ring_asked_for_gives_a_smaller_one(self) -> None:
        said = output_of(
            STARTS
            + UNPRIVILEGED
            + """
limit_memory(65536)
run(trio_uring.RingOptions(entries=32768, cq_entries=65536))
"""
        )
        assert said == "user code ran on io_uring\n"

    def test_the_default_ring_fits_what_distributions_allow(self) -> None:
        said = output_of(
            STARTS
            + UNPRIVILEGED
            + """
from trio_uring.ring import opening
sizes = []
original = opening._open
def recorded(entries, *rest, **others):
    sizes.append(entries)
    return original(entries, *rest, **others)
opening._open = recorded
limit_memory(65536)
run()
assert sizes == [trio_uring.RingOptions().entries], sizes
"""
        )
        assert said == "user code ran on io_uring\n"

    @only_as_root
    def test_runs_in_a_row_wait_for_what_the_last_ones_had(self) -> None:
        """With sockets, whose buffers are locked as well; and as tests do that install it anew."""
        said = output_of(
            STARTS
            + UNPRIVILEGED
            + """
async def sockets():
    left, right = trio.socket.socketpair()
    with left, right:
        for _ in range(3):
            await left.send(b"x")
            await right.recv(1)
    return trio.lowlevel.current_statistics().io_statistics.flags
flags = {trio_uring.run(sockets)}
limit_memory(65536)
for _ in range(40):
    flags.add(trio_uring.run(sockets))
    with trio_uring.installed():
        flags.add(trio.run(sockets))
print(len(flags), "completions" in flags.pop())
"""
        )
        assert said in ("1 True\n", "1 False\n")

    @only_as_root
    def test_eight_runs_fit_side_by_side_and_the_ninth_is_told_why_not(self) -> None:
        said = output_of(
            STARTS
            + UNPRIVILEGED
            + """
import threading
trio_uring.capabilities
limit_memory(65536)
go_on, started = threading.Event(), threading.Semaphore(0)
async def wait():
    started.release()
    await trio.to_thread.run_sync(go_on.wait)
threads = [threading.Thread(target=trio_uring.run, args=(wait,), daemon=True) for _ in range(8)]
for thread in threads:
    thread.start()
for _ in threads:
    started.acquire()
try:
    trio_uring.run(wait)
except trio_uring.UringUnavailableError as error:
    print(error)
found = trio_uring.capabilities()
print(found.locked_memory, found.locked_by_ring, found.locked_by_buffers, found.errno)
go_on.set()
"""
        ).splitlines()
        assert "may lock 65536 bytes together, so 8 such rings fit" in said[0]
        assert "takes 8192 bytes" in said[0]
        for remedy in ("ulimit -l", "LimitMEMLOCK=", "--ulimit memlock="):
            assert remedy in said[0]
        assert said[1] == f"65536 8192 4096 {errno.ENOMEM}"

    @only_as_root
    def test_of_fourteen_processes_side_by_side_eight_start(self) -> None:
        said = output_of(
            STARTS
            + UNPRIVILEGED
            + """
limit_memory(65536)
answers, ready = os.pipe()
waiting, go_on = os.pipe()
async def wait():
    os.write(ready, b"s")
    await trio.to_thread.run_sync(os.read, waiting, 1)
for _ in range(14):
    if not os.fork():
        os.close(go_on)
        try:
            trio_uring.run(wait)
        except trio_uring.UringUnavailableError:
            os.write(ready, b"r")
        os._exit(0)
os.close(waiting)
said = b""
while len(said) < 14:
    said += os.read(answers, 14)
os.close(go_on)
for _ in range(14):
    os.wait()
print(said.count(b"s"))
"""
        )
        assert said == "8\n"

    @only_as_root
    @pytest.mark.parametrize(("just_before", "waits"), [("", False), ("trio_uring.run(main)", True)])
    def test_only_who_has_just_closed_a_ring_waits(self, just_before: str, waits: bool) -> None:
        said = output_of(
            STARTS
            + UNPRIVILEGED
            + f"""
from trio_uring.ring import locked_memory
slept = []
def sleep(seconds, sleep=locked_memory.time.sleep):
    slept.append(seconds)
    sleep(seconds)
{just_before}
limit_memory(0)
locked_memory.time.sleep = sleep
try:
    run()
except trio_uring.UringUnavailableError as error:
    print(error)
print(bool(slept), sum(slept) <= 0.25)
"""
        ).splitlines()
        assert said[-1] == f"{waits} True"
        assert ("was waited for, 0.25 s" in said[-2]) is waits

    @only_as_root
    def test_no_room_for_the_buffers_of_sockets_is_said_and_these_wait_by_readiness(self) -> None:
        said = output_of(
            STARTS
            + UNPRIVILEGED
            + """
from trio_uring.ring import opening
async def sockets():
    left, right = trio.socket.socketpair()
    with left, right:
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(right.recv, 1)
                await trio.testing.wait_all_tasks_blocked()
                await left.send(b"x")
    return "completions" in trio.lowlevel.current_statistics().io_statistics.flags
has_completions = trio_uring.run(sockets)
limit_memory(65536)
rings = [opening.open_ring(trio_uring.RingOptions()) for _ in range(7)]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert not trio_uring.run(sockets)
said = [f"{warning.category.__name__} {warning.filename}: {warning.message}" for warning in caught]
print(has_completions, *said)
"""
        )
        assert said == "False\n" or (
            said.startswith(
                "True UringFallbackWarning <string>: The stream sockets of this run wait by readiness"
            )
            and "4096 bytes of locked memory" in said
            and said.count("UringFallbackWarning") == 1
        )
