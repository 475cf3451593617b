"""TLS: echo, handshakes, hypercorn with HTTP/1.1 and HTTP/2, and httpx as a client.

Which version of TLS is spoken, and whether a session is resumed, is the load generator's choice,
which it makes sure of. A handshake is measured with what a connection is for: one message, its
reply, and the end. Where a client is measured, its server is asyncio's, on the other CPU, the same for
all; what counts is the client's CPU.
"""

from __future__ import annotations

import shutil
import sys

import attrs

from groups.network import BASELINE, count_in_words, planned_on_servers, size_in_words
from groups.plan import Job, Planned, Scale
from measure.loads import Load, Wrk
from measure.percentiles import SHARES
from measure.processes import GENERATOR_CPU, SERVER_CPU, Child
from measure.server import Server, authority, programs
from report.model import Case, Measurement, Series
from sides.runtimes import ACCELERATED, ON_ASYNCIO, seen

SIDES = (BASELINE, "trio-uring", "trio-uring-trios-tls", *ON_ASYNCIO)
WITH_BUDGET = (*SIDES, "trio-uring-budget", *ACCELERATED)
"""In echo over 50 connections: one of these cases is in the overview."""
STREAMS = 10
"""Requests outstanding on each connection by HTTP/2."""


def plan(scale: Scale) -> list[Planned]:
    return [*_echoes(scale), *_handshakes(scale), *_hypercorn(scale), *_clients(scale)]


def _echoes(scale: Scale) -> list[Planned]:
    counts = scale.choose((1, 50, 500), (50,), (5,))
    sizes = scale.choose((64, 1 << 16), (64, 1 << 16), (64,))
    middle = scale.choose(50, 50, 5)
    newest = [("1.3", size, count) for size in sizes for count in counts]
    before = [("1.2", size, middle) for size in sizes[: scale.choose(2, 1, 1)]]

    def planned(version: str, size: int, count: int) -> Planned:
        name = f"echo, TLS {version}, {size_in_words(size)}, {count_in_words(count, 'connection')}"
        options = ("echo", "--tls", version, "--size", str(size), "--connections", str(count))
        return planned_on_servers(
            Case("tls", name, BASELINE, "per_cpu_second", {}, {"connections": count, "size": size}),
            {
                side: Load(Server(side, "tls"), options, count, scale.seconds, scale.warmup)
                for side in (WITH_BUDGET if count == 50 and version == "1.3" else SIDES)
            },
            _without_openssl(),
        )

    return [planned(*one) for one in (*newest, *before)]


def _handshakes(scale: Scale) -> list[Planned]:
    count = scale.choose(50, 50, 5)

    def planned(what: str, options: tuple[str, ...]) -> Planned:
        options = ("connect", *options, "--size", "64", "--connections", str(count))
        return planned_on_servers(
            Case("tls", f"{what}, 64 B, close; TLS 1.3, {count} at a time", BASELINE, "per_cpu_second", {}),
            {
                side: Load(Server(side, "tls-connections"), options, count, scale.seconds, scale.warmup)
                for side in SIDES
            },
            _without_openssl(),
        )

    return [
        planned("full handshake", ("--tls", "1.3")),
        planned("resumed handshake", ("--tls", "1.3", "--resume")),
    ]


def _hypercorn(scale: Scale) -> list[Planned]:
    count = scale.choose(50, 50, 3)
    connections = scale.choose(10, 10, 2)
    options = ("http2", "--connections", str(connections), "--streams", str(STREAMS))

    def case(name: str) -> Case:
        return Case("tls", f"hypercorn, {name}", BASELINE, "per_cpu_second", {})

    http1 = {side: Wrk(Server(side, "hypercorn-tls"), count, 1) for side in SIDES}
    http2 = {
        side: Load(Server(side, "hypercorn-tls"), options, connections * STREAMS, scale.seconds, scale.warmup)
        for side in SIDES
    }
    without_wrk = "" if shutil.which("wrk") else "wrk is not installed"
    return [
        planned_on_servers(case(f"HTTP/1.1, {count} connections"), http1, without_wrk),
        planned_on_servers(case(f"HTTP/2, {connections} connections, {STREAMS} requests on each"), http2),
    ]


def _clients(scale: Scale) -> list[Planned]:
    tasks = scale.choose(10, 10, 2)
    case = Case("tls", f"httpx as the client, {tasks} requests at a time", BASELINE, "per_cpu_second", {})
    jobs: dict[str, Job] = {}
    for side in SIDES:
        if reason := Server(side, "tls-http").unsupported:
            case.series[side] = Series(failure=reason)
        else:
            jobs[side] = Client(side, tasks, scale.seconds)
    return [Planned(case, jobs)]


@attrs.frozen
class Client:
    """A client that is measured, of a server that is not."""

    runtime: str
    tasks: int
    seconds: float

    def measure(self) -> tuple[Measurement, str]:
        command = [sys.executable, "-m", "sides.clients.httpx_client", "--runtime", self.runtime]
        with Server("asyncio", "tls-http").start(GENERATOR_CPU) as server:
            options = ["--port", str(server.ready["port"]), "--authority", str(authority())]
            with Child([*command, *options], cpu=SERVER_CPU) as client:
                answer = client.ask({"seconds": self.seconds, "tasks": self.tasks, "least": LEAST_EACH})
                text = seen(self.runtime, client.ready["backend"], client.pid)
        return {
            "rate": answer["requests"] / answer["seconds"],
            "per_cpu_second": answer["requests"] / answer["cpu_seconds"],
            "peak_rss": answer["peak_rss"],
            **{name: answer[name] for name in SHARES if name in answer},
        }, text

    def count_system_calls(self) -> dict[str, float]:
        """None: what a client asks of the kernel, servers show."""
        return {}


LEAST_EACH = 3
"""Requests of each task, however slow it is."""


def _without_openssl() -> str:
    return "" if programs().tls else "the load generator was built without OpenSSL (libssl-dev)"
