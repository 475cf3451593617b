"""The limit, a server in C on io_uring, serves what it should."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from equivalence import PATIENCE
from load import assert_consistent, limit, measure

if TYPE_CHECKING:
    from measure.programs import Programs

HELLO = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello world\n"


def exchange(port: int, data: bytes, pieces: int) -> bytes:
    """Sends the data in as many pieces, and the end; returns all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:

        def send() -> None:
            step = -(-len(data) // pieces)
            for start in range(0, len(data), step):
                client.sendall(data[start : start + step])
                time.sleep(0.002)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        time.sleep(0.1)
        received = b"".join(iter(lambda: client.recv(65536), b""))
        sender.join()
    return received


@pytest.mark.parametrize("clients", [1, 20])
def test_the_limit_keeps_the_order_and_loses_nothing(programs: Programs, clients: int) -> None:
    texts = [os.urandom(8 << 20) for _ in range(clients)]
    results: dict[int, bytes] = {}

    def run(index: int) -> None:
        results[index] = exchange(port, texts[index], 50)

    with limit(programs, "echo") as port:
        threads = [threading.Thread(target=run, args=(index,)) for index in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [results[index] == texts[index] for index in range(clients)] == [True] * clients


def test_the_limit_has_fewer_buffers_than_connections(programs: Programs) -> None:
    with limit(programs, "echo") as port:
        assert_consistent(measure(programs, "echo", port, size=65536, connections=900, seconds=2), 65536)


def test_the_limit_survives_clients_that_vanish(programs: Programs) -> None:
    with limit(programs, "echo") as port:
        for _ in range(20):
            client = socket.create_connection(("127.0.0.1", port))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    client.send(bytes(1 << 20))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
        assert exchange(port, b"still here", 1) == b"still here"
        assert_consistent(measure(programs, "echo", port, size=100_000), 100_000)


def test_the_limit_closes_after_one_message(programs: Programs) -> None:
    with limit(programs, "connections") as port:
        client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        with client:
            client.sendall(b"x" * 5000)
            assert b"".join(iter(lambda: client.recv(65536), b"")) == b"x" * 5000


@pytest.mark.parametrize("pieces", [1, 7, 100])
def test_the_limit_answers_each_http_request(programs: Programs, pieces: int) -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\r\n\r\n"
    with limit(programs, "http") as port:
        assert exchange(port, request * 150, pieces) == HELLO * 150
