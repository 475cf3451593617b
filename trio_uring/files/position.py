"""Where a file is read and written next, and who knows.

  kind      what                                         who knows the position
  OWN       a regular file or a block device that we     we: every transfer has an explicit offset
            opened by name, and that is nobody else's,
            on a file system that the ring is for
  APPENDED  the same, with O_APPEND                      we, for reads; a write is at the end, and
                                                         the kernel then says where that was
  SHARED    what others may use as well, and files on    the kernel
            other file systems
  STREAM    pipes, terminals, sockets: no position       nobody

- OWN and APPENDED become SHARED, for good, by `Position.share`: before a caller gets the
  descriptor, or a file of the standard library that has it, and before a fork.
- The kernel's position is moved by read(2) and write(2) alone, which lock it. An operation of
  the ring does not, and where a request completes later than it was submitted (O_DIRECT, some
  file systems) it does not even move it. So others would overwrite what we write, and we them.
- A device such as /dev/zero can be sought and keeps its position at 0: it is SHARED, whoever
  opened it. So is a file of /proc, of which some refuse pwrite(2).
"""

from __future__ import annotations

import enum
import os
import stat
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from ..lowlevel.file_systems import has_position, is_measured

if TYPE_CHECKING:
    import io

    from ..loop.run import Run
    from ..lowlevel.file_systems import Status


class Kind(enum.Enum):
    OWN = enum.auto()
    APPENDED = enum.auto()
    SHARED = enum.auto()
    STREAM = enum.auto()


OWN: Final = Kind.OWN
APPENDED: Final = Kind.APPENDED
SHARED: Final = Kind.SHARED
STREAM: Final = Kind.STREAM


class WritesBehind(Protocol):
    """What has some of a file's writes go on behind their calls (write_behind.py)."""

    def block(self, *, elsewhere: bool) -> None: ...
    def appends_now(self) -> bool: ...


class Position:
    """Of one file; all its layers share it. Who moves it has the file's turn."""

    _of_us: ClassVar[dict[int, weakref.ref[Position]]] = {}
    """Those that are ours, by their id: a WeakValueDictionary takes as long as opening a file may."""
    _pwrite = staticmethod(os.pwrite)
    __slots__ = (
        "__weakref__",
        "_behind",
        "_certain",
        "_measured",
        "at",
        "is_appending",
        "is_ours",
        "is_regular",
        "kind",
        "may_go_behind",
        "raw",
        "size_at_first",
        "written_by",
    )

    def __init__(self, raw: io.FileIO, status: Status | None = None, *, ours: bool) -> None:
        """``ours``: it was opened by its name, and nobody else knows the descriptor. ``status``:
        its `os.fstat`, if the caller has it."""
        self.raw = raw
        self.kind: Kind
        status = status or os.fstat(raw.fileno())
        self.is_regular = stat.S_ISREG(status.st_mode)
        self.size_at_first = status.st_size
        """In bytes, for who reads all of it."""
        is_file = self.is_regular or stat.S_ISBLK(status.st_mode)
        self._measured = is_measured(raw.fileno(), status) if ours and is_file else None
        # The measured ones all have positions, which a system call would say of each file.
        if not self._measured and not (raw.seekable() and has_position(raw.fileno(), status.st_mode)):
            self.kind = STREAM
        elif not self._measured or not ours:
            self.kind = SHARED
        else:
            self.kind = APPENDED if "a" in raw.mode else OWN
        self.is_ours = self.kind is OWN or self.kind is APPENDED
        self._certain = _ALWAYS_ALLOWED if self.is_ours and self.is_regular else -1
        """How far the kernel lets a file of this kind be sought, whatever its size; -1: it says."""
        self.may_go_behind = self._certain > 0
        """Whether nobody who keeps to the file object can tell when its writes are made."""
        self.at = raw.tell() if self.kind is APPENDED else 0
        """OWN and APPENDED: the offset, in bytes. What is behind counts as written."""
        self.is_appending = False
        """APPENDED: whether a write is with the kernel, which moves its position."""
        self._behind: weakref.ref[WritesBehind] | None = None
        self.written_by: Run | None = None
        """Of the run that writes what is behind, while it does."""
        if self.is_ours:
            self._of_us[id(self)] = weakref.ref(self)

    def __del__(self) -> None:
        self._of_us.pop(id(self), None)

    @property
    def behind(self) -> WritesBehind | None:
        """What has some of the file's writes go on behind their calls; the buffer has it."""
        return self._behind() if self._behind is not None else None

    @behind.setter
    def behind(self, behind: WritesBehind) -> None:
        self._behind = weakref.ref(behind)

    @property
    def measured(self) -> bool:
        """Whether the ring may read and write this file, at an explicit offset."""
        if self._measured is None:
            fd = self.raw.fileno()
            status = os.fstat(fd)
            is_file = stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)
            self._measured = is_file and is_measured(fd, status)
        return self._measured

    def tell(self) -> int:
        return self.at if self.is_ours else self.raw.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As `io.FileIO.seek`; without a system call where the answer is certain."""
        if not self.is_ours:
            return self.raw.seek(offset, whence)
        # Numbers, and not the names of `os`: it is called as late as `write_now`.
        if type(offset) is int and whence in (0, 1):
            target = offset if whence == 0 else self.at + offset
            if 0 <= target <= self._certain:
                self.at = target
                return target
        if whence == 1:
            self.raw.seek(self.at)
        self.at = self.raw.seek(offset, whence)
        return self.at

    def move(self, count: int) -> None:
        """After a transfer at `at` of so many bytes. It may have been shared meanwhile."""
        if self.is_ours:
            self.at += count
        elif self.kind is SHARED:
            self.raw.seek(count, os.SEEK_CUR)

    def tell_kernel(self) -> None:
        """APPENDED, before a write, which may fail and then has not moved the position."""
        if self.kind is APPENDED:
            self.raw.seek(self.at)

    def ask(self) -> None:
        """APPENDED, after a write: the kernel knows where that was."""
        if self.kind is APPENDED:
            self.at = self.raw.tell()

    def write_now(self, data: memoryview) -> int:
        """Writes from ``data``, by the calling thread; the number of bytes. For finalisers: it uses
        no name of this module, which may have none any longer."""
        if self.kind.name == "OWN":
            done = self._pwrite(self.raw.fileno(), data, self.at)
            self.at += done
            return done
        done = self.raw.write(data) or 0
        if not done:
            raise BlockingIOError("what a file had accepted could not be written")
        return done

    def share(self, *, forks: bool = False) -> None:
        """Gives the position to the kernel, when all is written that is being written. A thread
        that ``forks``, and is not the run's, waits for nothing: the run may wait for it."""
        if not self.is_ours:
            return
        behind = self.behind
        if behind is not None:
            behind.block(elsewhere=not forks)
        if not self.is_appending and (behind is None or not behind.appends_now()):
            self.raw.seek(self.at)
        self.kind, self.is_ours, self.may_go_behind = SHARED, False, False
        self._of_us.pop(id(self), None)


_ALWAYS_ALLOWED: Final = (1 << 31) - 1
"""Bytes: all of the measured file systems have files of that length."""


def _before_fork() -> None:
    """Parent and child go on as if they were at one descriptor, as they are."""
    for reference in list(Position._of_us.values()):
        position = reference()
        if position is not None:
            with suppress(OSError, ValueError):  # it was closed
                position.share(forks=True)


os.register_at_fork(before=_before_fork)
