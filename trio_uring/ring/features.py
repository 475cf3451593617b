"""The features of io_uring that a run uses, each with the kernel that brought it.

A table and the rules between its rows. Which of them a kernel has cannot be read
from its version, since vendors port them back, nor from the feature mask, which
does not tell the set-up flags: each is tried, alone and with what it demands.
"""

from __future__ import annotations

import errno
import functools
from typing import TYPE_CHECKING, Any

import attrs

from . import locked_memory
from .native import ffi, lib

if TYPE_CHECKING:
    from .native import Core


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
    """A bit of the feature mask that io_uring_setup reports, or something that shows in no
    mask, but is as old as an operation."""

    name: str
    bit: int
    since: str
    gain: str
    as_old_as: str = ""
    """The name of that operation."""
    needs: str = ""
    """Another one without which no run uses it."""

    def is_in(self, mask: int) -> bool:
        return has_operation(self.as_old_as) if self.as_old_as else bool(mask & self.bit)


@attrs.frozen
class Operation:
    """An operation of a submission, by its number in the kernel's interface."""

    name: str
    number: int
    since: str
    gain: str
    used: bool = False
    needs: str = ""
    """The feature without which no run uses it."""


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
        "rsrc_tags", 1 << 10, "5.13", "polls that stay (multishot): they have no bit, and came with this one"
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
    Feature("no_iowait", 1 << 17, "6.15", "a sleeping program does not count as waiting for I/O"),
)

# Those that a run makes, files and paths are made of, and then what sockets and processes are.
OPERATIONS = (
    Operation("poll_add", 6, "5.1", "waiting until a descriptor is readable or writable", used=True),
    Operation("async_cancel", 14, "5.5", "ending a wait before its time", used=True),
    Operation("nop", 0, "5.1", "taking a wait back that the kernel has not seen yet", used=True),
    Operation("accept", 13, "5.5", "sockets: accepting connections", used=True, needs="completions"),
    Operation("connect", 16, "5.5", "sockets: connecting"),
    Operation("recv", 27, "5.6", "sockets: receiving", used=True, needs="completions"),
    Operation("send", 26, "5.6", "sockets: sending", used=True, needs="completions"),
    Operation("recvmsg", 10, "5.3", "sockets: receiving datagrams"),
    Operation("sendmsg", 9, "5.3", "sockets: sending datagrams"),
    Operation("send_zc", 47, "6.0", "sockets: sending without a copy"),
    Operation("sendmsg_zc", 48, "6.1", "sockets: sending many buffers without a copy"),
    Operation("splice", 30, "5.7", "files to sockets without a copy", used=True),
    Operation("openat", 18, "5.6", "files: opening", used=True),
    Operation("read", 22, "5.6", "files: reading", used=True),
    Operation("write", 23, "5.6", "files: writing", used=True),
    Operation("readv", 1, "5.1", "files: reading into several buffers", used=True),
    Operation("writev", 2, "5.1", "files: writing from several buffers", used=True),
    Operation("fsync", 3, "5.1", "files: reaching the disk", used=True),
    Operation("fallocate", 17, "5.6", "files: reserving space", used=True),
    Operation("ftruncate", 55, "6.9", "files: changing the length", used=True),
    Operation("statx", 21, "5.6", "paths: what is there", used=True),
    Operation("unlinkat", 36, "5.11", "paths: removing", used=True),
    Operation("renameat", 35, "5.11", "paths: renaming", used=True),
    Operation("mkdirat", 37, "5.15", "paths: making directories", used=True),
    Operation("symlinkat", 38, "5.15", "paths: making symbolic links", used=True),
    Operation("linkat", 39, "5.15", "paths: making hard links", used=True),
    Operation("waitid", 50, "6.7", "processes: waiting for their end"),
)

REQUIRED = ("nodrop", "ext_arg", "rsrc_tags")
SWITCHES = (*(flag.name for flag in SETUP_FLAGS), "no_iowait", "completions", "tls")
_NUMBERS = {operation.name: operation.number for operation in OPERATIONS}


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
    off = off.union(*(with_what_needs(name) for name in off))
    used += [feature.name for feature in FEATURES if feature.is_in(mask) and feature.name not in off]
    return tuple(used)


def with_what_needs(name: str) -> tuple[str, ...]:
    """A feature, and those that no run uses without it."""
    return name, *(feature.name for feature in FEATURES if feature.needs == name)


def probe(setup_flags: int) -> int:
    """Sets up a ring with these flags and closes it: the feature mask, or -errno."""
    features = ffi.new("uint32_t *")
    result, _ = locked_memory.patiently(lambda: lib.tu_probe_setup(setup_flags, features))
    if result < 0:
        return result
    locked_memory.ring_was_closed()
    return int(features[0])


def try_flag(flag: SetupFlag) -> int:
    """`probe` of a flag together with what it needs."""
    companion = ("coop_taskrun",) if flag.name == "taskrun_flag" else ()
    return probe(bits((flag.name, *flag.needs, *companion)))


@functools.cache
def refused_flags() -> frozenset[str]:
    """The set-up flags that this kernel does not know, each tried with what it needs."""
    return frozenset(flag.name for flag in SETUP_FLAGS if try_flag(flag) == -errno.EINVAL)


def has_operation(name: str) -> bool:
    """Whether this kernel has an operation of OPERATIONS."""
    if not _supported:
        probe_operations()
    return _NUMBERS[name] in _supported


def probe_operations() -> frozenset[int] | int:
    """The numbers of the operations that this kernel has, or -errno. Sets up a ring for that."""

    def call() -> int:
        return lib.tu_probe_operations(supported, 256)

    supported = ffi.new("uint8_t[]", 256)
    result, _ = locked_memory.patiently(call)
    if result < 0:
        return result
    locked_memory.ring_was_closed()
    return _learn(supported)


def probe_operations_of(core: Core) -> int:
    """Learns the same from a run's ring, which costs no other: >= 0, or -errno."""
    supported = ffi.new("uint8_t[]", 256)
    result = lib.tu_probe_operations_of(core, supported, 256)
    if result >= 0:
        _learn(supported)
    return result


def _learn(supported: Any) -> frozenset[int]:
    global _supported  # noqa: PLW0603
    _supported = frozenset(
        number for number, has_it in enumerate(ffi.buffer(supported, 256)) if has_it != b"\0"
    )
    return _supported


_supported: frozenset[int] = frozenset()
"""Empty before the kernel was asked."""
