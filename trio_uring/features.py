"""The features of io_uring that a run uses, each with the kernel that brought it.

A table and the rules between its rows. Which of them a kernel has cannot be read
from its version, since vendors port them back, nor from the feature mask, which
does not tell the set-up flags: each is tried, alone and with what it demands.
"""

from __future__ import annotations

import errno
import functools
import attrs

from ._native import ffi, lib


@attrs.frozen
class SetupFlag:
    """A flag of io_uring_setup, dropped on its own where the kernel refuses it."""

    name: str
    bit: int
    since: str
    gain: str
    needs: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


@attrs.frozen
class Feature:
    """A bit of the feature mask that io_uring_setup reports."""

    name: str
    bit: int
    since: str
    gain: str


# Oldest kernel first. DEFER_TASKRUN and COOP_TASKRUN are two ways to one end and
# exclude each other; either is used only with TASKRUN_FLAG, without which a tick
# would have to enter the kernel to learn whether there is anything to do.
SETUP_FLAGS = (
    SetupFlag("cqsize", 1 << 3, "5.5", "a completion queue of the size asked for"),
    SetupFlag("r_disabled", 1 << 6, "5.10", "the first thread to enter the ring owns it, not the one that made it"),
    SetupFlag("submit_all", 1 << 7, "5.18", "a bad submission does not hold up those behind it"),
    SetupFlag("taskrun_flag", 1 << 9, "5.19", "a tick with nothing to do makes no system call"),
    SetupFlag("coop_taskrun", 1 << 8, "5.19", "completions do not interrupt Python", needs=("taskrun_flag",)),
    SetupFlag("single_issuer", 1 << 12, "6.0", "no locking: one thread owns the ring"),
    SetupFlag(
        "defer_taskrun",
        1 << 13,
        "6.1",
        "completions are worked on when the loop asks for them",
        needs=("single_issuer", "taskrun_flag"),
        excludes=("coop_taskrun",),
    ),
    SetupFlag("no_sqarray", 1 << 16, "6.6", "submissions without an index array"),
)

FEATURES = (
    Feature("nodrop", 1 << 1, "5.5", "no completion is lost when the queue is full"),
    Feature("ext_arg", 1 << 8, "5.11", "waits with a timeout of their own"),
    Feature("cqe_skip", 1 << 11, "5.17", "no completions that nobody asked for"),
    Feature("no_iowait", 1 << 17, "6.15", "a sleeping program does not count as waiting for I/O"),
)

REQUIRED = ("nodrop", "ext_arg")
SWITCHES = (*(flag.name for flag in SETUP_FLAGS), "no_iowait")


@functools.cache
def choose(off: frozenset[str]) -> tuple[str, ...]:
    """The flags to set when those in ``off`` may not be, in the table's order."""
    chosen = {flag.name for flag in SETUP_FLAGS} - off
    for flag in SETUP_FLAGS:
        if flag.name in chosen and not chosen.issuperset(flag.needs):
            chosen.discard(flag.name)
    for flag in SETUP_FLAGS:
        if flag.name in chosen:
            chosen.difference_update(flag.excludes)
    if chosen.isdisjoint(("coop_taskrun", "defer_taskrun")):
        chosen.discard("taskrun_flag")
    return tuple(flag.name for flag in SETUP_FLAGS if flag.name in chosen)


@functools.cache
def bits(names: tuple[str, ...]) -> int:
    return sum(flag.bit for flag in SETUP_FLAGS if flag.name in names)


@functools.cache
def in_use(setup_flags: int, mask: int, off: frozenset[str]) -> tuple[str, ...]:
    """The names of what a ring uses, given what the kernel says of it and what is switched off."""
    used = [flag.name for flag in SETUP_FLAGS if setup_flags & flag.bit]
    used += [feature.name for feature in FEATURES if mask & feature.bit and feature.name not in off]
    return tuple(used)


def probe(setup_flags: int) -> int:
    """Sets up a ring with these flags and closes it: the feature mask, or -errno."""
    features = ffi.new("uint32_t *")
    result = lib.tu_probe_setup(setup_flags, features)
    return result if result < 0 else int(features[0])


@functools.cache
def refused_flags() -> frozenset[str]:
    """The set-up flags that this kernel does not know, each tried with what it needs."""
    return frozenset(flag.name for flag in SETUP_FLAGS if probe(bits(_trial(flag))) == -errno.EINVAL)


def _trial(flag: SetupFlag) -> tuple[str, ...]:
    """A set with this flag that is valid where the flag is."""
    companion = ("coop_taskrun",) if flag.name == "taskrun_flag" else ()
    return (flag.name, *flag.needs, *companion)
