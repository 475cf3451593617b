"""The statistics of a run on io_uring."""

from __future__ import annotations

from typing import Literal

import attrs


@attrs.frozen(eq=False, kw_only=True)
class SocketStatistics:
    """What the sockets that work by completions add to a run's statistics. `UringStatistics` describes the
    fields of the same names."""

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
    """Completions that the ring holds."""
    tasks_waiting_read: int
    """Tasks in `trio.lowlevel.wait_readable`, tasks in receives and accepts that work by completions, and
    Trio's own task that waits for `run_sync_soon`."""
    tasks_waiting_write: int
    """Tasks in `trio.lowlevel.wait_writable`, and in `trio.SocketStream.send_all`."""
    operations_in_flight: int
    """Operations that are queued or with the kernel, and have not completed."""
    entered: int
    """``io_uring_enter`` calls that this run has made."""
    skipped: int
    """Ticks that needed no such call."""
    multishot_terminations: int
    """Multishot receives and accepts that have ended: with their socket, with an error, for
    want of buffers, or since too much was read or accepted ahead."""
    buffer_shortages: int
    """Receives that found no buffer left (ENOBUFS). They were repeated."""
    bytes_read_ahead: int
    """Bytes that came when no task was waiting for them, since the run began."""
    flags: tuple[str, ...]
    """The features that the ring uses, by the names that ``python -m trio_uring doctor`` prints."""
    knows_reschedule: bool = False
    """Whether tasks are woken by C, without a line of Python for each. If not, ``Runner.reschedule`` is
    called for each task, since it is not the one that trio-uring knows: Trio is newer, or somebody has
    wrapped it."""
    wrapped: tuple[str, ...] = ()
    """The names in Trio, as ``"trio.SocketStream.send_all"``, to which somebody else has assigned a
    function of his own. That is called as on epoll; what it calls is slower than it would be otherwise.
    Functions that were assigned to a single object are not listed."""
