"""The kernel's switch for io_uring, which is the machine's, so that it can be tried in a guest only:
kernel.io_uring_disabled, for root and for others, and kernel.io_uring_group."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from findings import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_DISABLED: Final = Path("/proc/sys/kernel/io_uring_disabled")
_GROUP: Final = Path("/proc/sys/kernel/io_uring_group")
_USER: Final = 65534
_MEMBERS: Final = 4242

# Tells of a run, of one that may fall back, and of the doctor's answer.
_TELL: Final = """
import json, trio, trio_uring, warnings

async def main():
    left, right = trio.socket.socketpair()
    with left, right:
        await left.send(b"x")
        assert await right.recv(1) == b"x"
    return trio.lowlevel.current_statistics().io_statistics.backend

said = {}
try:
    said["run"] = trio_uring.run(main)
except trio_uring.UringUnavailableError as error:
    said["errno"], said["run"] = error.errno, str(error)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    said["fallback"] = trio_uring.run(main, ring=trio_uring.RingOptions(fallback="epoll"))
said["warnings"] = [warning.category.__name__ for warning in caught]
found = trio_uring.capabilities()
said["doctor"] = "" if found.usable else f"{found.reason} {found.remedy}"
print(json.dumps(said))
"""
_GOES_ON: Final = """
import trio, trio_uring
from pathlib import Path
async def main():
    Path("/proc/sys/kernel/io_uring_disabled").write_text("2")
    left, right = trio.socket.socketpair()
    for _ in range(100):
        await left.send(b"x")
        assert await right.recv(1) == b"x"
    await trio_uring.Path("/scratch/file").write_bytes(b"data")
    assert await trio_uring.Path("/scratch/file").read_bytes() == b"data"
    print(trio.lowlevel.current_statistics().io_statistics.backend)
trio_uring.run(main)
"""


def _as_user(groups: Sequence[int]) -> Callable[[], None]:
    def become() -> None:
        os.setgroups(groups)
        os.setgid(_USER)
        os.setuid(_USER)

    return become


def _said(program: str, become: Callable[[], None] | None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        preexec_fn=become,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def _allowed(become: Callable[[], None] | None) -> None:
    assert json.loads(_said(_TELL, become)) == {
        "run": "io_uring",
        "fallback": "io_uring",
        "warnings": [],
        "doctor": "",
    }


def _refused(become: Callable[[], None] | None, value: str, remedies: Sequence[str]) -> None:
    said = json.loads(_said(_TELL, become))
    assert said["run"].startswith("io_uring cannot be used here: "), said
    assert said["errno"] == errno.EPERM
    assert said["fallback"] == "epoll"
    assert said["warnings"] == ["UringFallbackWarning"]
    for words in (f"kernel.io_uring_disabled={value}", *remedies):
        assert words in said["run"], said
        assert words in said["doctor"], said


def _goes_on() -> None:
    assert _said(_GOES_ON, None) == "io_uring\n"


def check() -> Iterator[Result]:
    if not _DISABLED.exists():
        yield Result("kernel.io_uring_disabled", "skipped", "this kernel has no such switch (Linux 6.6)")
        return
    user, member = _as_user([]), _as_user([_MEMBERS])
    reset = ("sysctl kernel.io_uring_disabled=0",)
    cases: list[tuple[str, str, str, Callable[[], None]]] = [
        ("0 and root", "0", "-1", lambda: _allowed(None)),
        ("0 and a user", "0", "-1", lambda: _allowed(user)),
        ("1 and root", "1", "-1", lambda: _allowed(None)),
        ("1 and a user", "1", "-1", lambda: _refused(user, "1", reset)),
        (
            "1, a group, and a user",
            "1",
            str(_MEMBERS),
            lambda: _refused(user, "1", (*reset, "io_uring_group")),
        ),
        ("1, a group, and a member", "1", str(_MEMBERS), lambda: _allowed(member)),
        ("2 and root", "2", "-1", lambda: _refused(None, "2", reset)),
        ("2, a group, and a member", "2", str(_MEMBERS), lambda: _refused(member, "2", reset)),
        ("2 while a run goes on", "0", "-1", _goes_on),
    ]
    wrong = []
    for name, disabled, group, case in cases:
        _DISABLED.write_text(disabled)
        _GROUP.write_text(group)
        try:
            case()
        except Exception:
            wrong.append(f"{name}:\n{traceback.format_exc()}")
        finally:
            _DISABLED.write_text("0")
    figures = f"{len(cases) - len(wrong)} of {len(cases)} cases"
    yield Result("kernel.io_uring_disabled", "failed" if wrong else "passed", figures, "\n".join(wrong))
