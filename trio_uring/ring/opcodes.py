"""The operations of io_uring, a row each: whatever is to be known of one stands here.

Who needs such a fact asks the row, and `perform` is called with it. To add an operation, write its
row, a function in lowlevel/operations.py, and a call of that in tests/lowlevel/test_opcodes.py,
which compares row, function and docstring with each other and with the kernel's header.

The row of what no run uses has only what the doctor tells.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import attrs

Field: TypeAlias = Literal["address", "offset"]
"""A field of a submission, by the name that `perform` has for it."""


@attrs.frozen
class Opcode:
    """An operation, by its number in the kernel's interface."""

    name: str
    number: int
    """IORING_OP_ of <linux/io_uring.h>."""
    since: str
    """The first kernel that has it."""
    gain: str
    """What it is good for, in the doctor's words."""
    used: bool = True
    """Whether runs make it."""
    needs: str = ""
    """The feature without which no run makes it."""
    makes_descriptor: bool = False
    """Whether its result is a descriptor, which is to be closed if nobody takes it."""
    pins: tuple[Field, ...] = ()
    """The fields that say where memory of the caller's is. It stays there until the completion is in.
    In the other fields are numbers."""
    by_worker: bool = True
    """Whether a worker of the kernel's may do it. It is made again if that was interrupted (EINTR)."""
    call: str = ""
    """The function of `os` that does the same, and that a thread calls where the ring may not go; where
    there is also a ``call_here``, at an offset."""
    call_here: str = ""
    """The function of `os` that does the same at the position of the file's own."""


# Those that a run makes for itself, and those of sockets.
POLL_ADD: Final = Opcode(
    "poll_add", 6, "5.1", "waiting until a descriptor is readable or writable", by_worker=False
)
ASYNC_CANCEL: Final = Opcode("async_cancel", 14, "5.5", "ending a wait before its time", by_worker=False)
NOP: Final = Opcode("nop", 0, "5.1", "taking a wait back that the kernel has not seen yet", by_worker=False)
ACCEPT: Final = Opcode(
    "accept", 13, "5.5", "sockets: accepting connections", needs="completions", makes_descriptor=True
)
CONNECT: Final = Opcode("connect", 16, "5.5", "sockets: connecting", used=False)
RECV: Final = Opcode("recv", 27, "5.6", "sockets: receiving", needs="completions")
SEND: Final = Opcode("send", 26, "5.6", "sockets: sending", needs="completions", pins=("address",))
RECVMSG: Final = Opcode("recvmsg", 10, "5.3", "sockets: receiving datagrams", used=False)
SENDMSG: Final = Opcode("sendmsg", 9, "5.3", "sockets: sending datagrams", used=False)
SEND_ZC: Final = Opcode("send_zc", 47, "6.0", "sockets: sending without a copy", used=False)
SENDMSG_ZC: Final = Opcode(
    "sendmsg_zc", 48, "6.1", "sockets: sending many buffers without a copy", used=False
)

# Those of files, paths and processes.
SPLICE: Final = Opcode("splice", 30, "5.7", "files to sockets without a copy", call="splice")
OPENAT: Final = Opcode(
    "openat", 18, "5.6", "files: opening", makes_descriptor=True, pins=("address",), call="open"
)
READ: Final = Opcode("read", 22, "5.6", "files: reading", pins=("address",), call="preadv", call_here="readv")
WRITE: Final = Opcode(
    "write", 23, "5.6", "files: writing", pins=("address",), call="pwritev", call_here="writev"
)
READV: Final = Opcode(
    "readv",
    1,
    "5.1",
    "files: reading into several buffers",
    pins=("address",),
    call="preadv",
    call_here="readv",
)
WRITEV: Final = Opcode(
    "writev",
    2,
    "5.1",
    "files: writing from several buffers",
    pins=("address",),
    call="pwritev",
    call_here="writev",
)
FSYNC: Final = Opcode("fsync", 3, "5.1", "files: reaching the disk", call="fsync")
FALLOCATE: Final = Opcode("fallocate", 17, "5.6", "files: reserving space")
FTRUNCATE: Final = Opcode("ftruncate", 55, "6.9", "files: changing the length", call="ftruncate")
STATX: Final = Opcode("statx", 21, "5.6", "paths: what is there", pins=("address", "offset"), call="stat")
UNLINKAT: Final = Opcode("unlinkat", 36, "5.11", "paths: removing", pins=("address",), call="unlink")
RENAMEAT: Final = Opcode(
    "renameat", 35, "5.11", "paths: renaming", pins=("address", "offset"), call="replace"
)
MKDIRAT: Final = Opcode("mkdirat", 37, "5.15", "paths: making directories", pins=("address",), call="mkdir")
SYMLINKAT: Final = Opcode(
    "symlinkat", 38, "5.15", "paths: making symbolic links", pins=("address", "offset"), call="symlink"
)
LINKAT: Final = Opcode(
    "linkat", 39, "5.15", "paths: making hard links", pins=("address", "offset"), call="link"
)
WAITID: Final = Opcode("waitid", 50, "6.7", "processes: waiting for their end", used=False)

OPCODES: Final[tuple[Opcode, ...]] = tuple(row for row in vars().values() if isinstance(row, Opcode))
"""The table, in this order."""
