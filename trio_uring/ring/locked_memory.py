"""Locked memory: how much of it a ring takes, and the wait for what comes back late.

- For those without CAP_IPC_LOCK a ring counts as locked memory (on Linux before 5.12, and on
  6.18 again). All processes of a user together may lock RLIMIT_MEMLOCK bytes, as the one that
  asks has it set; the kernel says ENOMEM beyond.
- The queues of a ring take whole pages, one for submissions and one for completions at least; and
  the buffers that stream sockets receive into are announced in one more.
- What a ring had comes back 7 to 44 ms after it was closed, when a worker of the kernel's has taken
  it down. So runs that follow each other are refused where there is no room for two: they wait.
"""

from __future__ import annotations

import errno
import mmap
import resource
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .errors import UringFallbackWarning, stack_level_of_user

if TYPE_CHECKING:
    from collections.abc import Callable

MORE: Final = (
    "Raise the limit of locked memory (ulimit -l; LimitMEMLOCK= of a systemd unit, --ulimit memlock= of a "
    "container), or let fewer runs of this user go on side by side"
)
PATIENCE: Final = 0.25
"""Seconds after a ring was closed in which its memory may still be on its way back."""
_PAUSE: Final = 0.002
_SUBMISSION: Final = 64
_COMPLETION: Final = 16
_INDEX: Final = 4
_HEAD: Final = 320  # struct io_rings
_CAP_IPC_LOCK: Final = 1 << 14
_closed_at = -PATIENCE


def ring_was_closed() -> None:
    """To be called by whoever has closed one."""
    global _closed_at  # noqa: PLW0603
    _closed_at = time.monotonic()


def patiently(call: Callable[[], int]) -> tuple[int, bool]:
    """What ``call`` returns, >= 0 or -errno, and whether that was waited for: while it is -ENOMEM,
    and memory of a ring that this process has closed may be on its way back, the thread sleeps."""
    until = _closed_at + PATIENCE
    waited = False
    while (result := call()) == -errno.ENOMEM and time.monotonic() < until:
        time.sleep(_PAUSE)
        waited = True
    return result, waited


def limit() -> int | None:
    """Bytes that this user's processes may lock, all of them together; None: any number."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY or _may_lock_all() else soft


def size_of_ring(entries: int, cq_entries: int, *, has_array: bool) -> int:
    """Bytes that a ring takes of it. The kernel rounds the entries up to powers of two."""
    entries, cq_entries = (1 << (number - 1).bit_length() for number in (entries, cq_entries))
    array = _INDEX * entries if has_array else 0
    return _whole_pages(_SUBMISSION * entries) + _whole_pages(_HEAD + _COMPLETION * cq_entries + array)


def size_of_buffers(count: int) -> int:
    """Bytes that a run's provided buffers take of it besides, from its first stream socket on."""
    return _whole_pages(16 * count)


def is_short_of(size: int) -> bool:
    """Whether what was refused is locked memory, and not addresses for ``size`` bytes."""
    if limit() is None:
        return False
    try:
        mmap.mmap(-1, size).close()
    except OSError:
        return False
    return True


def warn_of_buffers(count: int) -> None:
    """Says that the stream sockets of a run have to do without their buffers."""
    warnings.warn(
        UringFallbackWarning(
            f"The stream sockets of this run wait by readiness, which is slower: {size_of_buffers(count)} "
            f"bytes of locked memory for their buffers are more than is left of the {limit()} that the "
            f"processes of this user may lock together. {MORE}"
        ),
        stacklevel=stack_level_of_user(),
    )


def _whole_pages(size: int) -> int:
    page = resource.getpagesize()
    return -(-size // page) * page


def _may_lock_all() -> bool:
    """CAP_IPC_LOCK counts where it is the machine's, not a user namespace's."""
    try:
        status = Path("/proc/self/status").read_text()
        machine = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    except OSError:
        return False
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return machine and bool(int(effective, 16) & _CAP_IPC_LOCK)
