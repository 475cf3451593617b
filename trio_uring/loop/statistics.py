"""What a run on io_uring tells of itself."""

from __future__ import annotations

from typing import Literal

import attrs


@attrs.frozen(eq=False, kw_only=True)
class SocketStatistics:
    """What the sockets that work by completions add to a run's statistics, which say more of each."""

    receiving: int
    """Tasks in a receive or an accept."""
    sending: int
    """Tasks in a stream's ``send_all``."""
    multishot_terminations: int
    buffer_shortages: int
    bytes_read_ahead: int


@attrs.frozen(eq=False, kw_only=True)
class UringStatistics:
    """The ``io_statistics`` of `trio.lowlevel.current_statistics` on io_uring."""

    backend: Literal["io_uring"] = attrs.field(init=False, default="io_uring")
    entries: int
    """Submissions that the ring queues before the kernel is entered."""
    cq_entries: int
    """Completions that it holds."""
    tasks_waiting_read: int
    """Tasks in `trio.lowlevel.wait_readable`, in receives and accepts of completions, and
    Trio's own that waits for `run_sync_soon`."""
    tasks_waiting_write: int
    """Tasks in `trio.lowlevel.wait_writable`, and in `trio.SocketStream.send_all`."""
    operations_in_flight: int
    """Operations that were submitted or are queued, and have not completed."""
    entered: int
    """``io_uring_enter`` calls that this run has made."""
    skipped: int
    """Ticks for which none was needed."""
    multishot_terminations: int
    """Multishot receives and accepts that have ended: with their socket, with an error, for
    want of buffers, or since too much was read or accepted ahead."""
    buffer_shortages: int
    """Receives that found no buffer left (ENOBUFS), and were repeated."""
    bytes_read_ahead: int
    """Bytes that came when no task was waiting for them, since the run began."""
    flags: tuple[str, ...]
    """What the ring uses, by the names that ``python -m trio_uring doctor`` prints."""
    knows_reschedule: bool = False
    """Whether tasks are woken without a line of Python for each. False: this Trio's
    ``Runner.reschedule`` is not the one that we know, since it is newer or somebody has wrapped
    it, and it is called for each task."""
    wrapped: tuple[str, ...] = ()
    """Names in Trio that somebody else has put a function of his in, as
    ``"trio.SocketStream.send_all"``: it is called as on epoll, and what it calls is slower than it
    would be without it. Those of one object's own are not listed."""
