"""Opens a ring as the options say and as the kernel allows; or raises why it cannot."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import attrs

from . import features, locked_memory
from .errors import UringUnavailableError
from .native import ffi, lib
from .refusals import SMALLEST, SMALLEST_CQ, unavailable

if TYPE_CHECKING:
    from .native import Core
    from .options import RingOptions


class CoreOwner:
    """Owns the memory of a core, and gives its ring and interrupt back when it is thrown away.

    `ffi.gc` would not do: if its object is garbage together with a manager, it may free the core's memory
    before the manager is finalised.
    """

    __slots__ = ("_destroy", "core")

    def __init__(self) -> None:
        self._destroy = lib.tu_destroy  # when Python ends, globals may be gone before this object
        self.core: Core = ffi.new("tu_core *")

    def __del__(self) -> None:
        self._destroy(self.core)


@attrs.frozen
class Ring:
    """An open ring: the owner of its core, the names of the flags and features that it uses, and its
    options."""

    owner: CoreOwner
    flags: tuple[str, ...]
    options: RingOptions

    @property
    def core(self) -> Core:
        return self.owner.core

    def release(self) -> None:
        """Closes a ring that no run uses."""
        lib.tu_destroy(self.core)
        locked_memory.ring_was_closed()


def open_ring(options: RingOptions) -> Ring:
    """Opens a ring. Any thread; the first thread that enters it becomes its owner.

    Raises:
      UringUnavailableError: the kernel refuses, or is too old.
    """
    off = frozenset(options.features)
    flags = features.choose(off)
    entries, cq_entries = options.entries, options.cq_entries
    while True:
        owner, error, waited = _open(entries, cq_entries, flags)
        if owner is not None:
            return _verified(owner, off, options)
        if error == errno.EINVAL and not features.refused_flags().isdisjoint(flags):
            off |= features.refused_flags()
            flags = features.choose(off)
        elif error == errno.ENOMEM and (entries > SMALLEST or cq_entries > SMALLEST_CQ):
            entries = min(entries, max(SMALLEST, entries // 2))
            cq_entries = max(entries, min(cq_entries, max(SMALLEST_CQ, cq_entries // 2)))
        else:
            raise unavailable(error, waited=waited)


def _verified(owner: CoreOwner, off: frozenset[str], options: RingOptions) -> Ring:
    """The ring; raises if it cannot be used, or not as the options say."""
    try:
        _try_calls(owner.core)
        ring = Ring(owner, _in_use(owner.core, off), options)
        _check_accept_ahead(ring)
        lib.tu_set_wait_flags(owner.core, features.wait_flags(ring.flags))
        lib.tu_do_without(owner.core, features.feature_bits(off))
    except BaseException:
        Ring(owner, (), options).release()
        raise
    return ring


def _open(entries: int, cq_entries: int, flags: tuple[str, ...]) -> tuple[CoreOwner | None, int, bool]:
    """The owner of a new core; or None and the errno. And whether the call has waited for memory."""
    owner = CoreOwner()
    core = owner.core
    bits = features.bits(flags)
    result, waited = locked_memory.patiently(lambda: lib.tu_open(core, entries, cq_entries, bits))
    return (None, -result, waited) if result < 0 else (owner, 0, waited)


def _try_calls(core: Core) -> None:
    """Raises UringUnavailableError if a seccomp filter lets rings be set up but not used.

    It tries once per process, before the first ring is used. A run makes these calls only after code of
    the user's has run, and then it is too late for epoll.
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
    """The names of the flags and features that the ring uses. Raises UringUnavailableError if it lacks one
    that we need."""
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
    """Raises UringUnavailableError if the ring cannot accept ahead, and the options ask for that."""
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
