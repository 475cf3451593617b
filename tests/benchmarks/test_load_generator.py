"""The load generator counts what is true, and says what is wrong."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from load import (
    PERCENTILES,
    assert_consistent,
    command,
    echo,
    failure,
    limit,
    measure,
    running,
    thread_server,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from measure.programs import Programs


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


@contextlib.contextmanager
def tls_server(serve: Callable[[ssl.SSLSocket], None], **settings: Any) -> Iterator[int]:
    """Each connection is served in a thread, and ended as TLS is."""
    trustme = pytest.importorskip("trustme")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    for name, value in settings.items():
        setattr(context, name, value)

    def serve_over_tls(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
            serve(secured)
            secured.unwrap()

    with thread_server(serve_over_tls) as port:
        yield port


@pytest.fixture
def with_tls(programs: Programs) -> Programs:
    if not programs.tls:
        pytest.skip("libssl is not installed")  # what is said then, test_native_build.py knows
    return programs


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_tls(with_tls: Programs, version: str) -> None:
    versions = set()

    def serve(connection: ssl.SSLSocket) -> None:
        versions.add(connection.version())
        echo(connection)

    with tls_server(serve) as port:
        assert_consistent(measure(with_tls, "echo", port, size=100_000, tls=version), 100_000)
    assert versions == {f"TLSv{version}"}


@pytest.mark.parametrize("says_its_end", [True, False])
@pytest.mark.parametrize("flags", [(), ("--resume",)])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_handshakes_are_full_or_resumed(
    with_tls: Programs, version: str, flags: tuple[str, ...], says_its_end: bool
) -> None:
    seen = []

    def serve(connection: ssl.SSLSocket) -> None:
        seen.append((connection.version(), connection.session_reused))
        connection.sendall(connection.recv(64))
        if not says_its_end:
            raise ConnectionError("what comes next is the end of its socket")

    with tls_server(serve) as port:
        result = measure(with_tls, "connect", port, *flags, tls=version)
    assert_consistent(result, 64)
    resumed = (f"TLSv{version}", bool(flags))
    assert seen.count(resumed) >= result["answered"]
    # Of the three clients the first ones.
    assert len(seen) - seen.count(resumed) == (3 if flags else 0)


def test_a_handshake_that_is_not_resumed_is_an_error(with_tls: Programs) -> None:
    def serve(connection: ssl.SSLSocket) -> None:
        connection.sendall(connection.recv(64))

    with tls_server(serve, num_tickets=0) as port:
        error = failure(with_tls, "connect", port, "--resume", tls="1.3")
    assert "the handshake was not resumed" in error


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
        measure(programs, "echo", port, least=200)
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
        result = measure(programs, "echo", port, connections=4, least=100)
    assert_consistent(result, 64)
    assert result["histogram"][0][0] >= 5e6
    assert result["p50"] >= 0.005


def test_cpu_seconds_are_those_of_the_named_process(programs: Programs) -> None:
    spin = "import threading; threading.Thread(target=lambda: exec('while True: pass')).start()"
    used = {}
    for name, program in (("spins", spin), ("sleeps", "")):
        command = [sys.executable, "-c", f"{program}\nprint(flush=True)\ninput()"]
        with (
            limit(programs, "echo") as port,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        ):
            try:
                assert process.stdout is not None
                process.stdout.readline()  # Python's own start is over
                used[name] = measure(programs, "echo", port, pid=process.pid, seconds=1)["server_cpu"]
            finally:
                process.kill()
    # A little of what comes after the line may be in it.
    assert used["sleeps"] < 0.01 < used["spins"] < 2


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
                late.append((time.monotonic() + 1, data, peer))
            elif number % 3 == 1:
                server.sendto(data, peer)
            while late and late[0][0] < time.monotonic():
                server.sendto(*late.pop(0)[1:])

    with thread_server(serve, socket.SOCK_DGRAM) as port:
        result = measure(programs, "udp", port, window=4, seconds=1.5, forget=0.1)
    assert result["requests"] > 0
    assert result["lost"] > 0
    assert result["max"] < 0.9


def test_a_late_reply_does_not_count(programs: Programs) -> None:
    def serve(server: socket.socket) -> None:
        waiting = []
        while True:
            waiting.append((time.monotonic() + 1, *server.recvfrom(65536)))
            while waiting and waiting[0][0] < time.monotonic():
                server.sendto(*waiting.pop(0)[1:])

    with thread_server(serve, socket.SOCK_DGRAM) as port:
        result = measure(programs, "udp", port, seconds=1.5, forget=0.1, least=0)
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
        error = failure(programs, "echo", port, patience=2)
    assert "the server stopped answering: no reply for 2 s, 3 requests wait" in error


@pytest.mark.parametrize("mode", ["echo", "connect", "udp"])
def test_no_server_is_an_error(programs: Programs, mode: str) -> None:
    with socket.socket(type=socket.SOCK_DGRAM if mode == "udp" else socket.SOCK_STREAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert "Connection refused" in failure(programs, mode, port)


def test_options_are_checked(programs: Programs) -> None:
    assert "8 to 65507 bytes" in failure(programs, "udp", 9, size=4)
    assert "--idle is for echo" in failure(programs, "connect", 9, idle=1)
    assert "for echo and connect" in failure(programs, "udp", 9, tls="1.3")
    assert "for connect with --tls" in failure(programs, "connect", 9, "--resume")
    assert "for connect with --tls" in failure(programs, "echo", 9, "--resume", tls="1.3")
    assert "1.2 or 1.3 is needed" in failure(programs, "echo", 9, tls="1.1")
    assert "a number from" in failure(programs, "echo", 9, size="many")
    assert "usage: load" in failure(programs, "ping", 9)
    assert "usage: load" in failure(programs, "echo", 9, "--nothing")
    assert "the hard limit is" in failure(programs, "echo", 9, idle=1_000_000)
