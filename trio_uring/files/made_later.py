"""The standard library's buffered file, made when somebody asks for it.

A binary file of ours needs little of the buffered file that it wraps, and the raw file below that, an
`io.FileIO`, does the same. To make the buffered one takes longer than to read a small file from the page
cache. So it is made when its user, an error or a warning needs it.
"""

from __future__ import annotations

import io
import os
import threading
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from typing import TypeAlias

    Buffered: TypeAlias = io.BufferedReader | io.BufferedWriter | io.BufferedRandom


class BufferedLater:
    """Stands for an `io.BufferedReader`, `io.BufferedWriter` or `io.BufferedRandom` over ``raw``, and has
    its methods and attributes. The buffered file is made for those that are not defined here."""

    __slots__ = ("_made", "_size", "raw")
    # The finaliser needs them when the names of modules are gone.
    _kinds = io.BufferedReader, io.BufferedWriter, io.BufferedRandom
    _making: ClassVar = threading.RLock()
    """Held while one is made. Two on one descriptor would be one too many: the first that is collected closes
    it. A finaliser may make one in the middle of that, so the same thread gets it again."""

    def __init__(self, raw: io.FileIO, size: int) -> None:
        self.raw = raw
        self._size = size
        self._made: Buffered | None = None

    def __del__(self) -> None:
        if self._made is None and not self.raw.closed:
            self.made()  # warns, as it is collected, that it was never closed

    def made(self) -> Buffered:
        """Returns the buffered file itself. Any thread may call this."""
        if self._made is None:
            with self._making:
                if self._made is None:
                    self._made = _over_closed(self) if self.raw.closed else self.over(self._size)
        return self._made

    def over(self, size: int) -> Buffered:
        """Makes the buffered file, with a buffer of ``size`` bytes."""
        reader, writer, both = self._kinds
        raw = self.raw
        return (reader if not raw.writable() else both if raw.readable() else writer)(raw, size)

    @property
    def closed(self) -> bool:
        return (self._made or self.raw).closed

    @property
    def name(self) -> Any:
        return (self._made or self.raw).name

    @property
    def mode(self) -> str:
        return (self._made or self.raw).mode

    def fileno(self) -> int:
        return (self._made or self.raw).fileno()

    def close(self) -> None:
        (self._made or self.raw).close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.made(), name)


def _renew_lock() -> None:
    """Makes a lock that nobody has. Called in a forked child: another thread of the parent may have it."""
    BufferedLater._making = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


def _over_closed(file: BufferedLater) -> Buffered:
    """Makes a closed buffered file for one that is closed. None can be made over a raw file that is. So that
    one says what it could do when it was open until this is made, and no descriptor is needed."""
    raw: Any = file.raw
    mode: str = raw.mode
    raw.readable = lambda: "r" in mode or "+" in mode
    raw.writable = lambda: mode != "rb"
    raw.seekable = lambda: True
    try:
        return file.over(1)
    finally:
        del raw.readable, raw.writable, raw.seekable
