"""Turns the kernel's struct statx into the standard library's `os.stat_result`."""

from __future__ import annotations

import os
from struct import Struct
from typing import Final

STATX_BASIC_STATS: Final = 0x7FF
"""The mask with which statx(2) fills in all that is in an `os.stat_result`."""
STATX_SIZE: Final = 256
"""The size of a struct statx in bytes, with the spare ones at its end."""
_LAYOUT: Final = Struct("=IIQIIIHxxQQQQ" + "qIxxxx" * 4 + "IIII")


_MODE: Final = Struct("=H")
_MODE_AT: Final = 28


def mode_in(found: bytearray) -> int:
    """Returns the mode from a struct statx that the kernel has filled in."""
    mode: int = _MODE.unpack_from(found, _MODE_AT)[0]
    return mode


def stat_result_of(found: bytearray) -> os.stat_result:
    """Returns what `os.stat` would, from a struct statx that the kernel has filled in."""
    (
        _,
        block_size,
        _,
        links,
        uid,
        gid,
        mode,
        inode,
        size,
        blocks,
        _,
        atime,
        atime_ns,
        _,
        _,
        ctime,
        ctime_ns,
        mtime,
        mtime_ns,
        rdev_major,
        rdev_minor,
        dev_major,
        dev_minor,
    ) = _LAYOUT.unpack_from(found)
    device = os.makedev(dev_major, dev_minor)
    times = ((atime, atime_ns), (mtime, mtime_ns), (ctime, ctime_ns))
    return os.stat_result(
        (
            *(mode, inode, device, links, uid, gid, size),
            *(seconds for seconds, _ in times),
            *(seconds + fraction * 1e-9 for seconds, fraction in times),
            *(seconds * 1_000_000_000 + fraction for seconds, fraction in times),
            *(block_size, blocks, os.makedev(rdev_major, rdev_minor)),
        )
    )
