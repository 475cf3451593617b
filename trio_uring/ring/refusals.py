"""The reasons for which a kernel refuses a ring, and what to do about each."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from . import locked_memory
from .errors import UringUnavailableError

SMALLEST: Final = 64
SMALLEST_CQ: Final = 128
"""The smallest ring, in submissions and completions, that is tried where the kernel answered ENOMEM to a
larger one. A still smaller ring would take as many pages."""
_SYSCTLS: Final = Path("/proc/sys/kernel")
_NO_GROUP: Final = ("", "-1")


def unavailable(error: int, call: str = "io_uring_setup", *, waited: bool = False) -> UringUnavailableError:
    """The error to be raised because ``call`` has answered ``error``: why, and what to do about it.
    ``waited``: the call was repeated until memory of closed rings had to be free."""
    code = f"{errno.errorcode.get(error, error)}, {os.strerror(error)}"
    if error == errno.EACCES:
        reason, remedy = f"a security module (SELinux, AppArmor) forbids {call}", _ALLOW_BY_POLICY
    else:
        reason, remedy = _refusal(error) if call == "io_uring_setup" else _refusal_of_use(call)
    if waited:
        reason += f"; the memory of rings that were just closed was waited for, {locked_memory.PATIENCE} s"
    return UringUnavailableError(f"{reason} ({code})", remedy, error)


_ALLOW_ALL = (
    "Run the container with a seccomp profile that allows io_uring_setup, io_uring_enter and "
    "io_uring_register, as those in trio-uring's folder deploy/ do: on the host, docker or podman run "
    "--security-opt seccomp=PROFILE.json, or the seccompProfile of a Kubernetes pod, or these three in the "
    "SystemCallFilter= of a systemd unit"
)
_ALLOW_BY_POLICY = (
    "Allow it in that module's policy, on the host: its log (dmesg, or ausearch -m avc) names the rule"
)


def _refusal_of_use(call: str) -> tuple[str, str]:
    return f"rings can be set up, but {call} is refused, most likely by a seccomp filter", _ALLOW_ALL


def _refusal(error: int) -> tuple[str, str]:
    sysctl = _sysctl("io_uring_disabled")
    if error == errno.EPERM and sysctl in ("1", "2"):
        who = "for everybody" if sysctl == "2" else "for processes without CAP_SYS_ADMIN"
        has_group = sysctl == "1" and _sysctl("io_uring_group") not in _NO_GROUP
        return (
            f"kernel.io_uring_disabled={sysctl} switches it off {who}",
            "Set it with `sysctl kernel.io_uring_disabled=0`, on the host, since containers share its kernel"
            + (", or join the group that kernel.io_uring_group names" if has_group else ""),
        )
    if error == errno.EPERM:
        return (
            "io_uring_setup is forbidden, most likely by a seccomp filter, as Docker's default profile is",
            _ALLOW_ALL,
        )
    if error == errno.ENOSYS:
        return (
            "there is no io_uring_setup: a seccomp filter hides it, as Podman's default profile does, or the "
            "kernel is older than 5.1 or built without CONFIG_IO_URING, or a sandbox (gVisor) has none",
            f"{_ALLOW_ALL}; or use a kernel from 5.13 on, on the host",
        )
    if error in (errno.EMFILE, errno.ENFILE):
        whose = "this process has" if error == errno.EMFILE else "the system has"
        return f"{whose} no file descriptor left for a ring", "Raise the limit (ulimit -n) or close files"
    if error == errno.ENOMEM:
        return _no_memory()
    return "io_uring_setup failed", "`python -m trio_uring doctor` tells what this kernel allows"


def _no_memory() -> tuple[str, str]:
    limit = locked_memory.limit()
    if limit is None:
        return "there is no memory for even a small ring", (
            "Free some memory; where rings count as locked memory, raise its limit (ulimit -l)"
        )
    size = locked_memory.size_of_ring(SMALLEST, SMALLEST_CQ, has_array=False)
    return (
        f"there is no locked memory left for even a small ring, which takes {size} bytes: the processes of "
        f"this user may lock {limit} bytes together, so {limit // size} such rings fit"
    ), locked_memory.MORE


def _sysctl(name: str) -> str:
    """The value of one of the kernel's; an empty string if this kernel has none of that name."""
    try:
        return (_SYSCTLS / name).read_text().strip()
    except OSError:
        return ""
