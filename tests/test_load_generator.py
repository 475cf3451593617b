"""The load generator counts what is true, and says what is wrong; the limit serves what it should."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from programs import NativeBuildError, Programs, build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Serve = Callable[[socket.socket], None]

PERCENTILES = {"p50": 0.5, "p90": 0.1, "p99": 0.01, "p999": 0.001}
HELLO = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello world\n"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return build(tmp_path_factory.mktemp("native"))


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
        _, errors = self.process.communicate(timeout=30)
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
            server.settimeout(1)  # nothing else wakes its thread in the end
        target = accept if kind == socket.SOCK_STREAM else serve
        thread = threading.Thread(target=guarded, args=(target, server), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        if kind == socket.SOCK_STREAM:
            server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def command(programs: Programs, mode: str, port: int, **options: object) -> list[object]:
    given = {"port": port, "size": 64, "connections": 3, "seconds": 0.2, "warmup": 0.02, **options}
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


# The load generator against the limit


@pytest.mark.parametrize("size", [1, 64, 2048, 70_000, 1 << 20])
def test_echo(programs: Programs, size: int) -> None:
    with limit(programs, "echo") as port:
        result = measure(programs, "echo", port, size=size, idle=4)
    assert_consistent(result, size)
    assert result["lost"] == 0
    assert "server_cpu" not in result


def test_connections(programs: Programs) -> None:
    with limit(programs, "connections") as port:
        assert_consistent(measure(programs, "connect", port), 64)


@pytest.mark.parametrize("size", [8, 64, 1232])
def test_datagrams(programs: Programs, size: int) -> None:
    with limit(programs, "udp") as port:
        result = measure(programs, "udp", port, size=size, window=4)
    assert_consistent(result, size)
    assert result["lost"] == 0


def test_tls(programs: Programs) -> None:
    trustme = pytest.importorskip("trustme")
    if not programs.tls:
        assert "libssl-dev" in failure(programs, "echo", 9, "--tls")
        pytest.skip("libssl is not installed")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    versions = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        versions.add(writer.get_extra_info("ssl_object").version())
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def main() -> dict[str, Any]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            return await asyncio.to_thread(measure, programs, "echo", port, "--tls", size=100_000)

    assert_consistent(asyncio.run(main()), 100_000)
    assert versions == {"TLSv1.3"}


def test_several_windows_on_the_same_connections(programs: Programs) -> None:
    accepted = []

    def serve(connection: socket.socket) -> None:
        accepted.append(connection.getpeername()[0])
        echo(connection)

    with thread_server(serve) as port, running(*command(programs, "echo", port, idle=5)) as child:
        assert child.read() == {"ready": True, "connections": 8}
        assert len(accepted) == 8
        for _ in range(2):
            assert_consistent(child.ask(), 64)
        assert len(accepted) == 8
    assert len(set(accepted)) == 8  # a source address each: ports do not run out


def test_no_two_messages_are_the_same(programs: Programs) -> None:
    messages = []

    def serve(connection: socket.socket) -> None:
        while data := connection.recv(64, socket.MSG_WAITALL):
            messages.append(data)
            connection.sendall(data)

    with thread_server(serve) as port:
        measure(programs, "echo", port)
    assert len(set(messages[:1000])) == len(messages[:1000]) > 100


# What is measured


def test_few_samples_have_no_percentiles(programs: Programs) -> None:
    def serve(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            time.sleep(0.03)
            connection.sendall(data)

    with thread_server(serve) as port:
        result = measure(programs, "echo", port, connections=1, seconds=0.3)
    assert 1 <= result["requests"] < 20
    assert [result[name] for name in PERCENTILES] == [None] * 4
    assert 0.03 <= result["max"] < 3


def test_a_window_is_prolonged_until_enough_requests_count(programs: Programs) -> None:
    with limit(programs, "echo") as port:
        result = measure(programs, "echo", port, seconds=0.001, warmup=0, least=500)
    assert 500 <= result["requests"] <= result["answered"] <= result["requests"] + 3
    assert result["seconds"] > 0.001


@pytest.mark.parametrize("mode", ["echo", "connect", "udp"])
def test_each_answered_request_is_told_in_the_window_or_not(programs: Programs, mode: str) -> None:
    served = 0

    def serve(sock: socket.socket) -> None:
        nonlocal served
        while True:
            data, address = sock.recvfrom(65536)
            if not data:
                return
            served += 1
            sock.sendto(data, address) if mode == "udp" else sock.sendall(data)
            if mode == "connect":
                sock.shutdown(socket.SHUT_WR)

    kind = socket.SOCK_DGRAM if mode == "udp" else socket.SOCK_STREAM
    window = {"window": 1, "forget": 10} if mode == "udp" else {}
    with thread_server(serve, kind) as port:
        result = measure(programs, mode, port, connections=1, seconds=0.05, warmup=0.05, **window)
    probes = 1 if mode == "echo" else 0
    assert result["answered"] == served - probes
    assert result["requests"] < result["answered"]


def test_latency_is_the_servers(programs: Programs) -> None:
    def serve(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            time.sleep(0.005)
            connection.sendall(data)

    with thread_server(serve) as port:
        result = measure(programs, "echo", port, connections=4)
    assert_consistent(result, 64)
    assert result["histogram"][0][0] >= 5e6
    assert result["p50"] < 0.1


def test_cpu_seconds_are_those_of_the_named_process(programs: Programs) -> None:
    spin = "import threading, time; threading.Thread(target=lambda: exec('while True: pass')).start()"
    used = {}
    for name, program in (("spins", spin), ("sleeps", "import time; time.sleep(60)")):
        with limit(programs, "echo") as port, subprocess.Popen([sys.executable, "-c", program]) as process:
            try:
                time.sleep(0.3)  # Python's own start
                used[name] = measure(programs, "echo", port, pid=process.pid, seconds=1)["server_cpu"]
            finally:
                process.kill()
    assert 0.1 < used["spins"] < 2
    assert used["sleeps"] < used["spins"] / 5


def test_cpu_seconds_of_no_process(programs: Programs) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with limit(programs, "echo") as port:
        assert f"the CPU clock of process {gone.pid}" in failure(programs, "echo", port, pid=gone.pid)


def test_lost_and_late_datagrams_are_counted(programs: Programs) -> None:
    def serve(server: socket.socket) -> None:
        late = []
        while True:
            data, peer = server.recvfrom(65536)
            number = int.from_bytes(data[:8], sys.byteorder)
            if number % 3 == 0:
                late.append((time.monotonic() + 0.3, data, peer))
            elif number % 3 == 1:
                server.sendto(data, peer)
            while late and late[0][0] < time.monotonic():
                server.sendto(*late.pop(0)[1:])

    with thread_server(serve, socket.SOCK_DGRAM) as port:
        result = measure(programs, "udp", port, window=4, seconds=1)
    assert result["requests"] > 0
    assert result["lost"] > 0
    assert result["max"] < 0.29


def test_a_late_reply_does_not_count(programs: Programs) -> None:
    def serve(server: socket.socket) -> None:
        waiting = []
        while True:
            waiting.append((time.monotonic() + 0.35, *server.recvfrom(65536)))
            while waiting and waiting[0][0] < time.monotonic():
                server.sendto(*waiting.pop(0)[1:])

    with thread_server(serve, socket.SOCK_DGRAM) as port:
        result = measure(programs, "udp", port, seconds=1)
    assert result["requests"] == 0
    assert result["max"] is None
    assert result["lost"] > 0


# What is wrong


def flipped(data: bytes, index: int) -> bytes:
    return data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]


@pytest.mark.parametrize("mode", ["echo", "connect"])
@pytest.mark.parametrize("size", [64, 100_000])
def test_one_changed_byte_is_an_error(programs: Programs, mode: str, size: int) -> None:
    def serve(connection: socket.socket) -> None:
        for number in range(50):
            data = connection.recv(size if number or mode == "connect" else 64, socket.MSG_WAITALL)
            if not data:
                return  # Another connection has met the changed byte.
            changed = number == 20 or mode == "connect"
            connection.sendall(flipped(data, 37) if changed else data)

    with thread_server(serve) as port:
        error = failure(programs, mode, port, size=size)
    assert "byte 37 of the reply is wrong" in error if mode == "echo" else "the reply is wrong" in error


@pytest.mark.parametrize("index", [0, 30])
def test_one_changed_byte_of_a_datagram_is_an_error(programs: Programs, index: int) -> None:
    def serve(server: socket.socket) -> None:
        for _ in range(10):
            data, peer = server.recvfrom(65536)
            server.sendto(flipped(data, index), peer)

    with thread_server(serve, socket.SOCK_DGRAM) as port:
        error = failure(programs, "udp", port)
    assert ("reply is wrong" if index else "") in error


def test_the_reply_to_somebody_else_is_an_error(programs: Programs) -> None:
    last = b""

    def serve(connection: socket.socket) -> None:
        nonlocal last
        connection.sendall(connection.recv(64))
        while data := connection.recv(64):
            connection.sendall(last or data)
            last = data

    with thread_server(serve) as port:
        assert "of the reply is wrong" in failure(programs, "echo", port)


def test_more_than_was_sent_is_an_error(programs: Programs) -> None:
    def serve(connection: socket.socket) -> None:
        while data := connection.recv(64):
            connection.sendall(data + data[:1])

    with thread_server(serve) as port:
        assert "more came back than was sent" in failure(programs, "echo", port)


@pytest.mark.parametrize("messages", [0, 1, 10])
def test_a_connection_that_the_server_closes_is_an_error(programs: Programs, messages: int) -> None:
    def serve(connection: socket.socket) -> None:
        for _ in range(messages):
            connection.sendall(connection.recv(65536))
        connection.recv(1)

    with thread_server(serve) as port:
        error = failure(programs, "echo", port, connections=1)
    assert "connection 0: " in error
    assert "the server closed it" in error or "Connection reset" in error


def test_an_idle_connection_that_the_server_closes_is_an_error(programs: Programs) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(connection.recv(64))
        connection.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            echo(connection)

    with thread_server(serve) as port:
        error = failure(programs, "echo", port, connections=1, idle=1, seconds=3)
    assert "connection 0: the server closed it" in error


def test_half_a_reply_is_an_error(programs: Programs) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(connection.recv(64)[:32])

    with thread_server(serve) as port:
        error = failure(programs, "connect", port)
    assert "the server closed it before the reply was complete" in error


def test_a_server_that_says_nothing_is_an_error(programs: Programs) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(connection.recv(64))
        while connection.recv(65536):
            pass

    with thread_server(serve) as port:
        error = failure(programs, "echo", port, patience=0.5)
    assert "the server stopped answering: no reply for 0.5 s, 3 requests wait" in error


@pytest.mark.parametrize("mode", ["echo", "connect", "udp"])
def test_no_server_is_an_error(programs: Programs, mode: str) -> None:
    with socket.socket(type=socket.SOCK_DGRAM if mode == "udp" else socket.SOCK_STREAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert "Connection refused" in failure(programs, mode, port)


def test_options_are_checked(programs: Programs) -> None:
    assert "8 to 65507 bytes" in failure(programs, "udp", 9, size=4)
    assert "are for echo" in failure(programs, "connect", 9, "--tls")
    assert "a number from" in failure(programs, "echo", 9, size="many")
    assert "usage: load" in failure(programs, "ping", 9)
    assert "usage: load" in failure(programs, "echo", 9, "--nothing")
    assert "the hard limit is" in failure(programs, "echo", 9, idle=1_000_000)


# The limit


def exchange(port: int, data: bytes, pieces: int) -> bytes:
    """Sends the data in as many pieces, and the end; returns all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:

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
        client = socket.create_connection(("127.0.0.1", port), timeout=10)
        with client:
            client.sendall(b"x" * 5000)
            assert b"".join(iter(lambda: client.recv(65536), b"")) == b"x" * 5000


@pytest.mark.parametrize("pieces", [1, 7, 100])
def test_the_limit_answers_each_http_request(programs: Programs, pieces: int) -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\r\n\r\n"
    with limit(programs, "http") as port:
        assert exchange(port, request * 150, pieces) == HELLO * 150


# The build


def test_what_is_up_to_date_is_not_compiled(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = programs.load.parent.parent
    before = programs.load.stat()
    if programs.tls:
        monkeypatch.setattr(subprocess, "run", None)
    assert build(folder) == programs
    assert programs.load.stat() == before
    monkeypatch.undo()
    monkeypatch.setenv("CFLAGS", "-DANOTHER_KEY")
    assert build(folder).load != programs.load


@pytest.mark.parametrize(
    ("variable", "value", "package"),
    [("CC", "/nonexistent/cc", "gcc"), ("CFLAGS", "-I{}", "liburing-dev")],
)
def test_what_the_build_misses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, package: str
) -> None:
    (tmp_path / "liburing.h").write_text('#include "nowhere/liburing.h"\n')
    monkeypatch.setenv(variable, value.format(tmp_path))
    with pytest.raises(NativeBuildError, match=f"apt-get install .*{package}"):
        build(tmp_path / "programs")


def test_without_libssl_tls_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "openssl").mkdir()
    (tmp_path / "openssl" / "ssl.h").write_text('#include "nowhere/ssl.h"\n')
    monkeypatch.setenv("CFLAGS", f"-I{tmp_path}")
    programs = build(tmp_path / "programs")
    assert not programs.tls
    with limit(programs, "echo") as port:
        assert "libssl-dev" in failure(programs, "echo", port, "--tls")
