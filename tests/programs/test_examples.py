"""The programs of examples/, on both backends: they do what they say, and end as they say at a signal."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from child_process import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PATIENCE = 60
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("TRIO_URING")}
RUNNERS = {"epoll": [sys.executable], "io_uring": [sys.executable, "-m", "trio_uring"]}
SIGNALS = (signal.SIGTERM, signal.SIGINT)

both_backends = pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS)


@contextlib.contextmanager
def running(command: Sequence[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        cwd=EXAMPLES,
        env={**PLAIN, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def end_of(process: subprocess.Popen[str], number: signal.Signals | None = None) -> str:
    """What the process has printed when it has ended, by the signal if one is given, and well."""
    if number is not None:
        process.send_signal(number)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")
    return output


def ended(command: list[str]) -> subprocess.CompletedProcess[str]:
    """An example that ends by itself, without `trio_uring` in front of it."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=EXAMPLES,
        env=PLAIN,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def connect(port: int, process: subprocess.Popen[str]) -> socket.socket:
    """A connection to the process, when it listens."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), PATIENCE)
        except ConnectionRefusedError:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)


def ask(
    port: int, process: subprocess.Popen[str], method: str, target: str, body: bytes | None = None
) -> tuple[int, bytes]:
    client = http.client.HTTPConnection("127.0.0.1")
    client.sock = connect(port, process)
    with contextlib.closing(client):
        client.request(method, target, body)
        answer = client.getresponse()
        return answer.status, answer.read()


def test_each_example_is_short_and_is_told_of() -> None:
    examples = sorted(EXAMPLES.glob("*.py"))
    told = (EXAMPLES / "README.md").read_text()
    assert len(examples) == 7
    for path in examples:
        assert len(path.read_text().splitlines()) < 80, path
        assert f"[{path.name}]({path.name})" in told


WRONG = [
    ["crawler.py", "example.org", "10"],
    ["crawler.py", "http://127.0.0.1/", "many"],
    ["dns_forwarder.py", "127.0.0.1", "5353"],
    ["dns_server.py", "127.0.0.1", "5353"],
    ["file_server.py", ".", "127.0.0.1", "http"],
    ["guest_in_asyncio.py", "--help"],
    ["log_lines.py"],
]


@pytest.mark.parametrize("command", WRONG, ids=" ".join)
def test_an_example_says_how_it_is_called(command: list[str]) -> None:
    done = ended(command)
    assert done.returncode == 1
    calls = [line for line in done.stderr.splitlines() if line.startswith("    python")]
    assert [command[0] in line for line in calls] == [True]


REFUSED = {
    "http://127.0.0.1:1/ cannot be had: all attempts to connect to 127.0.0.1:1 failed": [
        "crawler.py",
        "http://127.0.0.1:1/",
        "10",
    ],
    "0.0.0.0 is no address of loopback": ["dns_forwarder.py", "0.0.0.0", "0", "127.0.0.1", "53"],
    "Expected 4 octets in 'localhost'": ["dns_forwarder.py", "127.0.0.1", "0", "localhost", "53"],
    "missing is no folder": ["file_server.py", "missing", "127.0.0.1", "0"],
}


@pytest.mark.parametrize("message", REFUSED)
def test_an_example_says_why_it_does_not_start(message: str) -> None:
    done = ended(REFUSED[message])
    assert (done.returncode, done.stderr) == (1, f"{message}\n")


# hypercorn_app.py


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("backend", RUNNERS)
def test_hypercorn_app(backend: str, number: signal.Signals, port: int) -> None:
    server = [*RUNNERS[backend], "-m", "hypercorn", "-k", "trio", "-b", f"127.0.0.1:{port}"]
    upload = os.urandom(1 << 20)
    with running([*server, "--log-level", "ERROR", "hypercorn_app:app"]) as process:
        assert ask(port, process, "GET", "/") == (200, b'{"host": "127.0.0.1"}\n')
        assert ask(port, process, "GET", "/healthz") == (200, f"{backend}\n".encode())
        digest = hashlib.sha256(upload).hexdigest()
        assert ask(port, process, "POST", "/sha256", upload) == (200, f"{digest}\n".encode())
        assert ask(port, process, "GET", "/sha256")[0] == 404
        assert end_of(process, number) == ""


# file_server.py


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "page.txt").write_bytes(b"page")
    (folder / "inner" / "index.html").write_bytes(b"index")
    (folder / "empty.txt").touch()
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "good link").symlink_to("inner/page.txt")
    os.mkfifo(folder / "fifo")
    return folder


@both_backends
def test_file_server(runner: list[str], folder: Path, port: int) -> None:
    with running([*runner, "file_server.py", str(folder), "127.0.0.1", str(port)]) as process:
        assert ask(port, process, "GET", "/inner/page.txt?query") == (200, b"page")
        assert ask(port, process, "GET", "/good%20link") == (200, b"page")
        assert ask(port, process, "GET", "/inner/") == (200, b"index")
        assert ask(port, process, "GET", "/empty.txt") == (200, b"")
        assert ask(port, process, "HEAD", "/inner/page.txt") == (200, b"")
        assert ask(port, process, "DELETE", "/inner/page.txt") == (405, b"")
        outside = ("/../secret", "/inner/..%2f../secret", "/link", str(folder.parent / "secret"), "//secret")
        for target in (*outside, "/missing", "/inner", "/", "/fifo", "/%00", "/" + "x" * 300):
            assert ask(port, process, "GET", target) == (404, b""), target
        assert end_of(process, signal.SIGINT) == f"http://127.0.0.1:{port}/\n"


@both_backends
def test_file_server_answers_several_requests_of_a_connection(
    runner: list[str], folder: Path, port: int
) -> None:
    with running([*runner, "file_server.py", str(folder), "127.0.0.1", str(port)]) as process:
        with connect(port, process) as client, client.makefile("rb") as answers:
            request = b"GET /inner/page.txt HTTP/1.1\r\nHost: x\r\n\r\n"
            client.sendall(request * 3 + b"rubbish\r\n\r\n")
            assert answers.read().count(b"\r\n\r\npage") == 3
        end_of(process, signal.SIGTERM)


@both_backends
def test_file_server_finishes_what_it_has_begun(runner: list[str], folder: Path, port: int) -> None:
    size = 50_000_000
    with (folder / "large").open("wb") as large:
        large.truncate(size)
    with running([*runner, "file_server.py", str(folder), "127.0.0.1", str(port)]) as process:
        client = http.client.HTTPConnection("127.0.0.1")
        client.sock = connect(port, process)
        client.request("GET", "/large")
        answer = client.getresponse()
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
            while True:  # until it listens no longer
                socket.create_connection(("127.0.0.1", port), PATIENCE).close()
        assert len(answer.read()) == size
        client.close()
        end_of(process)


# crawler.py


PAGES = {
    "/": '<a href="a">A</a> <a href="/b#part">B</a> <a name=x>no link</a> <a href="http://[">wrong</a> '
    '<a href="/private/x">private</a> <a href="http://127.0.0.2/">another host</a> <a href="/moved">M</a>',
    "/a": '<a href="/">back</a> <a href="missing">missing</a>',
    "/b": "no links",
    "/robots.txt": "User-agent: *\nDisallow: /private/\n",
}
MOVED = {"/moved": "/c", "/c": "http://127.0.0.2/"}


class Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page = PAGES.get(self.path, "").encode()
        self.send_response(302 if self.path in MOVED else 200 if page else 404)
        if self.path in MOVED:
            self.send_header("Location", MOVED[self.path])
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@both_backends
def test_crawler(runner: list[str], site: str) -> None:
    with running([*runner, "crawler.py", site + "/", "100"]) as process:
        lines = end_of(process).splitlines()
    pages = {path: f"200 {len(page)}" for path, page in PAGES.items() if path != "/robots.txt"}
    expected = {**pages, "/missing": "404 0", "/moved": "302 0", "/c": "302 0"}
    assert sorted(lines) == sorted(f"{told} {site}{path}" for path, told in expected.items())


@both_backends
def test_crawler_visits_no_more_than_it_may(runner: list[str], site: str) -> None:
    with running([*runner, "crawler.py", site + "/", "2"]) as process:
        assert len(end_of(process).splitlines()) == 2


def test_crawler_goes_on_where_a_page_cannot_be_had(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def reset(handler: Site) -> None:
        if handler.path == "/a":
            handler.connection.shutdown(socket.SHUT_RDWR)
        else:
            get(handler)

    get: Callable[[Site], None] = Site.do_GET
    monkeypatch.setattr(Site, "do_GET", reset)
    with running([*RUNNERS["io_uring"], "crawler.py", site + "/", "100"]) as process:
        lines = end_of(process).splitlines()
    assert any(line.endswith("Error 0 " + site + "/a") for line in lines), lines
    assert f"302 0 {site}/c" in lines


# log_lines.py


@both_backends
def test_log_lines(runner: list[str], tmp_path: Path) -> None:
    line = '127.0.0.1 - - [30/Nov/2026:13:00:00 +0000] "GET /{} HTTP/1.1" {} 512\n'
    paths = [tmp_path / f"{number}.log" for number in range(20)]
    for path in paths:
        path.write_text("".join(line.format(n, 500 if n % 10 == 0 else 200) for n in range(1000)) + "rubbish")
    budget = ["--checkpoint-budget", "16"] if len(runner) > 1 else []
    with running([*runner, *budget, "log_lines.py", *map(str, paths)]) as process:
        assert end_of(process) == "200 18000\n500 2000\nno status 20\n"


@both_backends
def test_log_lines_counts_the_others_where_one_cannot_be_read(runner: list[str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('"GET / HTTP/1.1" 200 1\n')
    with running([*runner, "log_lines.py", str(tmp_path / "missing"), str(tmp_path), str(log)]) as process:
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (1, "200 1\n")
    assert set(errors.splitlines()) == {
        f"{tmp_path}/missing: No such file or directory",
        f"{tmp_path}: Is a directory",
    }


@both_backends
@pytest.mark.parametrize("number", SIGNALS)
def test_log_lines_ends_at_a_signal(runner: list[str], number: signal.Signals, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def write_for_ever() -> None:
        with contextlib.suppress(BrokenPipeError), fifo.open("wb") as file:
            while True:
                file.write(b'"GET / HTTP/1.1" 200 1\n' * 100)

    thread = threading.Thread(target=write_for_ever)
    with running([*runner, "log_lines.py", str(fifo)]) as process:
        thread.start()
        opened = fifo.open("wb")  # when it reads
        output = end_of(process, number)
        opened.close()
    thread.join()
    assert output == "" or output.startswith("200 ")


# dns_forwarder.py

QUERY = b"\x12\x34\x01\x00\0\1\0\0\0\0\0\0\7example\0\0\1\0\1"


def ask_dns(address: str, query: bytes) -> bytes:
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.sendto(query, (host, int(port)))
        return client.recv(65535)


@both_backends
@pytest.mark.parametrize("number", SIGNALS)
def test_dns_forwarder(runner: list[str], number: signal.Signals, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as upstream:
        upstream.settimeout(PATIENCE)
        upstream.bind(("127.0.0.1", 0))
        numbers = []

        def answer_twice() -> None:
            for _ in range(2):
                query, client = upstream.recvfrom(65535)
                assert query[2:] == QUERY[2:]
                numbers.append(query[:2])
                wrong = bytes([query[0] ^ 1]) + query[1:2] + b"\x81\x80" + query[4:] + b"another query's"
                for answer in (b"", query, wrong, query[:2] + b"\x81\x80" + query[4:] + b"answer"):
                    upstream.sendto(answer, client)

        thread = threading.Thread(target=answer_twice)
        thread.start()
        command = ["dns_forwarder.py", "127.0.0.1", str(port), *map(str, upstream.getsockname())]
        with running([*runner, *command]) as process:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            for _ in range(2):
                assert ask_dns(address, QUERY) == b"\x12\x34\x81\x80" + QUERY[4:] + b"answer"
            thread.join()
            assert end_of(process, number) == ""
    assert len(set(numbers)) == 2


@both_backends
def test_dns_forwarder_tells_of_a_server_that_does_not_answer(
    runner: list[str], port: int, unused_port: int
) -> None:
    command = ["dns_forwarder.py", "127.0.0.1", str(port), "127.0.0.1", str(unused_port)]
    with running([*runner, *command]) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:  # these get no answer
            for rubbish in (b"", b"short", QUERY[:2] + b"\x81\x80" + QUERY[4:]):
                client.sendto(rubbish, ("127.0.0.1", port))
        assert ask_dns(address, QUERY) == b"\x12\x34\x81\x02" + QUERY[4:]
        assert end_of(process, signal.SIGTERM) == ""


# dns_server.py


@both_backends
@pytest.mark.parametrize("number", SIGNALS)
def test_dns_server(runner: list[str], number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("# ours\n192.0.2.7 Example other.example # two\n\n::1 six\n")
    command = ["dns_server.py", "127.0.0.1", "0", str(tmp_path / "hosts")]
    with running([*runner, *command]) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        host, _, port = address.rpartition(":")
        name, record = QUERY[12:], b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\x07"
        found = b"\x12\x34\x85\0\0\1\0\1\0\0\0\0" + name + record
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for rubbish in (b"", b"short", QUERY[:-1], found, QUERY[:12] + b"\xff" * 500, bytes(600)):
                client.sendto(rubbish, (host, int(port)))  # these get no answer
        assert ask_dns(address, QUERY) == found
        nothing = b"\0\1\0\0\0\0\0\0"
        assert (
            ask_dns(address, QUERY[:-3] + b"\x1c\0\1")
            == b"\x12\x34\x85\0" + nothing + name[:-3] + b"\x1c\0\1"
        )
        six = b"\3six\0\0\1\0\1"
        assert ask_dns(address, QUERY[:12] + six) == b"\x12\x34\x85\3" + nothing + six
        notify = b"\x12\x34\x20" + QUERY[3:]
        assert ask_dns(address, notify) == b"\x12\x34\xa4\4" + nothing + name
        assert end_of(process, number) == ""


# guest_in_asyncio.py


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("backend", RUNNERS)
def test_guest_in_asyncio(backend: str, number: signal.Signals, port: int) -> None:
    before = refused("EPERM", "io_uring_setup") if backend == "epoll" else []
    command = [
        *before,
        sys.executable,
        "-W",
        "ignore",
        "guest_in_asyncio.py",
        "127.0.0.1",
        str(port),
    ]
    with running(command, TRIO_URING_FALLBACK="epoll") as process, connect(port, process) as client:
        client.sendall(b"echo")
        assert client.recv(4) == b"echo"
        told = "{}:{}".format(*client.getsockname())
        assert end_of(process, number).split() == [backend, told]


def test_guest_in_asyncio_tells_of_an_error(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        done = ended(["guest_in_asyncio.py", "127.0.0.1", str(port)])
    assert done.returncode == 1
    assert "Address already in use" in done.stderr


CANCELLED_TWICE = """
import asyncio, trio
from guest_in_asyncio import run_trio

cancelled = []

async def stubborn(begun):
    begun.set()
    with trio.CancelScope(shield=True):
        while len(cancelled) < 2:
            await trio.sleep(0.001)
    print("put away")

async def main():
    begun = asyncio.Event()
    running = asyncio.create_task(run_trio(stubborn, begun))
    await begun.wait()
    for _ in range(2):
        running.cancel()
        await asyncio.sleep(0)
        cancelled.append(running)
    await asyncio.wait([running])
    print("ended", running.exception() if not running.cancelled() else "cancelled")

asyncio.run(main())
"""


def test_guest_in_asyncio_waits_for_trio_though_it_is_cancelled_again() -> None:
    done = ended(["-c", CANCELLED_TWICE])
    assert (done.stdout, done.stderr) == ("put away\nended None\n", "")
