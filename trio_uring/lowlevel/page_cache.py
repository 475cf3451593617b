"""Whether the calling thread tries to read from the page cache before it hands a read to the ring.

The ring, too, reads what is in the page cache at once, within the call that submits the read. But
to submit it, to sleep and to be woken takes Python as long as the kernel takes to copy 100 KB. So
the calling thread first asks for what is there (RWF_NOWAIT), and then yields. The ring gets what is
missing.

- A file system that cannot tell what would block refuses this (EOPNOTSUPP), and a seccomp filter may
  refuse the call. Then the file is not tried again. After any other error the ring is asked, and tells.
- A try that finds nothing is a miss. The kernel then starts to read from the device, with a request for
  this task alone, where the ring would hand over the reads of all tasks together. That halves the
  random reads of 64 tasks. So after a miss a file is left to the ring for some reads, and for more
  after each further miss.

Reading ahead was measured against this, with workers of the kernel's that read for later calls. It is
slower (Linux 6.18, a virtual machine of 2 CPUs): to wake a worker and to be woken takes 30 to 60 us, and
copying 256 KiB takes 25 us. It would also return what others have overwritten since.
"""

from __future__ import annotations

import errno
from typing import Final

from ..ring.native import lib

PART: Final = -lib.TU_PART
"""Less than this is the answer of a try that has read a part."""
_MOST_LEFT: Final = 63


class PageCache:
    """What the last tries on one regular file, or on one descriptor, have shown."""

    __slots__ = ("left", "missed", "tells")

    def __init__(self) -> None:
        self.tells = True
        """Whether the page cache can be asked at all."""
        self.missed = 0
        """How many reads were left to the ring after the last miss; 0 after a hit."""
        self.left = 0
        """How many of the next reads are left to the ring."""

    def had_not(self, answer: int) -> int:
        """Notes that a try has not read all there is to read. Returns how many bytes it has read.
        ``answer`` is what it returned: after -EAGAIN, a miss, the next reads are left to the ring; after
        any other -errno all are."""
        if answer < PART:
            return PART - answer
        if answer == -errno.EAGAIN:
            self.left = self.missed = min(2 * self.missed + 1, _MOST_LEFT)
        else:
            self.tells = False
        return 0
