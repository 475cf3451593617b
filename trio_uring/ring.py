"""Sets up a ring as the options say and as the kernel allows; or says why it cannot."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from . import features
from ._native import ffi, lib
from .errors import UringUnavailableError
from .options import RingOptions

if TYPE_CHECKING:
    from ._native import Core

# A ring that ENOMEM refused is tried again at half the size, down to this.
_SMALLEST = 8

_DISABLED_SYSCTL = Path("/proc/sys/kernel/io_uring_disabled")


@attrs.frozen
class Ring:
    """An open ring: the core that holds it, and the names of what it uses."""

    core: Core
    flags: tuple[str, ...]
    options: RingOptions

    def release(self) -> None:
        """Gives an unused ring back."""
        lib.tu_release(self.core)
        lib.tu_close_interrupt(self.core)


def open_ring(options: RingOptions) -> Ring:
    """Opens a ring. Any thread; the first one to enter it becomes its owner.

    Raises:
      UringUnavailableError: the kernel refuses, or is too old.
    """
    off = frozenset(options.features)
    flags = features.choose(off)
    _try_calls()
    entries, cq_entries = options.entries, options.cq_entries
    while True:
        core, error = _open(entries, cq_entries, flags, no_iowait="no_iowait" not in off)
        if core is not None:
            ring = Ring(core, _in_use(core, off), options)
            _check_accept_ahead(ring)
            return ring
        if error == errno.EINVAL and not features.refused_flags().isdisjoint(flags):
            off |= features.refused_flags()
            flags = features.choose(off)
        elif error == errno.ENOMEM and entries > _SMALLEST:
            entries = max(_SMALLEST, entries // 2)
            cq_entries = max(entries, cq_entries // 2)
        else:
            raise unavailable(error)


def _open(entries: int, cq_entries: int, flags: tuple[str, ...], no_iowait: bool) -> tuple[Core | None, int]:
    """A core, or None and the errno."""
    # Whatever comes between this and its manager, what it holds goes with it.
    core: Core = ffi.gc(ffi.new("tu_core *"), lib.tu_destroy)
    result = lib.tu_open(core, entries, cq_entries, features.bits(flags), no_iowait)
    return (None, -result) if result < 0 else (core, 0)


def _try_calls() -> None:
    """Raises UringUnavailableError if a filter lets rings be set up but not used.

    Tried on a ring of its own, once per process: a run makes the other two calls
    only when user code has run, and it is too late for epoll then.
    """
    global _calls_work  # noqa: PLW0603
    if _calls_work:
        return
    core, error = _open(_SMALLEST, _SMALLEST, ("r_disabled",), no_iowait=False)
    if core is None:
        return  # What is in the way of any ring is in the way of the run's, which tells.
    lib.tu_start(core, False)
    lib.tu_poll_add(core, _NO_DESCRIPTOR, lib.TU_READ)
    error = -lib.tu_poll(core)
    Ring(core, (), RingOptions()).release()
    if error > 0:
        enters = lib.tu_probe_operations(ffi.new("uint8_t[1]"), 1) >= 0
        raise unavailable(error, "io_uring_enter" if enters else "io_uring_register")
    _calls_work = True


_calls_work = False

# No limit of open files allows it, and the kernel only says so when it is asked.
_NO_DESCRIPTOR = 2**31 - 1


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
    ring.release()
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


def unavailable(error: int, call: str = "io_uring_setup") -> UringUnavailableError:
    """Why ``call`` answered ``error``, and what to do about it."""
    code = f"{errno.errorcode.get(error, error)}, {os.strerror(error)}"
    reason, remedy = _refusal(error) if call == "io_uring_setup" else _refusal_of_use(call)
    return UringUnavailableError(f"{reason} ({code})", remedy, error)


_ALLOW_ALL = (
    "Run the container with a seccomp profile that allows io_uring_setup, "
    "io_uring_enter and io_uring_register"
)


def _refusal_of_use(call: str) -> tuple[str, str]:
    return f"rings can be set up, but {call} is refused, most likely by a seccomp filter", _ALLOW_ALL


def _refusal(error: int) -> tuple[str, str]:
    if error == errno.EPERM and (sysctl := _io_uring_disabled()):
        who = "for everybody" if sysctl == "2" else "for processes without CAP_SYS_ADMIN"
        return (
            f"kernel.io_uring_disabled={sysctl} switches it off {who}",
            "Set it with `sysctl kernel.io_uring_disabled=0`"
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
            "Use a kernel from 5.13 on, or a sandbox that has it",
        )
    if error in (errno.EMFILE, errno.ENFILE):
        whose = "this process has" if error == errno.EMFILE else "the system has"
        return f"{whose} no file descriptor left for a ring", "Raise the limit (ulimit -n) or close files"
    if error == errno.ENOMEM:
        return (
            "there is no memory for even a small ring; without CAP_IPC_LOCK it counts as locked memory",
            "Raise the limit of locked memory (ulimit -l)",
        )
    return "io_uring_setup failed", "`python -m trio_uring doctor` tells what this kernel allows"


def _io_uring_disabled() -> str:
    """The value of the sysctl if it switches io_uring off, else an empty string."""
    try:
        value = _DISABLED_SYSCTL.read_text().strip()
    except OSError:
        return ""
    return value if value in ("1", "2") else ""
