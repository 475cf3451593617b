"""hypercorn, which spawns even its one worker: each worker is asked what it runs on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events
import pytest
import trustme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 30
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("TRIO_URING")}
HYPERCORN = ("-m", "hypercorn", "-k", "trio", "--graceful-timeout", "0")

APPLICATION = """
import os
import trio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    backend = trio.lowlevel.current_statistics().io_statistics.backend
    answer = f"{backend} {os.getpid()} {scope['http_version']}"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": answer.encode()})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APPLICATION)
    return tmp_path


@contextlib.contextmanager
def serving(folder: Path, *command: str, fd: int | None = None, **environment: str) -> Iterator[None]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command, "app:app"],
            cwd=folder,
            env={**PLAIN, **environment},
            stdout=log,
            stderr=log,
            pass_fds=() if fd is None else (fd,),
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ask(connect: Callable[[], socket.socket]) -> tuple[str, int]:
    """The backend, and the worker. Who does not listen yet is asked again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with connect() as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                received = b""
                while piece := client.recv(4096):
                    received += piece
            backend, pid, _ = received.partition(b"\r\n\r\n")[2].decode().split("\r\n")[1].split()
            return backend, int(pid)
        except (ConnectionError, FileNotFoundError, IndexError):
            assert time.monotonic() < deadline, "nobody answers"
            time.sleep(0.05)


def to(port: int) -> Callable[[], socket.socket]:
    return lambda: socket.create_connection(("127.0.0.1", port), PATIENCE)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_worker_is_on_io_uring(folder: Path, port: int, workers: int) -> None:
    bind = ("-b", f"127.0.0.1:{port}", "-w", str(workers))
    with serving(folder, "-m", "trio_uring", *HYPERCORN, *bind):
        answers = {ask(to(port))}
        deadline = time.monotonic() + PATIENCE
        while len(answers) < workers and time.monotonic() < deadline:
            answers.add(ask(to(port)))
    assert {backend for backend, _ in answers} == {"io_uring"}
    assert len({pid for _, pid in answers}) == max(1, workers)


def test_worker_that_replaces_another_one_is_on_io_uring(folder: Path, port: int) -> None:
    with serving(folder, "-m", "trio_uring", *HYPERCORN, "-b", f"127.0.0.1:{port}", "--reload"):
        first = ask(to(port))
        deadline = time.monotonic() + PATIENCE
        second = first
        while second == first and time.monotonic() < deadline:
            os.utime(folder / "app.py")  # hypercorn may not have looked at it before
            time.sleep(0.2)
            second = ask(to(port))
    assert first[0] == second[0] == "io_uring"
    assert first[1] != second[1]


def test_environment_puts_the_workers_of_the_plain_command_on_io_uring(folder: Path, port: int) -> None:
    with serving(folder, *HYPERCORN, "-b", f"127.0.0.1:{port}", TRIO_URING="1"):
        assert ask(to(port))[0] == "io_uring"


def test_workers_on_a_unix_socket(folder: Path) -> None:
    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        client.connect(str(folder / "socket"))
        return client

    with serving(folder, "-m", "trio_uring", *HYPERCORN, "-b", f"unix:{folder}/socket"):
        assert ask(connect)[0] == "io_uring"


def test_workers_on_a_descriptor(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        fd = bound.fileno()
        with serving(folder, "-m", "trio_uring", *HYPERCORN, "-b", f"fd://{fd}", fd=fd):
            assert ask(to(bound.getsockname()[1]))[0] == "io_uring"


def test_workers_with_tls_and_http_2(folder: Path, port: int) -> None:
    authority = trustme.CA()
    pem = folder / "certificate.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    authority.configure_trust(context)
    tls = ("--certfile", str(pem), "--keyfile", str(pem), "-b", f"127.0.0.1:{port}")
    with serving(folder, "-m", "trio_uring", *HYPERCORN, *tls):
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                client = context.wrap_socket(to(port)(), server_hostname="localhost")
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with client:
            backend, _, version = get_by_http_2(client).split()
    assert (backend, version) == ("io_uring", "2")


def get_by_http_2(client: socket.socket) -> str:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    names = {":method": "GET", ":path": "/", ":scheme": "https", ":authority": "localhost"}
    connection.send_headers(1, list(names.items()), end_stream=True)
    client.sendall(connection.data_to_send())
    answer = b""
    while piece := client.recv(65536):
        for event in connection.receive_data(piece):
            if isinstance(event, h2.events.DataReceived):
                answer += event.data
            elif isinstance(event, h2.events.StreamEnded):
                return answer.decode()
        client.sendall(connection.data_to_send())
    raise AssertionError("the connection ended first")
