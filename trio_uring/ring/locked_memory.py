"""Locked memory: how much of it a ring takes, and the wait until that of a closed ring is free again.

- A ring of a process without CAP_IPC_LOCK counts as locked memory (on Linux before 5.12, and on 6.18
  again). All processes of a user together may lock RLIMIT_MEMLOCK bytes, as the process that asks has
  it set. Beyond that the kernel answers ENOMEM.
- The queues of a ring take whole pages: at least one for submissions and one for completions. The
  buffers that stream sockets receive into are announced to the kernel in at least one more page.
- The memory of a closed ring is free again 7 to 44 ms later, when a worker of the kernel's has taken
  the ring down. Where there is no room for two rings, a run that follows another one would be refused.
  So it waits.
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
"""For so many seconds after a ring was closed, ENOMEM may only mean that its memory is not free yet."""
_PAUSE: Final = 0.002
_SUBMISSION: Final = 64
_COMPLETION: Final = 16
_INDEX: Final = 4
_HEAD: Final = 320  # struct io_rings
_CAP_IPC_LOCK: Final = 1 << 14
_closed_at = -PATIENCE


def ring_was_closed() -> None:
    """Notes that a ring was closed. Whoever closes one calls this. Any thread."""
    global _closed_at  # noqa: PLW0603
    _closed_at = time.monotonic()


def patiently(call: Callable[[], int]) -> tuple[int, bool]:
    """Calls ``call`` until it returns something else than -ENOMEM, as long as memory of a ring that this
    process has closed may still become free. The thread sleeps in between. Returns the last result, and
    whether it has slept. Any thread."""
    until = _closed_at + PATIENCE
    waited = False
    while (result := call()) == -errno.ENOMEM and time.monotonic() < until:
        time.sleep(_PAUSE)
        waited = True
    return result, waited


def limit() -> int | None:
    """Bytes that all processes of this user may lock together; None: any number."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY or _may_lock_all() else soft


def size_of_ring(entries: int, cq_entries: int, *, has_array: bool) -> int:
    """Bytes of locked memory that a ring takes. The kernel rounds the entries up to powers of two."""
    entries, cq_entries = (1 << (number - 1).bit_length() for number in (entries, cq_entries))
    array = _INDEX * entries if has_array else 0
    return _whole_pages(_SUBMISSION * entries) + _whole_pages(_HEAD + _COMPLETION * cq_entries + array)


def size_of_buffers(count: int) -> int:
    """Bytes of locked memory that a run's provided buffers take, from its first stream socket on."""
    return _whole_pages(16 * count)


def is_short_of(size: int) -> bool:
    """Whether locked memory was short when a call was refused, and not addresses for ``size`` bytes."""
    if limit() is None:
        return False
    try:
        mmap.mmap(-1, size).close()
    except OSError:
        return False
    return True


def warn_of_buffers(count: int) -> None:
    """Warns that the stream sockets of a run have to do without provided buffers."""
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
    """Whether this process has CAP_IPC_LOCK. It counts in the machine's own user namespace only."""
    try:
        status = Path("/proc/self/status").read_text()
        machine = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    except OSError:
        return False
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return machine and bool(int(effective, 16) & _CAP_IPC_LOCK)
