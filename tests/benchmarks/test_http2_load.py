"""The load generator for HTTP/2 counts what is true, and says what is wrong."""

from __future__ import annotations

import contextlib
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from load import thread_server
from tracing import with_strace

for module in ("h2", "hypercorn", "trustme"):
    pytest.importorskip(module)

import h2.config  # noqa: E402
import h2.connection  # noqa: E402
import h2.events  # noqa: E402
import h2.exceptions  # noqa: E402
import trustme  # noqa: E402

from measure.loads import Load, Wrk, measurement, start_generator  # noqa: E402
from measure.processes import Child, ChildError  # noqa: E402
from measure.server import Server  # noqa: E402
from sides.servers.http import BODY  # noqa: E402

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    Answer = Callable[[h2.connection.H2Connection, int], None]

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def test_replies_of_hypercorn_are_counted() -> None:
    options = ("http2", "--connections", "2", "--streams", "3")
    with (
        Server("trio-epoll", "hypercorn-tls").start() as server,
        start_generator(server, options, 0.1, 0, least=50) as generator,
    ):
        first, second = generator.ask(), generator.ask()
    for answer in (first, second):
        assert 50 <= answer["requests"] <= answer["answered"] <= answer["requests"] + 6
        assert answer["bytes"] == answer["requests"] * len(BODY)
        assert 0 < answer["server_cpu"] < answer["seconds"] * 2
        assert measurement(answer)["p50"] > 0


@pytest.mark.parametrize("side", ["trio-epoll", "trio-uring"])
def test_hypercorn_is_measured_by_http2(side: str) -> None:
    options = ("http2", "--connections", "2", "--streams", "3")
    measured, seen = Load(Server(side, "hypercorn-tls"), options, 6, 0.05, 0).measure()
    assert measured["rate"] > 0
    assert f"its loop says '{'epoll' if side == 'trio-epoll' else 'io_uring'}" in seen


@with_strace
def test_calls_of_http_requests_over_tls() -> None:
    calls = Wrk(Server("trio-epoll", "hypercorn-tls"), 2, 1).count_system_calls()
    assert calls["sendto"] >= 1


@contextlib.contextmanager
def http2_server(answer: Answer) -> Iterator[int]:
    """Each request is answered by the function, which is called with the connection and the stream."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["h2"])
    trustme.CA().issue_cert("localhost").configure_cert(context)

    def serve(plain: socket.socket) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        with context.wrap_socket(plain, server_side=True) as secured:
            while data := secured.recv(1 << 16):
                with contextlib.suppress(h2.exceptions.ProtocolError):  # more may come when it is closed
                    for event in connection.receive_data(data):
                        if isinstance(event, h2.events.StreamEnded):
                            answer(connection, event.stream_id)
                secured.sendall(connection.data_to_send())

    with thread_server(serve) as port:
        yield port


def run(port: int, **more: object) -> dict[str, Any]:
    given = {"port": port, "connections": 1, "streams": 2, "seconds": 0.05, "warmup": 0, **more}
    options = [f"--{name}={value}" for name, value in given.items()]
    with Child([sys.executable, "-m", "measure.http2_load", "http2", *options]) as child:
        return child.ask()


def well(
    connection: h2.connection.H2Connection, stream: int, body: bytes = BODY, status: str = "200"
) -> None:
    connection.send_headers(stream, [(":status", status)])
    connection.send_data(stream, body, end_stream=True)


def in_pieces(connection: h2.connection.H2Connection, stream: int) -> None:
    connection.ping(b"12345678")
    connection.send_headers(stream, [(":status", "200")])
    connection.send_data(stream, BODY[:5])
    connection.send_data(stream, BODY[5:])
    connection.end_stream(stream)


@pytest.mark.parametrize("answer", [well, in_pieces])
def test_replies_may_come_in_pieces(answer: Answer) -> None:
    with http2_server(answer) as port:
        result = run(port, least=20)
    assert result["requests"] >= 20
    assert "server_cpu" in result


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda connection, stream: well(connection, stream, BODY[:-1]), "the reply of stream 1 is"),
        (lambda connection, stream: well(connection, stream, status="404"), "the headers of stream 1"),
        (lambda connection, stream: connection.reset_stream(stream), "ended stream 1"),
        (lambda connection, stream: connection.close_connection(), "frame of type 7"),
    ],
)
def test_what_is_wrong_is_an_error(answer: Answer, says: str) -> None:
    with http2_server(answer) as port, pytest.raises(ChildError, match=says):
        run(port)


def test_a_server_that_says_nothing_is_an_error() -> None:
    with (
        http2_server(lambda *_: None) as port,
        pytest.raises(ChildError, match=r"no reply for 0\.3 s, 2 requests wait"),
    ):
        run(port, patience=0.3)
