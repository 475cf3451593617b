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
    """The ``io_statistics`` of `trio.lowlevel.current_statistics` on io_uring.

    The numbers are of one run. Those that count begin at 0 with it and only grow; the others tell what is
    so now. Counting goes on in any case, and who asks waits for nothing.

    Attributes:
      backend: ``"io_uring"``. *Unit*: a name; on epoll Trio's own statistics have ``"epoll"`` here.
      entries: Submissions that the ring queues before the kernel is entered. *Unit*: submissions, fixed
        when the run starts.
      cq_entries: Completions that the ring holds. *Unit*: completions, fixed when the run starts.
      tasks_waiting_read: Tasks in `trio.lowlevel.wait_readable`, tasks in receives and accepts that work by
        completions, and Trio's own task that waits for `run_sync_soon`. *Unit*: tasks, now.
      tasks_waiting_write: Tasks in `trio.lowlevel.wait_writable`, and in `trio.SocketStream.send_all`.
        *Unit*: tasks, now.
      operations_in_flight: Operations that are queued or with the kernel, and have not completed.
        *Unit*: operations, now.
      entered: ``io_uring_enter`` calls that this run has made. *Unit*: system calls, counted.
      skipped: Ticks that needed no such call. *Unit*: ticks, counted.
      multishot_terminations: Multishot receives and accepts that have ended: with their socket, with an
        error, for want of buffers, or since too much was read or accepted ahead. *Unit*: operations, counted.
      buffer_shortages: Receives that found no buffer left (ENOBUFS). They were repeated. If it grows, raise
        `RingOptions.buffers`. *Unit*: receives, counted.
      bytes_read_ahead: Bytes that came when no task was waiting for them. *Unit*: bytes, counted.
      flags: The features that the ring uses, by the names that ``python -m trio_uring doctor`` prints.
        *Unit*: names; completions and tls are missing from the first stream socket on, if there was no locked
        memory for its buffers.
      knows_reschedule: Whether tasks are woken by C, without a line of Python for each. If not,
        ``Runner.reschedule`` is called for each task, since it is not the one that trio-uring knows: Trio is
        newer, or somebody has wrapped it. *Unit*: True or False.
      accelerated: Whether C makes the steps of tasks, since `RingOptions.accelerate` asks for it. While there
        are instruments, Trio makes them all the same. *Unit*: True or False.
      wrapped: The names in Trio, as ``"trio.SocketStream.send_all"``, to which somebody else has assigned a
        function of his own, and those of the standard library's sockets that had one when Trio was imported.
        That is called as on epoll; what it calls is slower than it would be otherwise.
        Functions that were assigned to a single object are not listed. *Unit*: names, now.
    """

    backend: Literal["io_uring"] = attrs.field(init=False, default="io_uring")
    entries: int
    cq_entries: int
    tasks_waiting_read: int
    tasks_waiting_write: int
    operations_in_flight: int
    entered: int
    skipped: int
    multishot_terminations: int
    buffer_shortages: int
    bytes_read_ahead: int
    flags: tuple[str, ...]
    knows_reschedule: bool = False
    accelerated: bool = False
    wrapped: tuple[str, ...] = ()
