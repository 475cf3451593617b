"""A server under load: what is measured of it, and how its system calls are counted.

Each round of a series starts a server and a load generator anew, the server on the
first CPU, the generator on the last. What the server costs is read from its own CPU
clock over exactly the time in which requests are counted.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import attrs

from measure import http_requests
from measure.percentiles import SAMPLES_BEYOND
from measure.processes import (
    FOLDER,
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
from measure.server import Server, programs
from report.model import Measurement
from sides.servers.start import HOST


@attrs.frozen
class Load:
    """A server under a load generator: the native one, or http2_load."""

    server: Server
    options: tuple[str, ...]
    """Of the generator: its mode, sizes and numbers."""
    clients: int
    """That each have a request outstanding."""
    seconds: float
    warmup: float

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
        if self.clients > MOST_UNDER_STRACE:
            return {}
        forget = ("--forget", str(PATIENCE)) if self.options[0] == "udp" else ()
        options = (*self.options, "--patience", str(PATIENCE), *forget)
        least = self.clients * LEAST_EACH
        with (
            self.server.start() as server,
            start_generator(server, options, self.seconds / 2, 0, least=least) as generator,
        ):
            with counted_system_calls(server.pid) as calls:
                # However slow the server is, it is waited for while it answers: by the generator.
                answered = generator.ask(patience=None)["answered"]
            return {name: count / answered for name, count in calls.items()}


LEAST_EACH = 3
"""Requests under strace for each connection, on the average: the first ones are not like the others."""
MOST_UNDER_STRACE = 500
"""Connections: more of them and strace takes a minute."""


def start_generator(
    server: Child, options: Sequence[str], seconds: float, warmup: float, least: int = 1
) -> Child:
    """Its windows last ``seconds``, and longer if fewer requests than ``least`` were answered."""
    times = ("--seconds", str(seconds), "--warmup", str(warmup), "--least", str(least))
    target = ("--port", str(server.ready["port"]), "--pid", str(server.pid))
    http2 = [sys.executable, "-m", "measure.http2_load"]
    program = http2 if options[0] == "http2" else [str(programs().load)]
    return Child([*program, *options, *times, *target], cpu=GENERATOR_CPU)


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
            self._warm_up(server)
            server_begun, generator_begun = cpu_seconds(server.pid), _cpu_of_ended_children()
            answer = self._load(server, self.seconds)
            answer["server_cpu"] = cpu_seconds(server.pid) - server_begun
            answer["generator_cpu"] = _cpu_of_ended_children() - generator_begun
            measured = {**measurement(answer), "peak_rss": memory(server.pid, "VmHWM")}
            return measured, self.server.seen_after_load(server.pid, server.ask())

    def count_system_calls(self) -> dict[str, float]:
        with self.server.start() as server:
            self._warm_up(server)
            with (
                http_requests.connections(
                    server.ready["port"], self.connections, over_tls=self.server.over_tls
                ) as connections,
                counted_system_calls(server.pid) as calls,
            ):
                http_requests.exchange(connections, COUNTED_EACH)
        return {name: count / (self.connections * COUNTED_EACH) for name, count in calls.items()}

    def _warm_up(self, server: Child) -> None:
        address = HOST, server.ready["port"]
        connection = HTTPConnection(*address)
        if self.server.over_tls:
            connection = HTTPSConnection(*address, context=http_requests.unverified())
        for _ in range(200):
            connection.request("GET", "/")
            connection.getresponse().read()
        connection.close()

    def _load(self, server: Child, seconds: int) -> dict[str, Any]:
        """Longer than ``seconds`` only if nothing was answered in them."""
        while not (answer := self._run(server, seconds))["requests"]:
            if seconds > PATIENCE:
                raise ChildError(f"wrk: no request was answered in {seconds} s")
            seconds *= 2
        return answer

    def _run(self, server: Child, seconds: int) -> dict[str, Any]:
        script = FOLDER / "native" / "wrk.lua"
        numbers = ["--threads", "1", "--connections", str(self.connections), "--duration", f"{seconds}s"]
        numbers += ["--timeout", f"{PATIENCE:.0f}s"]  # what is slow is no error
        url = f"http{'s' * self.server.over_tls}://{HOST}:{server.ready['port']}/"
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


COUNTED_EACH = 5
"""Requests of a connection."""


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
