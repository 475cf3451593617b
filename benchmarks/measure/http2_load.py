"""A load generator for HTTP/2 over TLS, which talks with the suite as the native one does.

    python -m measure.http2_load http2 --port P --connections N --streams M --seconds S --warmup W
        [--least REQUESTS] [--patience S] [--pid SERVER_PID]

The loop is closed: each connection has as many requests outstanding as it has streams, and
sends the next one when a reply is complete and was found right. It says no more of HTTP/2
than the server has to be told: what a request's headers are in HPACK stands below, byte by
byte, and that replies may be as many as there are. A server that resets a stream or goes away
has failed, and so has one that sends other headers first than "200".
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import ssl
import struct
import sys
import time
from array import array
from contextlib import suppress

import attrs

from measure.http_requests import unverified
from measure.percentiles import percentiles
from measure.processes import cpu_seconds
from sides.servers.http import BODY
from sides.servers.start import HOST

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
# By their numbers in HPACK's static table: GET, https, "/"; and :authority with a value of our own.
REQUEST = b"\x82\x87\x84\x01" + bytes([len(HOST)]) + HOST.encode()
STATUS_200 = 0x88
MOST_DATA = 2**31 - 1 - 65535
"""Bytes that a connection may receive beside those that it may anyway: enough for an hour."""


class ReplyError(Exception):
    """The server did not answer as it should."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


@attrs.define
class Load:
    """What all connections do together."""

    latencies: array[float] = attrs.field(factory=lambda: array("d"))
    counting: bool = False
    stopping: bool = False
    answered: int = 0
    outstanding: int = 0


@attrs.define(eq=False)
class Connection:
    sock: ssl.SSLSocket
    load: Load
    _next: int = 1
    _unread: bytes = b""
    _begun: dict[int, float] = attrs.field(factory=dict)
    """By stream: when its request was sent, as long as its reply is awaited."""
    _bodies: dict[int, bytes] = attrs.field(factory=dict)

    def request(self) -> bytes:
        stream, self._next = self._next, self._next + 2
        self._begun[stream] = time.perf_counter()
        self.load.outstanding += 1
        return frame(HEADERS, END_STREAM | END_HEADERS, stream, REQUEST)

    def receive(self) -> None:
        """All that has come; answers each reply by the next request."""
        with suppress(ssl.SSLWantReadError):
            while data := self.sock.recv(1 << 16):
                self._unread += data
            raise ReplyError("the server closed the connection")
        to_send, begin = b"", 0
        while (payload := begin + 9) <= len(self._unread):
            end = payload + int.from_bytes(self._unread[begin : begin + 3], "big")
            if end > len(self._unread):
                break
            kind, flags, stream = struct.unpack_from(">BBI", self._unread, begin + 3)
            to_send += self._answer(kind, flags, stream, self._unread[payload:end])
            begin = end
        self._unread = self._unread[begin:]
        self.send(to_send)

    def send(self, data: bytes) -> None:
        """There is room: what waits for replies is little."""
        if data and self.sock.send(data) != len(data):
            raise ReplyError("the server takes no further requests")

    def _answer(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        if kind in (RST_STREAM, GOAWAY):
            raise ReplyError(f"the server ended stream {stream} by a frame of type {kind}: {payload!r}")
        if kind == SETTINGS and not flags & ACK:
            return frame(SETTINGS, ACK, 0)
        if kind == PING and not flags & ACK:
            return frame(PING, ACK, 0, payload)
        if kind == HEADERS and stream not in self._bodies:
            if payload[:1] != bytes([STATUS_200]):
                raise ReplyError(f"the headers of stream {stream} begin with {payload[:1]!r}")
            self._bodies[stream] = b""
        elif kind == DATA:
            self._bodies[stream] += payload
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            return self._complete(stream)
        return b""

    def _complete(self, stream: int) -> bytes:
        if (body := self._bodies.pop(stream)) != BODY:
            raise ReplyError(f"the reply of stream {stream} is {body!r}")
        latency = time.perf_counter() - self._begun.pop(stream)
        self.load.outstanding -= 1
        self.load.answered += 1
        if self.load.counting:
            self.load.latencies.append(latency)
        return b"" if self.load.stopping else self.request()


def connect(port: int, load: Load) -> Connection:
    context = unverified()
    context.set_alpn_protocols(["h2"])
    sock = context.wrap_socket(socket.create_connection((HOST, port)))
    if sock.selected_alpn_protocol() != "h2":
        raise ReplyError("the server does not speak HTTP/2")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(WINDOW_UPDATE, 0, 0, MOST_DATA.to_bytes(4, "big")))
    sock.setblocking(False)
    return Connection(sock, load)


@attrs.frozen
class Options:
    port: int
    connections: int
    streams: int
    seconds: float
    warmup: float
    least: int
    patience: float
    pid: int


def measure(
    options: Options, load: Load, connections: list[Connection], selector: selectors.BaseSelector
) -> dict[str, float | None]:
    def turn(until: float) -> None:
        ready = selector.select(max(0.0, min(until - time.perf_counter(), options.patience)))
        if not ready and time.perf_counter() < until:
            raise ReplyError(f"no reply for {options.patience} s, {load.outstanding} requests wait")
        for key, _ in ready:
            key.data.receive()

    def clocks() -> tuple[float, float, float]:
        server = cpu_seconds(options.pid) if options.pid else 0.0
        return time.perf_counter(), time.process_time(), server

    load.stopping, load.answered, load.latencies = False, 0, array("d")
    for connection in connections:
        connection.send(b"".join(connection.request() for _ in range(options.streams)))
    end = time.perf_counter() + options.warmup
    while time.perf_counter() < end:
        turn(end)
    load.counting, begun = True, clocks()
    end = begun[0] + options.seconds
    while time.perf_counter() < end:
        turn(end)
    while len(load.latencies) < options.least:
        turn(float("inf"))
    load.counting, ended = False, clocks()
    load.stopping = True
    while load.outstanding:
        turn(float("inf"))
    seconds, generator, server = (after - before for before, after in zip(begun, ended, strict=True))
    found = percentiles(load.latencies)
    return {
        "requests": len(load.latencies),
        "seconds": seconds,
        "bytes": len(load.latencies) * len(BODY),
        "generator_cpu": generator,
        "server_cpu": server,
        "answered": load.answered,
        "lost": 0,
        "p50": found.get("p50"),
        "p99": found.get("p99"),
        "p999": found.get("p99.9"),
    }


def options_of(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["http2"])
    for name in ("port", "connections", "streams"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("seconds", "warmup"):
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--least", type=int, default=1)
    parser.add_argument("--patience", type=float, default=10.0)
    parser.add_argument("--pid", type=int, default=0)
    words = vars(parser.parse_args(arguments))
    del words["mode"]
    return Options(**words)


def main() -> None:
    options, load = options_of(sys.argv[1:]), Load()
    connections = [connect(options.port, load) for _ in range(options.connections)]
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.sock, selectors.EVENT_READ, connection)
        print(json.dumps({"ready": True, "connections": options.connections}), flush=True)
        for _ in sys.stdin:
            print(json.dumps(measure(options, load, connections, selector)), flush=True)


if __name__ == "__main__":
    try:
        main()
    except ReplyError as error:
        sys.exit(f"http2_load: {error}")
