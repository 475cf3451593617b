"""What a descriptor is open on: whether it has a position, and whether the ring may go there.

An operation of the ring that the file system does not finish is asked for again, by the kernel
itself: of a server of FUSE that answers short it asks for the same offset again, and no look at
the result tells. A worker of the kernel's takes short reads of sysfs for the end. So the ring is
for file systems on which it was tested. All others are read and written by threads.

Each device is asked once, but for those whose number is made up, as a tmpfs's: it is given to
another file system once one is unmounted. Of those the others are remembered by it, which may have
to ask a server each time, and the measured ones by their mount, whose number is not given again
(Linux 6.8; before that they are asked each time).

Who must not wait for a server learns from the kernel's list of mounts (`learn_by_name`).
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
    """What has the fields of `os.stat_result` that a file is looked at for."""

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
"""By the numbers of <linux/magic.h>."""
_OVERLAY: Final = 0x794C7630

_known: dict[int, bool] = {}
"""Whether the file system is one of them, by its device."""
_overlays: set[tuple[int, str]] = set()
"""Devices and mounts of overlays all of whose layers are on one of them."""


def has_position(fd: int, mode: int) -> bool:
    """Whether reads and writes move a position of what ``fd`` is open on, of which ``mode`` is the
    `st_mode`. An eventfd says that it does, and may have nothing to read for ever."""
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
    """Whether the ring may read and write this file, of which ``status`` is the `os.fstat`."""
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
"""Of a struct statx: the numbers of the device and of the mount."""
_LEARNT_BY_TYPE: Final = ("ext2", "ext3", "ext4", "xfs", "tmpfs")
"""Measured ones whose device is the same in a status and in the list of mounts."""
_MOST_PLACES: Final = 1000

_places: set[bytes] = set()
"""Those that were looked for in the list of mounts."""


def learn_by_name(dir_fd: int, name: bytes, flags: int) -> bool:
    """Whether the file system that a name leads to, as the kernel has cached it, was learnt to be measured
    just now. Asks no server, and of each mount once."""
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
    if result < 0 or found[_PLACE] != place:  # then the list may have told of another
        return False
    lib.tu_remember_status(status)
    return True


def _type_of(device: str) -> str:
    """What the list of mounts says of a device."""
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
    """The mount's number."""
    with open(f"/proc/self/fdinfo/{fd}") as lines:
        return next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")


def _layers(mount: str) -> Iterator[str]:
    """The folders that an overlay is made of."""
    with open("/proc/self/mountinfo") as lines:
        options = next((line.split()[-1] for line in lines if line.split()[0] == mount), "")
    for option in options.split(","):
        name, _, value = option.partition("=")
        if name in ("lowerdir", "upperdir", "lowerdir+", "datadir+"):
            yield from filter(None, value.split(":"))


def _is_on_measured(folder: str) -> bool:
    """Not if it cannot be seen, as that of a container's host cannot from within."""
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
