"""Whether a read is tried before it is handed to the ring.

What is in the page cache the ring reads within the call that submits it, so there is nothing
to wait for. But to submit, to sleep and to be woken takes Python as long as the kernel takes
to copy 100 KB. So the calling thread asks for what is there (RWF_NOWAIT) and then yields, and
the ring gets what is missing.

- A file system that cannot tell what would block refuses (EOPNOTSUPP); a filter may refuse
  the call. Then its file is not tried again. What else is wrong the ring tells.
- A try that finds nothing has the kernel read from the device at once, in a call of its own,
  where the ring would hand over the reads of all tasks together: half as many random reads of
  64 tasks. So a file is left to the ring for a while after it, each time for longer.

Reading ahead, by workers of the kernel's into the results of later calls, was measured
against this, and is slower (Linux 6.18, a virtual machine of 2 CPUs): to wake a worker and to
be woken takes 30 to 60 us, and 256 KiB are copied in 25. It would also return what others
have overwritten since.
"""

from __future__ import annotations

import errno
from typing import Final

_MOST_LEFT: Final = 63


class PageCache:
    """What is known of one regular file's; or of one descriptor's, whatever file it is for."""

    __slots__ = ("left", "missed", "tells")

    def __init__(self) -> None:
        self.tells = True
        """Whether it is any use to ask."""
        self.missed = 0
        """Reads that were left to the ring after the last miss; 0 after a hit."""
        self.left = 0
        """Reads that are still left to it."""

    def had_not(self, answer: int) -> None:
        """What was asked for: the ring gets this read."""
        if answer == -errno.EAGAIN:
            self.left = self.missed = min(2 * self.missed + 1, _MOST_LEFT)
        else:
            self.tells = False
