"""Sets up a ring as the options say and as the kernel allows; or says why it cannot."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from . import features, locked_memory
from .errors import UringUnavailableError
from .native import ffi, lib

if TYPE_CHECKING:
    from .native import Core
    from .options import RingOptions

# A ring that ENOMEM refused is tried again at half the size, down to this: a smaller one takes as
# many pages.
_SMALLEST = 64
_SMALLEST_CQ = 128

_DISABLED_SYSCTL = Path("/proc/sys/kernel/io_uring_disabled")


class CoreOwner:
    """Gives a core's ring and interrupt back when it is thrown away, whatever has come between.

    Not `ffi.gc`: when that is garbage together with a manager, it frees the core's memory before
    the manager is finalised.
    """

    __slots__ = ("_destroy", "core")

    def __init__(self) -> None:
        self._destroy = lib.tu_destroy  # modules have no names any more when Python ends
        self.core: Core = ffi.new("tu_core *")

    def __del__(self) -> None:
        self._destroy(self.core)


@attrs.frozen
class Ring:
    """An open ring: who owns the core that holds it, and the names of what it uses."""

    owner: CoreOwner
    flags: tuple[str, ...]
    options: RingOptions

    @property
    def core(self) -> Core:
        return self.owner.core

    def release(self) -> None:
        """Gives an unused ring back."""
        lib.tu_destroy(self.core)
        locked_memory.ring_was_closed()


def open_ring(options: RingOptions) -> Ring:
    """Opens a ring. Any thread; the first one to enter it becomes its owner.

    Raises:
      UringUnavailableError: the kernel refuses, or is too old.
    """
    off = frozenset(options.features)
    flags = features.choose(off)
    entries, cq_entries = options.entries, options.cq_entries
    while True:
        owner, error, waited = _open(entries, cq_entries, flags, no_iowait="no_iowait" not in off)
        if owner is not None:
            return _checked(owner, off, options)
        if error == errno.EINVAL and not features.refused_flags().isdisjoint(flags):
            off |= features.refused_flags()
            flags = features.choose(off)
        elif error == errno.ENOMEM and (entries > _SMALLEST or cq_entries > _SMALLEST_CQ):
            entries = min(entries, max(_SMALLEST, entries // 2))
            cq_entries = max(entries, min(cq_entries, max(_SMALLEST_CQ, cq_entries // 2)))
        else:
            raise unavailable(error, waited=waited)


def _checked(owner: CoreOwner, off: frozenset[str], options: RingOptions) -> Ring:
    """The ring, if it can be used."""
    try:
        _try_calls(owner.core)
        ring = Ring(owner, _in_use(owner.core, off), options)
        _check_accept_ahead(ring)
    except BaseException:
        Ring(owner, (), options).release()
        raise
    return ring


def _open(
    entries: int, cq_entries: int, flags: tuple[str, ...], no_iowait: bool
) -> tuple[CoreOwner | None, int, bool]:
    """The owner of a core, or None and the errno, and whether that was waited for."""
    owner = CoreOwner()
    core = owner.core
    bits = features.bits(flags)
    result, waited = locked_memory.patiently(lambda: lib.tu_open(core, entries, cq_entries, bits, no_iowait))
    return (None, -result, waited) if result < 0 else (owner, 0, waited)


def _try_calls(core: Core) -> None:
    """Raises UringUnavailableError if a filter lets rings be set up but not used.

    Once per process, before the first ring is used: a run makes these calls only when user
    code has run, and it is too late for epoll then.
    """
    global _calls_work  # noqa: PLW0603
    if _calls_work:
        return
    for call, result in (
        ("io_uring_register", features.probe_operations_of(core)),
        ("io_uring_enter", lib.tu_try_enter(core)),
    ):
        if result < 0:
            raise unavailable(-result, call)
    _calls_work = True


_calls_work = False


def _in_use(core: Core, off: frozenset[str]) -> tuple[str, ...]:
    """What the ring uses; raises UringUnavailableError if it lacks what we need."""
    statistics = ffi.new("tu_statistics *")
    lib.tu_read_statistics(core, statistics)
    for feature in features.FEATURES:
        if feature.name in features.REQUIRED and not statistics.features & feature.bit:
            raise UringUnavailableError(
                f"this kernel ({os.uname().release}) has no {feature.name}: {feature.gain}",
                f"Use Linux {feature.since} or newer",
            )
    return features.in_use(statistics.setup_flags, statistics.features, off)


def _check_accept_ahead(ring: Ring) -> None:
    if not ring.options.accept_ahead or "completions" in ring.flags:
        return
    completions = next(feature for feature in features.FEATURES if feature.name == "completions")
    if completions.is_in(0):
        raise UringUnavailableError(
            "RingOptions.accept_ahead needs completions, which are switched off",
            "Leave completions on, or accept_ahead at 0",
        )
    raise UringUnavailableError(
        f"RingOptions.accept_ahead needs completions, which this kernel ({os.uname().release}) has not",
        f"Leave accept_ahead at 0, or use Linux {completions.since} or newer",
    )


def unavailable(error: int, call: str = "io_uring_setup", *, waited: bool = False) -> UringUnavailableError:
    """Why ``call`` answered ``error``, after it was ``waited`` for, and what to do about it."""
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
    "io_uring_register: on the host, docker run --security-opt seccomp=PROFILE.json, or the "
    "seccompProfile of a Kubernetes pod, or these three in the SystemCallFilter= of a systemd unit"
)
_ALLOW_BY_POLICY = (
    "Allow it in that module's policy, on the host: its log (dmesg, or ausearch -m avc) names the rule"
)


def _refusal_of_use(call: str) -> tuple[str, str]:
    return f"rings can be set up, but {call} is refused, most likely by a seccomp filter", _ALLOW_ALL


def _refusal(error: int) -> tuple[str, str]:
    if error == errno.EPERM and (sysctl := _io_uring_disabled()):
        who = "for everybody" if sysctl == "2" else "for processes without CAP_SYS_ADMIN"
        return (
            f"kernel.io_uring_disabled={sysctl} switches it off {who}",
            "Set it with `sysctl kernel.io_uring_disabled=0`, on the host, since containers share its kernel"
            + ("" if sysctl == "2" else ", or join the group that kernel.io_uring_group names"),
        )
    if error == errno.EPERM:
        return (
            "io_uring_setup is forbidden, most likely by a seccomp filter, as Docker's default profile is",
            _ALLOW_ALL,
        )
    if error == errno.ENOSYS:
        return (
            "there is no io_uring_setup: the kernel is older than 5.1 or built without CONFIG_IO_URING,"
            " or a seccomp filter or sandbox (gVisor) hides it",
            "Use a kernel from 5.13 on, on the host, or a sandbox that has it",
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
    size = locked_memory.size_of_ring(_SMALLEST, _SMALLEST_CQ, has_array=False)
    return (
        f"there is no locked memory left for even a small ring, which takes {size} bytes: the processes of "
        f"this user may lock {limit} bytes together, so {limit // size} such rings fit"
    ), locked_memory.MORE


def _io_uring_disabled() -> str:
    """The value of the sysctl if it switches io_uring off, else an empty string."""
    try:
        value = _DISABLED_SYSCTL.read_text().strip()
    except OSError:
        return ""
    return value if value in ("1", "2") else ""
