"""The load generator and the limit, as tests run them: children that answer lines with lines of JSON."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Any

from equivalence import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from measure.programs import Programs

    Serve = Callable[[socket.socket], None]

PERCENTILES = {"p50": 0.5, "p90": 0.1, "p99": 0.01, "p999": 0.001}


class Child:
    """A program that answers lines with lines of JSON."""

    def __init__(self, *command: object) -> None:
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {}

    def ask(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        return self.read()

    def end(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors


@contextlib.contextmanager
def running(*command: object) -> Iterator[Child]:
    child = Child(*command)
    try:
        yield child
        assert child.end() == (0, "")
    finally:
        child.process.kill()
        child.process.wait()


@contextlib.contextmanager
def limit(programs: Programs, mode: str) -> Iterator[int]:
    with running(programs.limit, mode) as child:
        ready = child.read()
        assert ready["ready"] is True
        assert ready["seen"].startswith("io_uring: ")
        yield ready["port"]
        assert child.ask() == {"seen": ready["seen"]}


@contextlib.contextmanager
def thread_server(serve: Serve, kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[int]:
    """Each connection, or the one UDP socket, is served by `serve` in a thread."""

    def accept(listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=guarded, args=(serve, connection), daemon=True).start()

    def guarded(function: Serve, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            function(sock)

    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            server.listen(100)
        else:
            server.settimeout(PATIENCE)  # nothing else ends its thread
        target = accept if kind == socket.SOCK_STREAM else serve
        thread = threading.Thread(target=guarded, args=(target, server), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        if kind == socket.SOCK_STREAM:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


def command(programs: Programs, mode: str, port: int, **options: object) -> list[object]:
    given = {
        "port": port,
        "size": 64,
        "connections": 3,
        "seconds": 0.2,
        "warmup": 0.02,
        "least": 1,
        **options,
    }
    return [programs.load, mode, *(f"--{name}={value}" for name, value in given.items())]


def measure(programs: Programs, mode: str, port: int, *flags: str, **options: object) -> dict[str, Any]:
    with running(*command(programs, mode, port, **options), *flags) as child:
        assert child.read()["ready"] is True
        return child.ask()


def failure(programs: Programs, mode: str, port: int, *flags: str, **options: object) -> str:
    child = Child(*command(programs, mode, port, **options), *flags)
    if child.read():
        assert child.ask() == {}
    status, errors = child.end()
    assert status == 1
    assert "load: " in errors
    return errors


def assert_consistent(result: dict[str, Any], size: int) -> None:
    requests, histogram = result["requests"], result["histogram"]
    assert requests > 0
    assert result["bytes"] == requests * size
    assert sum(count for _, count in histogram) == requests
    assert [upper for upper, _ in histogram] == sorted({upper for upper, _ in histogram})
    assert 0.2 <= result["seconds"] < 5
    assert 0 < result["generator_cpu"] <= result["seconds"] * 1.05
    assert 0 < result["max"] * 1e9 <= histogram[-1][0] + 1
    for name, beyond in PERCENTILES.items():
        assert (result[name] is None) == (requests * beyond < 10)
        if result[name] is not None:
            above = sum(
                count for upper, count in histogram if min(upper / 1e9, result["max"]) > result[name] + 5e-10
            )
            assert above <= requests * beyond


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)
