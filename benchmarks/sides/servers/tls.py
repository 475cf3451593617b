"""TLS for every side: Python's own settings for a server. The client says which version, 1.2 or 1.3."""

from __future__ import annotations

import ssl


def server_context(certificate: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context
