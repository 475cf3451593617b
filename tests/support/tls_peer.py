"""The other end of an SSLStream: OpenSSL over a socket, which does what it is told when it is told, and
never waits.

What no method of the standard library does, to renegotiate and to ask for new keys, is asked of the
library that it has loaded.
"""

from __future__ import annotations

import _ssl
import ctypes
import ssl
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import trustme
from socket_calls import expected

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

AUTHORITY: Final = trustme.CA()
_CERTIFICATE: Final = AUTHORITY.issue_cert("localhost")
VERSIONS: Final = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
_ALLOW_CLIENT_RENEGOTIATION: Final = 1 << 8
_RENEWED: Final = 1
"""What SSL_key_update is told: the other end is to have new keys, too."""
_AT_A_TIME: Final = 1 << 16


def context(version: ssl.TLSVersion, *, server_side: bool) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = made.maximum_version = version
    made.options = ssl.Options(int(made.options) | _ALLOW_CLIENT_RENEGOTIATION)
    if server_side:
        _CERTIFICATE.configure_cert(made)
    else:
        AUTHORITY.configure_trust(made)
    return made


class Peer:
    """Sends the pattern of socket_calls.py, and compares what it receives with it."""

    def __init__(self, sock: socket.socket, version: ssl.TLSVersion, *, server_side: bool) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.reads = True
        """Whether it takes what comes."""
        self.gone = False
        self.sent = 0
        self.received = 0
        self.ended = False
        """Its end, or an error, was received."""
        self._unwritten: deque[bytes] = deque()
        """What has to wait until it has renegotiated."""
        self._unsent = bytearray()
        self._held = 0
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context(version, server_side=server_side).wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=None if server_side else "localhost",
        )
        self.handshaken = self._do_handshake()

    # What it is told

    def send(self, *sizes: int) -> None:
        """A record for each, or more if it does not fit into one, in one segment."""
        for size in sizes:
            self._unwritten.append(expected(self.sent, size))
            self.sent += size
        self.flush()

    def hold(self, size: int) -> None:
        """Of what it sends from now on, so many bytes are held back."""
        self._held = size

    def holds(self) -> bool:
        return bool(self._unsent)

    def let_go(self) -> None:
        self._held = 0
        self.flush()

    def end(self) -> None:
        """close_notify; it goes on receiving."""
        with suppress(ssl.SSLError):
            self._object.unwrap()
        self.flush()

    def send_rubbish(self) -> None:
        """What is no record of this connection."""
        self._unsent += b"\x17\x03\x03\x00\x20" + bytes(32)
        self.flush()

    def send_in_the_clear(self, data: bytes) -> None:
        self._unsent += data
        self.flush()

    def renegotiate(self) -> None:
        self._call("SSL_renegotiate")
        self._do_handshake()

    def ask_for_new_keys(self) -> None:
        self._call("SSL_key_update", _RENEWED)
        self._do_handshake()

    def close(self) -> None:
        self.gone = True
        self.sock.close()

    # What it does by itself

    def flush(self) -> bool:
        """Whether anything was sent."""
        with suppress(ssl.SSLError):
            while self._unwritten:
                self._object.write(self._unwritten[0])
                self._unwritten.popleft()
        self._unsent += self._outgoing.read()
        if self.gone:
            return False
        sent = 0
        with suppress(OSError):  # there is no room, or nobody any more
            while len(self._unsent) > self._held:
                with memoryview(self._unsent)[: len(self._unsent) - self._held] as view:
                    size = self.sock.send(view)
                del self._unsent[:size]
                sent += size
        return sent > 0

    def pump(self) -> bool:
        """Takes what has come, and sends what that takes. Whether anything has."""
        return self._take() | self.flush()

    def _take(self) -> bool:
        taken = False
        while self.reads and not self.gone and not self.ended:
            try:
                data = self.sock.recv(_AT_A_TIME)
            except BlockingIOError:
                break
            except OSError:  # it was reset
                data = b""
            taken = True
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()
            self._decrypt()
        return taken

    def _decrypt(self) -> None:
        if not self.handshaken:
            self.handshaken = self._do_handshake()
        while self.handshaken and not self.ended:
            try:
                data = self._object.read(_AT_A_TIME)
            except ssl.SSLWantReadError:
                break
            except OSError:
                data = b""
            self.ended = not data
            assert data == expected(self.received, len(data)), (self.received, len(data))
            self.received += len(data)

    def _do_handshake(self) -> bool:
        try:
            self._object.do_handshake()
        except OSError:  # it has to wait, or the other end is gone
            return False
        finally:
            self.flush()
        return True

    def _call(self, name: str, *arguments: int) -> None:
        function: Callable[..., int] = getattr(ctypes.CDLL(_ssl.__file__), name)
        below: Any = self._object._sslobj  # type: ignore[attr-defined]
        pointer = ctypes.c_void_p.from_address(id(below) + _AT)
        assert function(pointer, *arguments) == 1


_AT: Final = object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
"""Where CPython's object has OpenSSL's, behind its socket."""
