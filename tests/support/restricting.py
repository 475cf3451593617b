"""Rings that the kernel itself refuses operations (IORING_REGISTER_RESTRICTIONS, Linux 5.10): each submission
of one is answered with EACCES. For a child process."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING

import seccomp

from trio_uring.ring import features, opening

if TYPE_CHECKING:
    from collections.abc import Collection

_RESTRICTIONS = 11
# struct io_uring_restriction, and what it allows.
_RESTRICTION = struct.Struct("=HB13x")
_REGISTER, _OPERATION, _FLAGS = 0, 1, 2
_ALL_FLAGS = 0xFF
_REGISTERS = 20


def restrict(numbers: Collection[int]) -> None:
    """From now on rings that are opened may do all that the kernel has, but the operations of these numbers
    (IORING_OP_)."""
    supported = features.probe_operations()
    assert not isinstance(supported, int)
    original = opening._open

    def restricted(entries: int, cq_entries: int, flags: tuple[str, ...]) -> object:
        before = set(os.listdir("/proc/self/fd"))
        answer = original(entries, cq_entries, flags)
        for name in set(os.listdir("/proc/self/fd")) - before:
            if os.path.exists(path := f"/proc/self/fd/{name}") and "io_uring" in os.readlink(path):
                _register(int(name), supported - set(numbers))
        return answer

    opening._open = restricted  # type: ignore[assignment]


def _register(fd: int, allowed: Collection[int]) -> None:
    rows = [_RESTRICTION.pack(_OPERATION, number) for number in sorted(allowed)]
    rows += [_RESTRICTION.pack(_REGISTER, number) for number in range(_REGISTERS)]
    rows += [_RESTRICTION.pack(_FLAGS, _ALL_FLAGS)]
    libc = ctypes.CDLL(None, use_errno=True)
    number = seccomp.CALLS["io_uring_register"]
    if libc.syscall(number, fd, _RESTRICTIONS, b"".join(rows), len(rows)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
