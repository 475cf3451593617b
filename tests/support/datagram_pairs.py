"""Pairs of datagram sockets that know each other."""

from __future__ import annotations

import socket
from typing import Any

import trio

FAMILIES = {
    "udp": socket.AF_INET,
    "udp connected": socket.AF_INET,
    "udp 6": socket.AF_INET6,
    "unix": socket.AF_UNIX,
}


def open_pair(family: str) -> tuple[socket.socket, socket.socket]:
    """Bound, on buffers that a few large datagrams fill; all but "udp" and "udp 6" connected."""
    if family == "unix":
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    else:
        pair = (
            socket.socket(FAMILIES[family], socket.SOCK_DGRAM),
            socket.socket(FAMILIES[family], socket.SOCK_DGRAM),
        )
        for each in pair:
            each.bind(("::1" if family == "udp 6" else "127.0.0.1", 0))
    if family == "udp connected":
        pair[0].connect(pair[1].getsockname())
        pair[1].connect(pair[0].getsockname())
    for each in pair:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
    return pair


def trio_pair(family: str) -> tuple[Any, Any]:
    first, second = open_pair(family)
    return trio.socket.from_stdlib_socket(first), trio.socket.from_stdlib_socket(second)
