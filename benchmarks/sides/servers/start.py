"""How every server starts: its arguments, its limit of open files, its socket.

All sides are given the same socket, bound to a free port of 127.0.0.1, so that backlog
and options cannot differ. A connection inherits TCP_NODELAY and TCP_CONGESTION from the
socket that it was accepted from.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import socket
import sys
from collections.abc import Iterable

from sides.servers.unsupported import UNSUPPORTED

HOST = "127.0.0.1"
BACKLOG = 4096
RECEIVE_SIZE = 64 * 1024
DATAGRAM_SIZE = 2048
CONGESTION = b"cubic"
"""The kernel's default. The other that machines have set, BBR, has a timer pace each send."""
TLS_KINDS = ("tls", "tls-connections", "tls-http")
"""Of the servers that speak TLS."""
UNSUPPORTED_STATUS = 3


def arguments(runtimes: Iterable[str], kinds: Iterable[str]) -> argparse.Namespace:
    """``runtime``, ``kind`` and, for TLS, ``certificate``: a PEM file with key and chain."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runtime", choices=list(runtimes), required=True)
    parser.add_argument("--kind", choices=list(kinds), required=True)
    parser.add_argument("--certificate", metavar="FILE")
    options = parser.parse_args()
    refuse_unsupported(options.runtime, options.kind)
    if (options.kind in TLS_KINDS) != (options.certificate is not None):
        parser.error(f"--certificate is for {', '.join(TLS_KINDS)}, which need it")
    return options


def refuse_unsupported(runtime: str, kind: str) -> None:
    """Ends the program if the runtime cannot serve that."""
    if reason := UNSUPPORTED.get((runtime, kind)):
        print(reason, file=sys.stderr)
        sys.exit(UNSUPPORTED_STATUS)


def raise_open_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def bound_socket(kind: str) -> socket.socket:
    """One that listens, or for those of UDP one that receives; to a free port."""
    if kind in ("udp", "udp-batches"):
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind((HOST, 0))
    else:
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):  # a machine may forbid all but its own, which the report names
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION)
        bound.bind((HOST, 0))
        bound.listen(BACKLOG)
    bound.setblocking(False)
    return bound


def congestion_control() -> str:
    """What the connections of the servers here have."""
    with bound_socket("streams") as bound:
        return bound.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


def port(bound: socket.socket) -> int:
    number: int = bound.getsockname()[1]
    return number
