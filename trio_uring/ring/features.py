"""The features of io_uring that a run uses, each with the kernel that brought it.

Tables, and the rules between their rows. Which of the features a kernel has cannot be read off its
version, since vendors port features back. Nor can it be read off the feature mask, which does not
include the set-up flags: each of these is tried, together with the flags that it needs.
"""

from __future__ import annotations

import errno
import functools
from typing import TYPE_CHECKING, Any

import attrs

from . import locked_memory
from .native import ffi, lib
from .opcodes import OPCODES

if TYPE_CHECKING:
    from .native import Core


@attrs.frozen
class SetupFlag:
    """A flag of io_uring_setup. Where the kernel refuses it, a ring does without it."""

    name: str
    bit: int
    since: str
    gain: str
    needs: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


@attrs.frozen
class Feature:
    """A bit of the feature mask that io_uring_setup reports; or something that has no bit, but came with the
    same kernel as an operation."""

    name: str
    bit: int
    since: str
    gain: str
    as_old_as: str = ""
    """The name of that operation."""
    needs: str = ""
    """Another one without which no run uses it."""
    wait_flag: int = 0
    """The flag of io_uring_enter that a run's waits have for it; 0: none."""

    def is_in(self, mask: int) -> bool:
        return has_operation(self.as_old_as) if self.as_old_as else bool(mask & self.bit)


# Oldest kernel first. DEFER_TASKRUN and COOP_TASKRUN are two ways to one end and
# exclude each other; either is used only with TASKRUN_FLAG, without which a tick
# would have to enter the kernel to learn whether there is anything to do.
SETUP_FLAGS = (
    SetupFlag("cqsize", 1 << 3, "5.5", "a completion queue of the size asked for"),
    SetupFlag(
        "r_disabled", 1 << 6, "5.10", "the first thread to enter the ring owns it, not the one that made it"
    ),
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
    Feature(
        "rsrc_tags",
        1 << 10,
        "5.13",
        "polls that stay (multishot), which have no bit of their own and came with this one",
    ),
    Feature("cqe_skip", 1 << 11, "5.17", "no completions that nobody asked for"),
    Feature("completions", 0, "6.0", "stream sockets receive and send by completions", as_old_as="send_zc"),
    Feature(
        "tls",
        0,
        "6.0",
        "trio.SSLStream: no checkpoint for a free lock, all records that have come at once",
        as_old_as="send_zc",
        needs="completions",
    ),
    Feature(
        "pipes",
        0,
        "5.1",
        "trio.lowlevel.FdStream: no attempt to read what is known to be empty",
        as_old_as="poll_add",
    ),
    Feature(
        "no_iowait", 1 << 17, "6.15", "a sleeping program does not count as waiting for I/O", wait_flag=1 << 7
    ),
)

REQUIRED = ("nodrop", "ext_arg", "rsrc_tags")
SWITCHES = tuple(row.name for row in (*SETUP_FLAGS, *FEATURES) if row.name not in REQUIRED)
_NUMBERS = {opcode.name: opcode.number for opcode in OPCODES}


@functools.cache
def choose(off: frozenset[str]) -> tuple[str, ...]:
    """The names of the flags to set, without those in ``off``, in the order of the table."""
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
    """The flags of these names, for io_uring_setup."""
    return sum(flag.bit for flag in SETUP_FLAGS if flag.name in names)


@functools.cache
def wait_flags(names: tuple[str, ...]) -> int:
    """The flags of io_uring_enter for the waits of a ring that uses what has these names."""
    return sum(feature.wait_flag for feature in FEATURES if feature.name in names)


@functools.cache
def feature_bits(names: frozenset[str]) -> int:
    """The bits that those of these names have in the feature mask."""
    return sum(feature.bit for feature in FEATURES if feature.name in names)


@functools.cache
def in_use(setup_flags: int, mask: int, off: frozenset[str]) -> tuple[str, ...]:
    """The names of the flags and features that a ring uses. The kernel gives ``setup_flags`` and ``mask``
    for the ring; ``off`` are the names that are switched off."""
    used = [flag.name for flag in SETUP_FLAGS if setup_flags & flag.bit]
    off = off.union(*(with_what_needs(name) for name in off))
    used += [feature.name for feature in FEATURES if feature.is_in(mask) and feature.name not in off]
    return tuple(used)


def with_what_needs(name: str) -> tuple[str, ...]:
    """A feature, and those that no run uses without it."""
    return name, *(feature.name for feature in FEATURES if feature.needs == name)


def probe(setup_flags: int) -> int:
    """Sets up a ring with these flags and closes it. Returns the feature mask, or -errno."""
    features = ffi.new("uint32_t *")
    result, _ = locked_memory.patiently(lambda: lib.tu_probe_setup(setup_flags, features))
    if result < 0:
        return result
    locked_memory.ring_was_closed()
    return int(features[0])


def try_flag(flag: SetupFlag) -> int:
    """Does what `probe` does, with a flag and the flags that it needs."""
    companion = ("coop_taskrun",) if flag.name == "taskrun_flag" else ()
    return probe(bits((flag.name, *flag.needs, *companion)))


@functools.cache
def refused_flags() -> frozenset[str]:
    """The names of the set-up flags that this kernel does not know."""
    return frozenset(flag.name for flag in SETUP_FLAGS if try_flag(flag) == -errno.EINVAL)


def has_operation(name: str) -> bool:
    """Whether this kernel has the operation, by its name in ring/opcodes.py."""
    if not _supported:
        probe_operations()
    return _NUMBERS[name] in _supported


def probe_operations() -> frozenset[int] | int:
    """Asks the kernel which operations it has: returns their numbers, or -errno. Sets up a ring for that."""

    def call() -> int:
        return lib.tu_probe_operations(supported, 256)

    supported = ffi.new("uint8_t[]", 256)
    result, _ = locked_memory.patiently(call)
    if result < 0:
        return result
    locked_memory.ring_was_closed()
    return _remember(supported)


def probe_operations_of(core: Core) -> int:
    """Asks the same by the ring of a run, so that none has to be set up: >= 0, or -errno. Called before the
    run's first tick."""
    supported = ffi.new("uint8_t[]", 256)
    result = lib.tu_probe_operations_of(core, supported, 256)
    if result >= 0:
        _remember(supported)
    return result


def _remember(supported: Any) -> frozenset[int]:
    """Keeps the kernel's answer, as the numbers of the operations that it has."""
    global _supported  # noqa: PLW0603
    _supported = frozenset(
        number for number, has_it in enumerate(ffi.buffer(supported, 256)) if has_it != b"\0"
    )
    return _supported


_supported: frozenset[int] = frozenset()
"""The numbers of the operations that the kernel has; empty before it was asked."""
