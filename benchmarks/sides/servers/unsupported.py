"""What a runtime cannot serve; tests/benchmarks/test_servers.py proves that each is still true."""

from __future__ import annotations

_WITHOUT_TLS = "rloop does not support TLS"
UNSUPPORTED = {
    ("rloop", "connections"): "rloop does not close the sockets of its transports",
    ("rloop", "tls"): _WITHOUT_TLS,
    ("rloop", "tls-connections"): _WITHOUT_TLS,
    ("rloop", "tls-http"): _WITHOUT_TLS,
    ("rloop", "hypercorn-tls"): _WITHOUT_TLS,
}
"""By runtime and kind: why."""
