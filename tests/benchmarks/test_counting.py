"""System calls of a fixed number of operations: of a server's requests, and of a library's reads."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tracing import with_strace

for module in ("trustme", "aiofile", "aiofiles", "anyio"):
    pytest.importorskip(module)

from groups import files as cases  # noqa: E402
from groups.plan import SCALES, Planned, counted  # noqa: E402
from measure import http_requests  # noqa: E402
from measure.loads import Load, Wrk  # noqa: E402
from measure.processes import ChildError  # noqa: E402
from measure.server import Server  # noqa: E402
from report.model import Case  # noqa: E402
from sides.files.contents import BLOCK, write_blocks  # noqa: E402
from sides.files.work import Work  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@with_strace
@pytest.mark.parametrize("side", ["open", "trio-epoll", "trio-uring-files", "trio-uring-budget-files"])
def test_calls_of_reads(side: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_blocks(data, 256 * BLOCK)
    work = Work("random", str(data), 256, 1, seconds=0.001)
    children = cases.Children(shared=True)
    calls = cases.LibraryJob(side, work, "warm", children, children, least=10).count_system_calls()
    children.end()
    # The position of a file of ours is ours.
    assert calls.get("lseek", 0) == pytest.approx(0 if "files" in side else 1, abs=0.4)
    # What looks at memory reads too; and the ring reads what a file system does not at once.
    names = ("preadv2", "io_uring_enter") if "files" in side else ("read",)
    assert max(calls.get(name, 0) for name in names) == pytest.approx(1, abs=0.4)


@with_strace
@pytest.mark.parametrize(
    ("side", "kind"), [("trio-epoll", "connections"), ("limit", "udp"), ("limit", "echo")]
)
def test_calls_of_each_answered_request(side: str, kind: str) -> None:
    mode = {"connections": "connect"}.get(kind, kind)
    load = Load(Server(side, kind), (mode, "--size=64", "--connections=2"), 2, 0.002, 0)
    calls = load.count_system_calls()
    if side == "trio-epoll":
        assert calls["accept4"] >= 1
        assert calls["sendto"] == 1
    else:
        assert 0 < calls["io_uring_enter"] <= 2


@with_strace
@pytest.mark.parametrize("kind", ["http", "hypercorn"])
def test_calls_of_http_requests(kind: str) -> None:
    pytest.importorskip("hypercorn")
    calls = Wrk(Server("trio-epoll", kind), 3, 1).count_system_calls()
    assert calls["sendto"] >= 1


@contextmanager
def http_server(*replies: bytes) -> Iterator[int]:
    """Answers a connection's requests with these, and closes it."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            for reply in replies:
                connection.recv(65536)
                connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"


def test_so_many_http_requests_are_made() -> None:
    with http_server(*[REPLY] * 4) as port, http_requests.connections(port, 1) as opened:
        http_requests.exchange(opened, 3)
        with pytest.raises(ChildError, match="an HTTP request"):
            http_requests.exchange(opened, 1)


def test_http_replies_of_another_size_are_noticed() -> None:
    with (
        http_server(REPLY, REPLY + b"d") as port,
        http_requests.connections(port, 1) as opened,
        pytest.raises(ChildError, match="differ in size"),
    ):
        http_requests.exchange(opened, 1)


def test_quick_runs_count_nothing_and_smoke_runs_two_sides_of_a_group() -> None:
    sides = dict.fromkeys(("a", "b", "c"), Load(Server("limit", "echo"), (), 1, 1, 0))
    planned = [Planned(Case(group, name, "a", "rate", {}), sides) for group in "xy" for name in ("1", "2")]
    assert counted(planned, SCALES["full"]) == planned
    assert counted(planned, SCALES["quick"]) == []
    assert [(one.case.group, one.case.name, [*one.jobs]) for one in counted(planned, SCALES["smoke"])] == [
        ("x", "1", ["a", "b"]),
        ("y", "1", ["a", "b"]),
    ]
