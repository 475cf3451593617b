"""What a runtime cannot serve; tests/benchmarks/test_servers.py proves that each is still true."""

from __future__ import annotations

UNSUPPORTED = {
    ("rloop", "connections"): "rloop does not close the sockets of its transports",
    ("rloop", "tls"): "rloop does not support TLS",
}
"""By runtime and kind: why."""
