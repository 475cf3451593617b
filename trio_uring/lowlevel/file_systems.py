"""What a descriptor is open on: whether it has a position, and whether the ring may read and write it.

The ring does not suit all file systems. When one makes only a part of an operation, the kernel itself asks
for the rest. But it asks a FUSE server that answers short for the same offset again, and the result does
not show that. And a worker of the kernel's takes short reads of sysfs for the end of the file. So the ring
is used only on file systems on which it was tested: we call these *measured*. All others are read and
written by threads.

What was found out is remembered, so that a file system is asked once:

- By its device, if that has a number of its own. Other numbers, as a tmpfs has, are made up (their major
  number is 0): once such a file system is unmounted, another may get its number. A file system that is
  not measured is remembered by its device even so, since asking it each time may mean to wait for a
  server. If a measured one gets that number later, threads read and write it, which is slower, but right.
- By its mount, if it is measured. The number of a mount is never given again, from Linux 6.8 on. Before
  that, the measured file systems with made-up numbers are asked each time.

To ask may mean to wait for a server. A caller that must not wait uses `learn_by_name`, which looks into
the kernel's list of mounts.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import struct
from typing import TYPE_CHECKING, Final, Protocol

from ..ring.native import ffi, lib, missing

if TYPE_CHECKING:
    from collections.abc import Iterator


class Status(Protocol):
    """The fields of an `os.stat_result` that we use. C has a struct with the same fields."""

    @property
    def st_mode(self) -> int: ...
    @property
    def st_size(self) -> int: ...
    @property
    def st_dev(self) -> int: ...


_MEASURED: Final = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # xfs
        0x9123683E,  # btrfs
        0x01021994,  # tmpfs
    }
)
"""The measured file systems, by their numbers in <linux/magic.h>."""
_OVERLAY: Final = 0x794C7630

_known: dict[int, bool] = {}
"""Whether a file system is measured, by its device."""
_overlays: set[tuple[int, str]] = set()
"""Devices and mounts of the overlays that have all their layers on measured file systems."""


def has_position(fd: int, mode: int) -> bool:
    """Tells whether what ``fd`` is open on has a position, which reads and writes move. ``mode`` is its
    `st_mode`. An eventfd can be sought, but has none: so what can be polled counts as without."""
    try:
        os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode) or not _can_be_polled(fd)


def _can_be_polled(fd: int) -> bool:
    try:
        epoll = select.epoll()
    except OSError:  # there are no more descriptors
        return _ready_for(fd) != _ALWAYS_READY
    with epoll:
        try:
            epoll.register(fd, 0)
        except OSError:
            return False
        return True


_ALWAYS_READY: Final = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM
"""What poll(2) answers for what cannot be polled."""


def _ready_for(fd: int) -> int:
    poll = select.poll()
    poll.register(fd, _ALWAYS_READY)
    return sum(events for _, events in poll.poll(0))


def is_measured(fd: int, status: Status) -> bool:
    """Tells whether the ring may read and write a file: a block device, or on a measured file system.
    ``status`` is its `os.fstat`."""
    if stat.S_ISBLK(status.st_mode):
        return True
    device = status.st_dev
    if missing is not None:  # without the core there is no ring
        return False
    known = _known.get(device)
    if known is not None:
        return known
    if lib.tu_remembers_measured(fd):
        return True
    found = lib.tu_file_system(fd)
    try:
        measured = found in _MEASURED or (found == _OVERLAY and _is_measured_overlay(fd, device))
    except OSError:  # there is no /proc, or there are no more descriptors
        return False
    if found >= 0 and (os.major(device) or not measured):
        _known[device] = measured
    if measured:
        lib.tu_remember_measured(fd)
    return measured


_PLACE: Final = slice(0x88, 0x98)
"""Where a struct statx has the numbers of the device and of the mount."""
_LEARNT_BY_TYPE: Final = ("ext2", "ext3", "ext4", "xfs", "tmpfs")
"""The measured file systems that have the same device number in a status and in the list of mounts."""
_MOST_PLACES: Final = 1000

_places: set[bytes] = set()
"""The devices and mounts that were looked for in the list of mounts."""


def learn_by_name(dir_fd: int, name: bytes, flags: int) -> bool:
    """Looks in the list of mounts for the file system that a name leads to, by what the kernel has cached
    of the name. Returns True if that is measured, and was not known until now. Waits for no server, and
    looks once for each mount."""
    found = bytearray(256)
    status = ffi.from_buffer(found)
    result = lib.tu_look_at_once(dir_fd, name, flags, status)
    place = bytes(found[_PLACE])
    if result < 0 or place in _places:
        return False
    if len(_places) == _MOST_PLACES:
        _places.clear()
    _places.add(place)
    major, minor = struct.unpack_from("=II", place)
    if _type_of(f"{major}:{minor}") not in _LEARNT_BY_TYPE:
        return False
    result = lib.tu_look_at_once(dir_fd, name, flags, status)
    if result < 0 or found[_PLACE] != place:  # the list may have told of another file system
        return False
    lib.tu_remember_status(status)
    return True


def _type_of(device: str) -> str:
    """Returns the type of a device's file system by the list of mounts; empty if it is not there."""
    try:
        with open("/proc/self/mountinfo") as lines:
            line = next((line for line in lines if line.split()[2] == device), "")
    except OSError:
        return ""
    return line.partition(" - ")[2].partition(" ")[0]


def _is_measured_overlay(fd: int, device: int) -> bool:
    mount = _mount_of(fd)
    if (device, mount) in _overlays:
        return True
    layers = list(_layers(mount))
    if not layers or not all(map(_is_on_measured, layers)):
        return False
    _overlays.add((device, mount))
    return True


def _mount_of(fd: int) -> str:
    """Returns the number of the mount that ``fd`` is on; empty if the kernel does not say."""
    with open(f"/proc/self/fdinfo/{fd}") as lines:
        return next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")


def _layers(mount: str) -> Iterator[str]:
    """Yields the folders that the overlay at a mount is made of."""
    with open("/proc/self/mountinfo") as lines:
        options = next((line.split()[-1] for line in lines if line.split()[0] == mount), "")
    for option in options.split(","):
        name, _, value = option.partition("=")
        if name in ("lowerdir", "upperdir", "lowerdir+", "datadir+"):
            yield from filter(None, value.split(":"))


def _is_on_measured(folder: str) -> bool:
    """Tells whether a folder is on a measured file system. False if it cannot be seen: a container cannot
    see the folders of its host."""
    try:
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        if error.errno == errno.EMFILE:
            raise
        return False
    try:
        return lib.tu_file_system(fd) in _MEASURED
    finally:
        os.close(fd)
