"""TLS for every side: Python's own settings for a server, but TLS 1.3 only."""

from __future__ import annotations

import ssl


def server_context(certificate: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate)
    return context
