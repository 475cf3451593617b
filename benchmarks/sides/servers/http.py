"""HTTP/1.1 as far as a keep-alive server of one small page needs it, the same for every side.

A request ends with an empty line: it has no body. Requests may come in pieces and several
at a time; what came together is answered together.
"""

from __future__ import annotations

BODY = b"Hello world\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\n" + BODY


class Requests:
    """Those of one connection."""

    def __init__(self) -> None:
        self._unread = b""

    def answer(self, received: bytes | bytearray) -> bytes:
        """The responses to the requests that are now complete, if any."""
        *complete, self._unread = (self._unread + received).split(b"\r\n\r\n")
        return RESPONSE * len(complete)
