"""Where a file is read and written next, and who knows.

  kind      what                                         who knows the position
  OWN       a regular file or a block device that we     we: every transfer has an explicit offset
            opened by name and that nobody else has,
            on a measured file system
            (lowlevel/file_systems.py)
  APPENDED  as OWN, but opened with O_APPEND             we, for reads; a write goes to the end, and
                                                         the kernel then says where that was
  SHARED    a file that others may use as well, or       the kernel
            that is on another file system
  STREAM    pipes, terminals, sockets: no position       nobody

- `Position.share` makes OWN and APPENDED SHARED, for good. It is called before a caller gets the
  descriptor, or a file of the standard library that has it, and before a fork.
- Only read(2) and write(2) use the kernel's position safely: they lock it. An operation of the ring
  does not, and where it completes later than it was submitted (O_DIRECT, some file systems) it does
  not even move the position. Then we and others would overwrite each other's data.
- A device such as /dev/zero can be sought, but its position stays 0. So it is SHARED, whoever opened it.
  So is a file of /proc: some of these refuse pwrite(2).
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
    """The writes of a file that go on after their calls have returned. A file's `WriteBehind`
    (files/write_behind.py) is one."""

    def block(self, *, elsewhere: bool) -> None: ...


class Position:
    """The position of one file. The text, binary and raw file on one descriptor share it. Only the task
    that has the file's turn moves it."""

    _of_us: ClassVar[dict[int, weakref.ref[Position]]] = {}
    """All positions that are OWN or APPENDED, by their id. A WeakValueDictionary would be too slow: to use
    it takes as long as opening a file may."""
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
        """Finds out of which kind the file is. ``ours`` says that it was opened by its name and that nobody
        else has the descriptor. ``status`` is its `os.fstat`, if the caller knows it."""
        self.raw = raw
        self.kind: Kind
        status = status or os.fstat(raw.fileno())
        self.is_regular = stat.S_ISREG(status.st_mode)
        self.size_at_first = status.st_size
        """The file's size in bytes when it was opened. A call that reads all of it starts with this."""
        is_file = self.is_regular or stat.S_ISBLK(status.st_mode)
        self._measured = is_measured(raw.fileno(), status) if ours and is_file else None
        # All files on measured file systems have positions. This saves them the system call that asks.
        if not self._measured and not (raw.seekable() and has_position(raw.fileno(), status.st_mode)):
            self.kind = STREAM
        elif not self._measured or not ours:
            self.kind = SHARED
        else:
            self.kind = APPENDED if "a" in raw.mode else OWN
        self.is_ours = self.kind is OWN or self.kind is APPENDED
        self._certain = _ALWAYS_ALLOWED if self.is_ours and self.is_regular else -1
        """Up to which offset a seek certainly succeeds, whatever the file's size; -1 if the kernel has to
        be asked."""
        self.may_go_behind = self._certain > 0
        """Whether a call may return before its write is made. Users of the file object cannot tell."""
        self.at = raw.tell() if self.kind is APPENDED else 0
        """The position in bytes, if it is OWN or APPENDED. Data that is still behind counts as written."""
        self.is_appending = False
        """Whether the kernel is making writes to an APPENDED file, and will move its own position."""
        self._behind: weakref.ref[WritesBehind] | None = None
        self.written_by: Run | None = None
        """The run that is writing what is behind; None if none is."""
        if self.is_ours:
            self._of_us[id(self)] = weakref.ref(self)

    def __del__(self) -> None:
        self._of_us.pop(id(self), None)

    @property
    def behind(self) -> WritesBehind | None:
        """The file's writes that go on after their calls; None if there are none. The file's buffer keeps
        the object alive."""
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
        """Moves the position, as `io.FileIO.seek` does. Makes no system call where the answer is certain."""
        # These are numbers, not names of `os`: finalisers call this, as they call `write_now`.
        if type(offset) is int and whence in (0, 1):
            target = offset if whence == 0 else self.at + offset
            if 0 <= target <= self._certain and self.is_ours:
                self.at = target
                return target
        if not self.is_ours:
            return self.raw.seek(offset, whence)
        if whence == 1:
            self.raw.seek(self.at)
        reached = self.raw.seek(offset, whence)
        if self.is_ours:
            self.at = reached
        else:
            self.raw.seek(reached)
        return reached

    def claim(self, count: int) -> int:
        """Moves the position by ``count`` bytes, which the caller will write at the offset that this returns;
        if it is APPENDED, they will be written at the file's end, and it stays. Returns -1 if the file is
        SHARED."""
        start = self.at
        if not self.is_ours:
            return -1
        if self.kind is OWN:
            self.at = start + count
        return start

    def move(self, count: int) -> None:
        """Moves the position by ``count`` bytes. Called after a transfer at the offset `at`. Meanwhile the
        file may have become SHARED."""
        if self.is_ours:
            self.at += count
        elif self.kind is SHARED:
            self.raw.seek(count, os.SEEK_CUR)

    def tell_kernel(self) -> None:
        """Sets the kernel's position to ours. Called before a write. Does nothing unless the file is
        APPENDED. If the write fails, `ask` then finds the position unmoved."""
        if self.kind is APPENDED:
            self.raw.seek(self.at)

    def ask(self) -> None:
        """Takes over the kernel's position. Called after a write. Does nothing unless the file is
        APPENDED, where only the kernel knows at what offset it has written."""
        if self.kind is APPENDED:
            self.at = self.raw.tell()

    def write_now(self, data: memoryview) -> int:
        """Writes from ``data``, and blocks. Returns the number of bytes. Finalisers call this, so it uses
        no global name of this module: these are gone when the interpreter ends."""
        if self.kind.name == "OWN":
            done = self._pwrite(self.raw.fileno(), data, self.at)
            self.at += done
            return done
        done = self.raw.write(data) or 0
        if not done:
            raise BlockingIOError("what a file had accepted could not be written")
        return done

    def share(self, *, forks: bool = False) -> None:
        """Gives the position to the kernel: the file is SHARED from then on. Blocks until the writes that
        are under way are made. A thread that ``forks`` and is not the run's does not wait for them: the
        run may be waiting for that thread.

        Any thread may call this, while a task moves the position. So whoever looks whether it is ours makes
        no call from then until he has moved it, and this makes none from its last look to the change: without
        a call no other thread gets the GIL."""
        if not self.is_ours:
            return
        behind = self.behind
        if behind is not None:
            behind.block(elsewhere=not forks)
        while self.is_ours:
            at, is_appending = self.at, self.is_appending
            if not is_appending:
                self.raw.seek(at)
            if self.at == at and self.is_appending == is_appending:
                self.kind, self.is_ours, self.may_go_behind = SHARED, False, False
        self._of_us.pop(id(self), None)


_ALWAYS_ALLOWED: Final = (1 << 31) - 1
"""In bytes. Every measured file system allows files of that length."""


def _before_fork() -> None:
    """Makes all positions SHARED. Called before a fork: parent and child share the kernel's position."""
    for reference in list(Position._of_us.values()):
        position = reference()
        if position is not None:
            with suppress(OSError, ValueError):  # it was closed
                position.share(forks=True)


os.register_at_fork(before=_before_fork)
