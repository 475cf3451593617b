"""Servers under load: echo, http, connections, udp, tls, scale and idle.

Each round of a series starts a server and a load generator anew, the server on the
first CPU, the generator on the last. What the server costs is read from its own CPU
clock over exactly the time in which requests are counted.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import attrs
import trustme
from model import Case, Measurement, Series
from percentiles import SAMPLES_BEYOND
from plan import Job, Planned, Scale
from processes import (
    GENERATOR_CPU,
    PATIENCE,
    SERVER_CPU,
    Child,
    ChildError,
    counted_system_calls,
    cpu_seconds,
    memory,
    on_cpu,
)
from programs import Programs, build, default_folder
from runtimes import ASYNCIO, RUNTIMES, TRIO, WrongBackendError, polled_with, seen
from servers.unsupported import UNSUPPORTED

STREAMS = ("trio-epoll", "trio-uring", *ASYNCIO)
"""Those that are measured in every case; the other variants of trio-uring are where they may differ."""
WITH_BUDGET = ("trio-epoll", "trio-uring", "trio-uring-budget", *ASYNCIO)
WITH_READINESS = ("trio-epoll", "trio-uring", "trio-uring-readiness", *ASYNCIO)
WITH_BOTH = (*TRIO, *ASYNCIO)
PROTOCOLS = tuple(f"{runtime}-protocols" for runtime in ASYNCIO)
BASELINE = "trio-epoll"
OWN_DESCRIPTORS = 50
"""What a server or a load generator has open beside its connections, at most."""


@attrs.frozen
class Server:
    """A server program of a side, for one kind of work."""

    side: str
    """A runtime's key, one with "-protocols" behind it, or "limit"."""
    kind: str

    @property
    def runtime(self) -> str:
        return self.side.removesuffix("-protocols")

    @property
    def unsupported(self) -> str:
        """Why there is no such server; empty where there is."""
        return UNSUPPORTED.get((self.runtime, self.kind), "")

    def start(self) -> Child:
        return Child([*self._program(), *self._options()], cpu=SERVER_CPU)

    def seen(self, pid: int, answer: dict[str, object]) -> str:
        """The backend that the running server answered, checked against what it has open."""
        if self.side != "limit":
            return seen(self.runtime, str(answer["backend"]), pid)
        if polled_with(pid) != {"io_uring"}:
            raise WrongBackendError(f"the limit was to work with io_uring alone: {polled_with(pid)}")
        return str(answer["seen"])

    def seen_after_load(self, pid: int, answer: dict[str, Any]) -> str:
        """The same when its clients are gone, with how it received from them."""
        text = self.seen(pid, answer)
        if self.runtime not in TRIO or self.kind in RECEIVE_ONCE:
            return text
        runtime = RUNTIMES[self.runtime]
        if bool(answer["multishots"]) != runtime.multishot:
            raise WrongBackendError(
                f"this was to be {runtime.label}, but {answer['multishots']} multishot receives ended"
            )
        return f"{text}; it received {'' if runtime.multishot else 'nothing '}by multishot"

    def _program(self) -> list[str]:
        if self.side == "limit":
            return [str(_programs().limit), self.kind]
        module = "trio_server" if self.runtime in TRIO else "asyncio_server"
        if self.kind == "greedy":
            module = "greedy_server"
        if self.kind == "hypercorn":
            return [sys.executable, "-m", "servers.hypercorn_server", "--runtime", self.runtime]
        return [sys.executable, "-m", f"servers.{module}", "--runtime", self.runtime, "--kind", self.kind]

    def _options(self) -> list[str]:
        return ["--certificate", str(_certificate())] if self.kind == "tls" else []


RECEIVE_ONCE = ("connections", "udp")
"""Kinds of servers that have no connection from which they receive a second time."""


@cache
def _programs() -> Programs:
    return build(default_folder())


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@cache
def _certificate() -> Path:
    """PEM: a key and its chain."""
    path = Path(_folder().name, "certificate.pem")
    trustme.CA().issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


@attrs.frozen
class Load:
    """A server under the native load generator."""

    server: Server
    options: tuple[str, ...]
    """Of the generator: its mode, sizes and numbers."""
    connections: int
    seconds: float
    warmup: float
    size: int = 64
    """Of a message, in bytes."""

    def measure(self) -> tuple[Measurement, str]:
        with self.server.start() as server:
            self.server.seen(server.pid, server.ready)
            with start_generator(server, self.options, self.seconds, self.warmup) as generator:
                answer = generator.ask()
            measured = {**measurement(answer), "peak_rss": memory(server.pid, "VmHWM")}
            if self.options[0] == "udp":
                measured["lost_share"] = answer["lost"] / (answer["requests"] + answer["lost"])
            return measured, self.server.seen_after_load(server.pid, server.ask())

    def count_system_calls(self) -> dict[str, float]:
        if self.connections > MOST_UNDER_STRACE:
            return {}
        # What is in flight at the end is served but not counted: there has to be much more before.
        in_flight = self.connections * self.size
        seconds = max(self.seconds / 2, in_flight / STRACED_BYTES_PER_SECOND)
        with (
            self.server.start() as server,
            start_generator(server, self.options, seconds, 0, least=self.connections) as generator,
        ):
            with counted_system_calls(server.pid) as calls:
                requests = generator.ask()["requests"]
            return {name: count / requests for name, count in calls.items()}


MOST_UNDER_STRACE = 500
"""Connections: more of them and strace takes a minute."""
STRACED_BYTES_PER_SECOND = 2e7
"""A server under strace moves about ten times as many."""


def start_generator(
    server: Child, options: Iterable[str], seconds: float, warmup: float, least: int = 1
) -> Child:
    """Its windows last ``seconds``, and longer if fewer requests than ``least`` were answered."""
    times = ("--seconds", str(seconds), "--warmup", str(warmup), "--least", str(least))
    target = ("--port", str(server.ready["port"]), "--pid", str(server.pid))
    return Child([_programs().load, *options, *times, *target], cpu=GENERATOR_CPU)


def measurement(answer: dict[str, Any]) -> Measurement:
    """From what a load generator answers, with the CPU seconds of both."""
    requests, seconds = answer["requests"], answer["seconds"]
    measured = {
        "rate": requests / seconds,
        "per_cpu_second": requests / answer["server_cpu"],
        "bytes_per_second": answer["bytes"] / seconds,
        "server_busy": answer["server_cpu"] / seconds,
        "generator_busy": answer["generator_cpu"] / seconds,
    }
    percentiles = (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999"))
    return measured | {metric: answer[key] for metric, key in percentiles if answer[key] is not None}


@attrs.frozen
class Wrk:
    """A server under wrk, which counts from its first connection on."""

    server: Server
    connections: int
    seconds: int

    def measure(self) -> tuple[Measurement, str]:
        with self.server.start() as server:
            self.server.seen(server.pid, server.ready)
            _warm_up(server.ready["port"])
            server_begun, generator_begun = cpu_seconds(server.pid), _cpu_of_ended_children()
            answer = self._load(server, self.seconds)
            answer["server_cpu"] = cpu_seconds(server.pid) - server_begun
            answer["generator_cpu"] = _cpu_of_ended_children() - generator_begun
            measured = {**measurement(answer), "peak_rss": memory(server.pid, "VmHWM")}
            return measured, self.server.seen_after_load(server.pid, server.ask())

    def count_system_calls(self) -> dict[str, float]:
        with self.server.start() as server:
            _warm_up(server.ready["port"])
            with counted_system_calls(server.pid) as calls:
                requests = self._load(server, self.seconds + 1)["requests"]
            return {name: count / requests for name, count in calls.items()}

    def _load(self, server: Child, seconds: int) -> dict[str, Any]:
        """Longer than ``seconds`` only if nothing was answered in them."""
        answer = self._run(server, seconds)
        while not answer["requests"] and seconds < PATIENCE:
            seconds *= 2
            answer = self._run(server, seconds)
        return answer

    def _run(self, server: Child, seconds: int) -> dict[str, Any]:
        script = Path(__file__).with_name("wrk.lua")
        numbers = ["--threads", "1", "--connections", str(self.connections), "--duration", f"{seconds}s"]
        numbers += ["--timeout", f"{PATIENCE:.0f}s"]  # what is slow is no error
        url = f"http://127.0.0.1:{server.ready['port']}/"
        with on_cpu(GENERATOR_CPU):
            done = subprocess.run(
                ["wrk", *numbers, "--latency", "--script", str(script), url],
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            raise ChildError(f"wrk: {done.stdout}{done.stderr}")
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        if answer["errors"]:
            raise ChildError(f"wrk met {answer['errors']} errors:\n{done.stdout}")
        for key, beyond in (("p50", 0.5), ("p99", 0.01), ("p999", 0.001)):
            if answer["requests"] * beyond < SAMPLES_BEYOND:
                answer[key] = None
        return answer


def _warm_up(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port)
    for _ in range(200):
        connection.request("GET", "/")
        connection.getresponse().read()
    connection.close()


def _cpu_of_ended_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@attrs.frozen
class Crowd:
    """A server with many idle connections, and one whose messages wake it."""

    server: Server
    idle: int
    seconds: float
    warmup: float

    def measure(self) -> tuple[Measurement, str]:
        options = ("echo", "--size", "64", "--connections", "1", "--idle", str(self.idle))
        with self.server.start() as server:
            self.server.seen(server.pid, server.ready)
            before = memory(server.pid, "VmRSS")
            with start_generator(server, options, self.seconds, self.warmup) as generator:
                # The answered connection came last: all others are accepted.
                answer = generator.ask()
                after = memory(server.pid, "VmRSS")
            text = self.server.seen_after_load(server.pid, server.ask())
        measured = measurement(answer)
        measured["cpu"] = answer["server_cpu"] / answer["requests"]
        if self.idle >= MEMORY_FROM:
            measured["bytes_each"] = (after - before) / self.idle
        return measured, text

    def count_system_calls(self) -> dict[str, float]:
        return {}


MEMORY_FROM = 1000
"""Connections: with fewer, what one takes is lost in what the allocator takes at a time."""


@attrs.frozen
class Idle:
    """A server to which nothing comes."""

    server: Server
    seconds: float

    def measure(self) -> tuple[Measurement, str]:
        options = ("echo", "--size", "64", "--connections", "10")
        with self.server.start() as server:
            self.server.seen(server.pid, server.ready)
            with start_generator(server, options, 0.01, 0) as generator:
                generator.ask()
                cpu, waited, begun = cpu_seconds(server.pid), _iowait(), time.monotonic()
                time.sleep(self.seconds)
                lasted = time.monotonic() - begun
                measured = {
                    "cpu_share": (cpu_seconds(server.pid) - cpu) / lasted,
                    "iowait_share": (_iowait() - waited) / lasted,
                }
            return measured, self.server.seen_after_load(server.pid, server.ask())

    def count_system_calls(self) -> dict[str, float]:
        return {}


def _iowait() -> float:
    """Seconds that the server's CPU was idle and waited for I/O, in steps of 10 ms."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{SERVER_CPU} "):
            return int(line.split()[5]) / CLOCK_TICKS
    raise ValueError(f"/proc/stat does not know CPU {SERVER_CPU}")


CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


# --- the groups -----------------------------------------------------------------------


def echo(scale: Scale) -> list[Planned]:
    connections, sizes = {
        "full": ((1, 50, 500, 5000), (1 << 10, 1 << 16, 1 << 20)),
        "quick": ((50, 500), (1 << 16,)),
        "smoke": ((1, 20), (1 << 16,)),
    }[scale.name]
    streams = [(64, count) for count in connections] + [(size, 50) for size in sizes]
    sockets = [(64, count) for count in connections if count in (20, 50, 500)]

    def sides(size: int, count: int) -> tuple[str, ...]:
        streams = WITH_BOTH if size == 64 and count <= 500 else WITH_BUDGET
        return (*streams, *PROTOCOLS, "limit")

    return [
        *(_echo(scale, "streams", size, count, sides(size, count)) for size, count in streams),
        *(_echo(scale, "sockets", size, count, STREAMS) for size, count in sockets),
    ]


def _echo(scale: Scale, api: str, size: int, connections: int, sides: Iterable[str]) -> Planned:
    name = f"{api}, {_bytes(size)}, {_count(connections, 'connection')}"
    options = ("echo", "--size", str(size), "--connections", str(connections))

    def kind(side: str) -> str:
        return "protocols" if side in PROTOCOLS else "echo" if side == "limit" else api

    return _planned(
        Case("echo", name, BASELINE, "per_cpu_second", {}, {"connections": connections, "size": size}),
        {
            side: Load(Server(side, kind(side)), options, connections, scale.seconds, scale.warmup, size)
            for side in sides
        },
    )


def tls(scale: Scale) -> list[Planned]:
    def planned(size: int) -> Planned:
        case = Case("tls", f"TLS, {_bytes(size)}, 50 connections", BASELINE, "per_cpu_second", {})
        options = ("echo", "--tls", "--size", str(size), "--connections", "50")
        jobs = {
            side: Load(Server(side, "tls"), options, 50, scale.seconds, scale.warmup, size)
            for side in WITH_BUDGET
        }
        without = "" if _programs().tls else "the load generator was built without OpenSSL (libssl-dev)"
        return _planned(case, jobs, without)

    return [planned(size) for size in (64, 1 << 16)[: scale.choose(2, 1, 1)]]


def connections(scale: Scale) -> list[Planned]:
    options = ("connect", "--size", "64", "--connections", "50")
    sides = (*WITH_BUDGET, "limit")
    case = Case("connections", "connect, 64 B, close; 50 at a time", BASELINE, "per_cpu_second", {})
    return [
        _planned(
            case,
            {
                side: Load(Server(side, "connections"), options, 50, scale.seconds, scale.warmup)
                for side in sides
            },
        )
    ]


def udp(scale: Scale) -> list[Planned]:
    options = ("udp", "--size", "64", "--connections", "16", "--window", "8")
    case = Case("udp", "64 B queries, 128 outstanding", BASELINE, "per_cpu_second", {})
    sides = (*STREAMS, "limit")
    return [
        _planned(
            case,
            {side: Load(Server(side, "udp"), options, 128, scale.seconds, scale.warmup) for side in sides},
        )
    ]


def http(scale: Scale) -> list[Planned]:
    def planned(kind: str, sides: Iterable[str], count: int) -> Planned:
        name = f"{'streams' if kind == 'http' else kind}, {count} connections"
        case = Case("http", name, BASELINE, "per_cpu_second", {}, {"connections": count})
        jobs = {side: Wrk(Server(side, kind), count, 1) for side in sides}
        return _planned(case, jobs, "" if shutil.which("wrk") else "wrk is not installed")

    counts = (8, 256)[: scale.choose(2, 2, 1)]
    return [
        *(planned("http", (*WITH_BUDGET, "limit"), count) for count in counts),
        *(
            planned("hypercorn", (BASELINE, "trio-uring", "asyncio", "uvloop"), count)
            for count in counts[: scale.choose(2, 1, 1)]
        ),
    ]


def scale_of_connections(scale: Scale) -> list[Planned]:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - OWN_DESCRIPTORS

    def planned(wanted: int) -> Planned:
        count = min(wanted, most)
        note = f"{wanted:,} were to be, but a process may open {most + OWN_DESCRIPTORS:,} files here"
        case = Case(
            "scale",
            f"{count:,} idle connections",
            BASELINE,
            "cpu",
            {},
            {"connections": count},
            note if count < wanted else "",
        )
        return _planned(
            case,
            {side: Crowd(Server(side, "streams"), count, scale.seconds / 2, 0.05) for side in WITH_READINESS},
        )

    return [planned(count) for count in (10, 1000, 30_000)[: scale.choose(3, 2, 1)]]


def idle(scale: Scale) -> list[Planned]:
    seconds = {"full": 1.5, "quick": 0.5, "smoke": 0.05}[scale.name]
    case = Case("idle", "10 connections, nothing to do", BASELINE, "cpu_share", {})
    return [_planned(case, {side: Idle(Server(side, "streams"), seconds) for side in WITH_READINESS})]


def _planned(case: Case, jobs: Mapping[str, Load | Wrk | Crowd | Idle], missing: str = "") -> Planned:
    """With a failed series for each side that cannot: because it does not support the kind
    of work, or because of what is ``missing`` here."""
    possible: dict[str, Job] = {}
    for side, job in jobs.items():
        reason = job.server.unsupported or missing
        if reason:
            case.series[side] = Series(failure=reason)
        else:
            possible[side] = job
    return Planned(case, possible)


def _bytes(count: int) -> str:
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count // size} {unit}"
    return f"{count} B"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
