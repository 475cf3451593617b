"""Each server of the benchmarks does its work, on the runtime of its label, and ends when it is told."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import resource
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from child_process import SECCOMP
from load import thread_server

from measure.processes import Child, ChildError
from sides.runtimes import ASYNCIO, ON_ASYNCIO, RUNTIMES, TRIO, TRIO_URING, WrongBackendError, seen
from sides.servers.start import TLS_KINDS
from sides.servers.unsupported import UNSUPPORTED

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"

HOST = "127.0.0.1"
PATIENCE = 120
MEBIBYTE = bytes(range(256)) * 4096
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello world\n"

KINDS = {
    **dict.fromkeys(TRIO, ("streams", "sockets", "http", "connections", "udp", *TLS_KINDS)),
    **dict.fromkeys(ASYNCIO, ("streams", "sockets", "protocols", "http", "connections", "udp", *TLS_KINDS)),
    **dict.fromkeys(("aiofastnet", "blazio"), TLS_KINDS),
}
SERVERS = [(runtime, kind) for runtime in RUNTIMES for kind in KINDS[runtime]]
ON_RLOOPS_TRANSPORTS = [("rloop", kind) for kind in ("streams", "protocols", "http")]
"""They close no socket, and tell of a reset connection by a RuntimeError, which asyncio logs."""
CANCELLED_HANDLER = b"StreamReaderProtocol.connection_made"
"""What CPython before 3.11.8 and 3.12.2 logs of a stream's handler that was cancelled."""
HANDSHAKE_FAILED = b"SSL handshake failed"
"""What aiofastnet logs of clients that leave before it is over."""
HYPERCORN = (*TRIO, "asyncio", "uvloop", "aiofastnet", "blazio")


class Server:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid
        self.ready = self.answer()

    def ask(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(b"{}\n")
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._process.communicate()[1].decode()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def connect(self) -> socket.socket:
        return socket.create_connection((HOST, self.ready["port"]), PATIENCE)


@contextlib.contextmanager
def started(module: str, *arguments: str) -> Iterator[Server]:
    """A server that, at the end of the block, has to end by itself, with nothing to say."""
    with subprocess.Popen(
        [sys.executable, "-m", f"sides.servers.{module}", *arguments],
        cwd=FOLDER,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield Server(process)
            output, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, output) == (0, b"")
    if sys.version_info >= (3, 12, 2) or CANCELLED_HANDLER not in errors:
        assert errors == b"" or ("aiofastnet" in arguments and HANDSHAKE_FAILED in errors)


@attrs.frozen
class Certificate:
    authority: str
    server: str


MakeCertificate = Callable[[], Certificate]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> MakeCertificate:
    """Called by what needs it, so that only that is skipped where trustme is missing."""

    @functools.cache
    def make() -> Certificate:
        trustme = pytest.importorskip("trustme")
        folder = tmp_path_factory.mktemp("certificate")
        made = Certificate(str(folder / "authority.pem"), str(folder / "server.pem"))
        authority = trustme.CA()
        authority.cert_pem.write_to_path(made.authority)
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(made.server)
        return made

    return make


@contextlib.contextmanager
def server(runtime: str, kind: str, certificate: MakeCertificate) -> Iterator[Server]:
    if runtime in ON_ASYNCIO[1:]:
        pytest.importorskip(runtime)
    if (runtime, kind) in UNSUPPORTED:
        pytest.skip(UNSUPPORTED[runtime, kind])
    module = "trio_server" if runtime in TRIO else "asyncio_server"
    tls = ["--certificate", certificate().server] if kind in TLS_KINDS else []
    with started(module, "--runtime", runtime, "--kind", kind, *tls) as process:
        yield process


def receive(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        data = connection.recv(65536)
        assert data, f"the server closed after {len(received)} of {size} bytes"
        received += data
    return bytes(received)


def check_echo(connection: socket.socket, message: bytes, *, delay: float = 0) -> None:
    sender = threading.Thread(target=connection.sendall, args=(message,))
    sender.start()
    time.sleep(delay)
    assert receive(connection, len(message)) == message
    sender.join()


def check_stream(process: Server, *, closes: bool = True) -> None:
    with process.connect() as first, process.connect() as second:
        check_echo(first, MEBIBYTE)
        check_echo(second, b"short")
        # More than the kernel holds: it takes only a part of what the server sends.
        check_echo(first, MEBIBYTE * 16, delay=0.1)
        first.shutdown(socket.SHUT_WR)
        if closes:
            assert first.recv(1) == b""
        check_echo(second, b"still here")


Connect = Callable[[], socket.socket]


def check_http(connect: Connect) -> None:
    with connect() as connection:
        for piece in (REQUEST[:5], REQUEST[5:-3], REQUEST[-3:-1], REQUEST[-1:] + REQUEST[:-2]):
            connection.sendall(piece)
        assert receive(connection, len(RESPONSE)) == RESPONSE
        connection.sendall(REQUEST[-2:] + REQUEST * 3)
        assert receive(connection, 4 * len(RESPONSE)) == RESPONSE * 4
        check_silence(connection)


def check_silence(connection: socket.socket) -> None:
    connection.settimeout(0.2)
    with pytest.raises(TimeoutError):
        connection.recv(1)


def check_connections(connect: Connect) -> None:
    for _ in range(3):
        with connect() as connection:
            connection.sendall(b"once")
            assert receive(connection, 4) == b"once"
            assert connection.recv(1) == b""


def check_udp(process: Server) -> None:
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for number, client in enumerate(clients):
        client.settimeout(PATIENCE)
        client.connect((HOST, process.ready["port"]))
        client.send(b"%d" % number * 512)
    for number, client in enumerate(clients):
        assert client.recv(2048) == b"%d" % number * 512
        client.close()


def check_tls(connect: Connect) -> None:
    with connect() as connection:
        for message in (b"short", MEBIBYTE[:16384], b"again"):
            connection.sendall(message)
            assert receive(connection, len(message)) == message


@contextlib.contextmanager
def over_tls(process: Server, certificate: MakeCertificate, version: ssl.TLSVersion) -> Iterator[Connect]:
    context = ssl.create_default_context(cafile=certificate().authority)
    context.minimum_version = context.maximum_version = version
    yield lambda: context.wrap_socket(process.connect(), server_hostname=HOST)


CHECKS = {"tls": check_tls, "tls-http": check_http, "tls-connections": check_connections}


def check(process: Server, runtime: str, kind: str, certificate: MakeCertificate) -> None:
    if kind in TLS_KINDS:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with over_tls(process, certificate, version) as connect:
                CHECKS[kind](connect)
    elif kind == "udp":
        check_udp(process)
    elif kind == "http":
        check_http(process.connect)
    elif kind == "connections":
        check_connections(process.connect)
    else:
        check_stream(process, closes=(runtime, kind) not in ON_RLOOPS_TRANSPORTS)


@pytest.mark.parametrize(("runtime", "kind"), SERVERS)
def test_server_works_on_the_runtime_of_its_label(
    runtime: str, kind: str, certificate: MakeCertificate
) -> None:
    with server(runtime, kind, certificate) as process:
        check(process, runtime, kind, certificate)
        assert process.ready["backend"] == RUNTIMES[runtime].backend
        answer = process.ask()
        assert answer["backend"] == RUNTIMES[runtime].backend
        assert seen(runtime, answer["backend"], process.pid)


@pytest.mark.parametrize(("runtime", "kind"), [case for case in SERVERS if case[1] != "udp"])
def test_clients_may_vanish_and_the_end_drops_those_that_stay(
    runtime: str, kind: str, certificate: MakeCertificate
) -> None:
    with server(runtime, kind, certificate) as process, process.connect() as idle, process.connect() as busy:
        if kind not in TLS_KINDS:
            busy.sendall(REQUEST[:9])
        if (runtime, kind) not in ON_RLOOPS_TRANSPORTS:
            with process.connect() as resets:
                resets.sendall(MEBIBYTE[:200_000])
                resets.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        check(process, runtime, kind, certificate)
        assert idle


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("runtime", HYPERCORN)
def test_hypercorn_answers(runtime: str, tls: bool, certificate: MakeCertificate) -> None:
    pytest.importorskip("hypercorn")
    if runtime in ON_ASYNCIO[1:]:
        pytest.importorskip(runtime)
    options = ["--certificate", certificate().server] if tls else []
    with (
        started("hypercorn_server", "--runtime", runtime, *options) as process,
        process.connect() as idle,
    ):
        address = HOST, process.ready["port"]
        clients = [http.client.HTTPConnection(*address, timeout=PATIENCE) for _ in range(2)]
        if tls:
            context = ssl.create_default_context(cafile=certificate().authority)
            clients = [http.client.HTTPSConnection(*address, context=context) for _ in range(2)]
        for client in clients * 2:
            client.request("GET", "/")
            response = client.getresponse()
            assert (response.status, response.read()) == (200, b"Hello world\n")
            assert response.getheader("content-type") == "text/plain"
            assert not response.will_close
        assert seen(runtime, process.ask()["backend"], process.pid)
        assert idle
        if tls:  # on asyncio, whose end waits for theirs
            [client.close() for client in clients]
    for client in clients:
        client.close()


@pytest.mark.parametrize("runtime", [*TRIO, *ON_ASYNCIO])
def test_httpx_client_asks_on_the_runtime_of_its_label(runtime: str, certificate: MakeCertificate) -> None:
    pytest.importorskip("httpx")
    if runtime in ON_ASYNCIO[1:]:
        pytest.importorskip(runtime)
    if reason := UNSUPPORTED.get((runtime, "tls-http")):
        pytest.skip(reason)
    with (
        server("asyncio", "tls-http", certificate) as process,
        Child(httpx_client(runtime, process.ready["port"], certificate)) as client,
    ):
        answer = client.ask({"seconds": 1e-9, "tasks": 3, "least": 4})
        assert answer["requests"] == 12
        assert 0 < answer["cpu_seconds"] < answer["seconds"] * 2
        assert seen(runtime, client.ready["backend"], client.pid)


@pytest.mark.parametrize("reply", [RESPONSE.replace(b"world", b"World"), RESPONSE.replace(b"200", b"201")])
def test_httpx_client_notices_another_reply(reply: bytes, certificate: MakeCertificate) -> None:
    pytest.importorskip("httpx")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate().server)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            while secured.recv(65536):
                secured.sendall(reply)

    with (
        thread_server(serve) as number,
        pytest.raises(ChildError, match="ReplyError"),
        Child(httpx_client("asyncio", number, certificate)) as client,
    ):
        client.ask({"seconds": 1e-9, "tasks": 1, "least": 1})


def httpx_client(runtime: str, number: int, certificate: MakeCertificate) -> list[str]:
    module = [sys.executable, "-m", "sides.clients.httpx_client", "--runtime", runtime]
    return [*module, "--port", str(number), "--authority", certificate().authority]


@pytest.mark.parametrize("kind", KINDS["trio-uring"])
def test_server_on_another_backend_than_its_label_is_refused(kind: str, certificate: MakeCertificate) -> None:
    tls = ["--certificate", certificate().server] if kind in TLS_KINDS else []
    refused = [sys.executable, str(SECCOMP), "EPERM", "io_uring_setup", "--"]
    options = ["--runtime", "trio-uring", "--kind", kind, *tls]
    command = [sys.executable, "-m", "sides.servers.trio_server", *options]
    with Child([*refused, *command], environment={"TRIO_URING_FALLBACK": "epoll"}) as child:
        for answer in (child.ready, child.ask()):
            with pytest.raises(WrongBackendError, match=r"trio-uring, but its loop says 'epoll'"):
                seen("trio-uring", answer["backend"], child.pid)


@pytest.mark.parametrize("runtime", TRIO_URING)
def test_variants_of_trio_uring_are_told_apart(runtime: str, certificate: MakeCertificate) -> None:
    with server(runtime, "streams", certificate) as process:
        for other in TRIO_URING:
            with pytest.raises(WrongBackendError) if other != runtime else contextlib.nullcontext():
                seen(other, process.ready["backend"], process.pid)


@pytest.mark.parametrize("kind", ["streams", "sockets", "http"])
@pytest.mark.parametrize("runtime", TRIO)
def test_how_a_server_received_is_seen(runtime: str, kind: str, certificate: MakeCertificate) -> None:
    pytest.importorskip("trustme")
    from measure.server import Server as Measured

    multishot = RUNTIMES[runtime].multishot
    with server(runtime, kind, certificate) as process:
        if multishot:
            with pytest.raises(WrongBackendError, match="0 multishot receives"):
                Measured(runtime, kind).seen_after_load(process.pid, process.ask())
        check(process, runtime, kind, certificate)
        text = Measured(runtime, kind).seen_after_load(process.pid, process.ask())
        assert text.endswith("it received by multishot" if multishot else "it received nothing by multishot")
        wrong = {**process.ask(), "multishots": 0 if multishot else 1}
        with pytest.raises(WrongBackendError, match="multishot receives ended"):
            Measured(runtime, kind).seen_after_load(process.pid, wrong)


# Argument: the runtime. Tells how many sends that find room a task makes in one step.
CALLS_IN_A_ROW = """
import sys
import trio
from sides.runtimes import run_trio
from trio_uring.loop import run

run._now = lambda: 0.0  # no time passes that could end a budget

class Steps(trio.abc.Instrument):
    count = 0
    def before_task_step(self, task):
        self.count += 1

async def main():
    a, b = trio.socket.socketpair()
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    sent = 0
    while not steps.count:
        await a.send(b"x")
        sent += 1
    print(sent)

run_trio(sys.argv[1], main)
"""


@pytest.mark.parametrize(
    ("runtime", "calls"),
    [("trio-epoll", 1), ("trio-uring", 1), ("trio-uring-readiness", 1), ("trio-uring-budget", 17)],
)
def test_budget_is_that_of_the_label(runtime: str, calls: int) -> None:
    command = [sys.executable, "-c", CALLS_IN_A_ROW, runtime]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (f"{calls}\n", "")


@pytest.mark.parametrize("runtime", TRIO)
def test_greedy_server_tells_how_late_another_task_runs(runtime: str) -> None:
    with started("greedy_server", "--runtime", runtime, "--kind", "greedy") as process:
        assert process.ask()["late"] == {}
        with process.connect() as connection:
            while "p50" not in (answer := process.ask())["late"]:
                check_echo(connection, MEBIBYTE[:65536])
        assert answer["late"]["p50"] > 0
        assert seen(runtime, answer["backend"], process.pid)


@pytest.mark.parametrize(("runtime", "kind"), UNSUPPORTED)
def test_unsupported_server_says_so(runtime: str, kind: str) -> None:
    what = ["asyncio_server", "--kind", kind]
    if kind == "hypercorn-tls":
        pytest.importorskip("hypercorn")
        what = ["hypercorn_server", "--certificate", "any"]
    command = [sys.executable, "-m", f"sides.servers.{what[0]}", "--runtime", runtime, *what[1:]]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", UNSUPPORTED[runtime, kind] + "\n")


@pytest.mark.parametrize(
    ("module", "arguments", "needed", "other"),
    [
        ("asyncio_server", ["--runtime", "asyncio", "--kind", "streams"], "asyncio", "trio"),
        ("hypercorn_server", ["--runtime", "asyncio"], "asyncio", "trio"),
        ("trio_server", ["--runtime", "trio-epoll", "--kind", "streams"], "trio", "asyncio"),
        ("trio_server", ["--runtime", "trio-uring", "--kind", "streams"], "trio", "asyncio"),
    ],
)
def test_memory_of_a_server_holds_no_other_runtime(
    module: str, arguments: list[str], needed: str, other: str
) -> None:
    if module == "hypercorn_server":
        pytest.importorskip("hypercorn")
        if sys.version_info < (3, 12):
            pytest.skip("hypercorn hangs there when it is cancelled while it starts")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"sides.servers.{module}", *arguments],
        cwd=FOLDER,
        input="",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert needed in imported
    assert other not in imported


@pytest.mark.parametrize("runtime", ["trio-uring", "asyncio"])
def test_server_raises_its_limit_of_open_files(runtime: str, certificate: MakeCertificate) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with server(runtime, "streams", certificate) as process:
            limit, _ = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert limit == limits[1]


# Arguments: the kind, and for TLS the certificate.
RLOOP_REGARDLESS = """
import sys
from sides.servers.asyncio_server import *

_, kind, *certificate = sys.argv
bound = bound_socket(kind)
tls = server_context(*certificate) if certificate else None
run_asyncio("rloop", partial(serve_on_asyncio, port(bound), partial(serve, kind, tls, bound)))
"""


def test_rloop_still_does_not_support_tls(certificate: MakeCertificate) -> None:
    pytest.importorskip("rloop")
    command = [sys.executable, "-c", RLOOP_REGARDLESS, "tls", certificate().server]
    with pytest.raises(ChildError, match="NotImplementedError"), Child(command) as child:
        # It is ready as soon as its socket listens.
        [child.ask() for _ in range(1000)]


def test_rloop_still_does_not_close_the_sockets_of_its_transports() -> None:
    pytest.importorskip("rloop")
    command = [sys.executable, "-c", RLOOP_REGARDLESS, "connections"]
    with Child(command) as child, socket.create_connection((HOST, child.ready["port"])) as connection:
        connection.sendall(b"once")
        assert receive(connection, 4) == b"once"
        check_silence(connection)
