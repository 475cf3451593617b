"""Runs a command under a seccomp filter that refuses system calls, as a container does.

    python tests/seccomp.py EPERM io_uring_setup [ERRNO CALL ...] -- COMMAND ARGUMENT ...

A filter binds the thread that installs it, what that thread starts, and nobody
else; it cannot be taken off, so `install` belongs into a child process. It needs
no privilege (PR_SET_NO_NEW_PRIVS) and answers before the kernel looks at the
call's arguments.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

# Newer calls have one number on all architectures.
CALLS = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "openat2": 437}
CALLS |= {
    "x86_64": {"preadv2": 327, "statx": 332, "fstatfs": 138},
    "aarch64": {"preadv2": 286, "statx": 291, "fstatfs": 44},
}.get(platform.machine(), {})

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_RET_ERRNO = 0x00050000
RET_USER_NOTIF = 0x7FC00000
_RET_ALLOW = 0x7FFF0000

# Offsets in struct seccomp_data, and three instructions of classic BPF.
_NUMBER = 0
_ARCH = 4
_LOAD_WORD = 0x20
_JUMP_IF_EQUAL = 0x15
_RETURN = 0x06


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)


def install(rules: dict[str, int]) -> None:
    """From now on this thread's calls named in ``rules`` fail with that errno.

    Raises:
      OSError: the kernel takes no filter.
      KeyError: a call, or this machine, is not in the tables above.
    """
    filter_program = program({call: _RET_ERRNO | error for call, error in rules.items()})
    no_new_privileges()
    _prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(filter_program))


def program(actions: dict[str, int]) -> ctypes.Structure:
    """A filter that does this with the calls that are named, and allows all others."""
    lines = [
        _instruction(_LOAD_WORD, _ARCH),
        _instruction(_JUMP_IF_EQUAL, _AUDIT_ARCH[platform.machine()], if_true=1),
        _instruction(_RETURN, _RET_ALLOW),
        _instruction(_LOAD_WORD, _NUMBER),
    ]
    for call, action in actions.items():
        lines.append(_instruction(_JUMP_IF_EQUAL, CALLS[call], if_false=1))
        lines.append(_instruction(_RETURN, action))
    lines.append(_instruction(_RETURN, _RET_ALLOW))
    return _Program(len(lines), b"".join(lines))


def no_new_privileges() -> None:
    _prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))


def _prctl(option: int, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    padding = [ctypes.c_ulong(0)] * (4 - len(arguments))
    if libc.prctl(option, *arguments, *padding):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main(arguments: list[str]) -> None:
    at = arguments.index("--")
    rules = dict(zip(arguments[1:at:2], (getattr(errno, name) for name in arguments[0:at:2]), strict=True))
    command = arguments[at + 1 :]
    install(rules)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
