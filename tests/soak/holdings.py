"""What the process, its interpreter and its run hold at a moment."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import struct
import sys
import threading
from pathlib import Path
from typing import Any, Final

import trio

from trio_uring import UringStatistics
from trio_uring.loop.current import current_run
from trio_uring.ring.native import ffi, lib

TELLS_BUFFERS: Final = tuple(map(int, platform.release().split(".")[:2])) >= (6, 8)
_libc = ctypes.CDLL(None, use_errno=True)
_SYS_IO_URING_REGISTER = 427
_IORING_REGISTER_PBUF_STATUS = 26
_ENTRY = 16
"""The size of a struct io_uring_buf; the first one has the ring's tail in its last two bytes."""


def holdings() -> dict[str, float]:
    """By name. For a task."""
    return {**of_interpreter(), **of_process(), **of_run()}


def of_process() -> dict[str, float]:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "memory": int(status["VmRSS"].split()[0]) * 1024,
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,  # that of the listing itself
        "threads": int(status["Threads"]),
    }


def of_interpreter() -> dict[str, float]:
    """What Python and what C has asked for, whatever the allocators keep besides.

    What waits for the collector is freed first: CPython lets a quarter of all objects wait, which one could
    take for growth. (Trio's SSLStreams do, with OpenSSL's memory, on epoll as well.)
    """
    gc.collect()
    return {
        "python threads": threading.active_count(),
        "python blocks": sys.getallocatedblocks(),
        "python objects": len(gc.get_objects()),
        **of_malloc(),
    }


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    )


def of_malloc() -> dict[str, float]:
    """Bytes in use, and those that it has from the kernel; nothing where the C library does not tell."""
    try:
        mallinfo2 = _libc.mallinfo2
    except AttributeError:
        return {}
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return {"malloc": info.uordblks + info.hblkhd, "malloc has": info.arena + info.hblkhd}


def of_run() -> dict[str, float]:
    """On epoll there is less to tell."""
    statistics = trio.lowlevel.current_statistics()
    found: dict[str, float] = {"tasks": statistics.tasks_living}
    run: Any = current_run()
    if run is None:
        return found
    io_statistics = statistics.io_statistics
    assert isinstance(io_statistics, UringStatistics)
    if TELLS_BUFFERS:
        found["buffers in use"] = buffers_in_use(run)
    return {
        **found,
        "operations in flight": io_statistics.operations_in_flight,
        "registered": registered(run),
        "read ahead": sum(one.bytes_ahead for one in run.sockets.connections.by_fd.values()),
        "entered": io_statistics.entered,
        "shortages": io_statistics.buffer_shortages,
        "bytes read ahead": io_statistics.bytes_read_ahead,
    }


def registered(run: Any) -> int:
    """What the run has in its tables: sockets, waiting tasks, operations."""
    tables = [table for table in run.tables if table is not None]
    return sum(len(table) for table in [*tables, *(group.by_fd for group in run.sockets.groups)])


def buffers_in_use(run: Any) -> int:
    """Provided buffers that are with Python, and not with the kernel, which tells where it stands in the ring
    of buffers. 0 if no connection has received yet."""
    buffers = run.sockets.buffers
    if not buffers._memory:
        return 0
    count = buffers._count
    page = os.sysconf("SC_PAGESIZE")
    in_front = (count * _ENTRY + page - 1) // page * page
    address = int(ffi.cast("uintptr_t", lib.tu_buffer_memory(run.core))) - in_front
    (tail,) = struct.unpack("H", ctypes.string_at(address + _ENTRY - 2, 2))
    in_use: int = count - ((tail - _head(ring_descriptor())) & 0xFFFF)
    return in_use


def ring_descriptor() -> int:
    (found,) = (int(name) for name in os.listdir("/proc/self/fd") if _target(name) == "anon_inode:[io_uring]")
    return found


def _target(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:  # of the listing itself
        return ""


def _head(ring: int) -> int:
    """Of the buffers of group 0."""
    status = (ctypes.c_uint32 * 10)()
    if _libc.syscall(_SYS_IO_URING_REGISTER, ring, _IORING_REGISTER_PBUF_STATUS, status, 1):
        raise OSError(ctypes.get_errno(), "io_uring_register(IORING_REGISTER_PBUF_STATUS)")
    return status[1]
