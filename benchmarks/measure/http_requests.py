"""A fixed number of HTTP requests, where wrk, which knows only times, might get no reply in any.

Like wrk's, the loop is closed: each connection sends its next request when it has the reply.
"""

from __future__ import annotations

import selectors
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import attrs

from measure.processes import PATIENCE, ChildError

REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@attrs.define
class Connection:
    sock: socket.socket
    size: int = 0
    """Of every reply; that of the first one is looked at."""
    missing: int = 0
    """Bytes of the reply that is awaited."""
    left: int = 0
    """Requests that are still to be sent."""

    def open(self) -> None:
        self._send()
        reply = b""
        while not (self.size and len(reply) >= self.size):
            reply += self._received()
            head, found, _ = reply.partition(b"\r\n\r\n")
            if found:
                (length,) = (
                    line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
                )
                self.size = len(head + found) + int(length.split(b":")[1])

    def request(self) -> None:
        self._send()
        self.missing = self.size
        self.left -= 1

    def receive(self) -> bool:
        """Whether the last reply is complete."""
        self.missing -= len(self._received())
        if self.missing < 0:
            raise ChildError("the replies to an HTTP request differ in size")
        if not self.missing and self.left:
            self.request()
        return not self.missing

    def _send(self) -> None:
        try:
            self.sock.sendall(REQUEST)
        except OSError as error:
            raise ChildError(f"an HTTP request was not sent: {error}") from None

    def _received(self) -> bytes:
        try:
            received = self.sock.recv(1 << 16)
        except OSError as error:
            raise ChildError(f"no reply to an HTTP request: {error}") from None
        if not received:
            raise ChildError("no reply to an HTTP request: the server closed the connection")
        return received


def unverified() -> ssl.SSLContext:
    """Of a client that takes any certificate: the servers' is made for the run."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@contextmanager
def connections(port: int, count: int, *, over_tls: bool = False) -> Iterator[list[Connection]]:
    """Each has got one reply."""
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            if over_tls:
                sock = stack.enter_context(unverified().wrap_socket(sock))
            opened.append(Connection(sock))
            opened[-1].open()
        yield opened


def exchange(opened: list[Connection], each: int) -> None:
    """So many requests on each connection, and their replies."""
    with selectors.DefaultSelector() as selector:
        for connection in opened:
            selector.register(connection.sock, selectors.EVENT_READ, connection)
            connection.left = each
            connection.request()
        while selector.get_map():
            ready = selector.select(PATIENCE)
            if not ready:
                raise ChildError(f"no reply to an HTTP request: none for {PATIENCE:.0f} s")
            for key, _ in ready:
                if key.data.receive():
                    selector.unregister(key.fileobj)
