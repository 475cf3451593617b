"""Servers under load: the groups echo, http, connections, udp, scale and idle."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterable, Mapping

from groups.plan import Job, Planned, Scale
from measure.loads import Crowd, Idle, Load, Wrk
from measure.server import Server
from report.model import Case, Series
from sides.runtimes import ACCELERATED, ASYNCIO, TRIO

STREAMS = ("trio-epoll", "trio-uring", *ASYNCIO)
"""Those that are measured in every case; the other variants of trio-uring are where they may differ."""
WITH_BUDGET = ("trio-epoll", "trio-uring", "trio-uring-budget", *ACCELERATED, *ASYNCIO)
WITH_READINESS = ("trio-epoll", "trio-uring", "trio-uring-readiness", *ASYNCIO)
WITH_BOTH = (*TRIO, *ASYNCIO)
PROTOCOLS = tuple(f"{runtime}-protocols" for runtime in ASYNCIO)
BASELINE = "trio-epoll"
OWN_DESCRIPTORS = 50
"""What a server or a load generator has open beside its connections, at most."""


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
    name = f"{api}, {size_in_words(size)}, {count_in_words(connections, 'connection')}"
    options = ("echo", "--size", str(size), "--connections", str(connections))

    def kind(side: str) -> str:
        return "protocols" if side in PROTOCOLS else "echo" if side == "limit" else api

    return planned_on_servers(
        Case("echo", name, BASELINE, "per_cpu_second", {}, {"connections": connections, "size": size}),
        {
            side: Load(Server(side, kind(side)), options, connections, scale.seconds, scale.warmup)
            for side in sides
        },
    )


def connections(scale: Scale) -> list[Planned]:
    count = scale.choose(50, 50, 5)
    options = ("connect", "--size", "64", "--connections", str(count))
    sides = (*WITH_BUDGET, "limit")
    case = Case("connections", f"connect, 64 B, close; {count} at a time", BASELINE, "per_cpu_second", {})
    return [
        planned_on_servers(
            case,
            {
                side: Load(Server(side, "connections"), options, count, scale.seconds, scale.warmup)
                for side in sides
            },
        )
    ]


def udp(scale: Scale) -> list[Planned]:
    sockets = scale.choose(16, 16, 1)
    count = sockets * 8
    options = ("udp", "--size", "64", "--connections", str(sockets), "--window", "8")

    def planned(name: str, kind: str) -> Planned:
        """Trio's sides serve by this ``kind``, the others one by one."""
        case = Case("udp", f"64 B queries, {count} outstanding{name}", BASELINE, "per_cpu_second", {})
        servers = {side: Server(side, kind if side in TRIO else "udp") for side in (*WITH_BUDGET, "limit")}
        return planned_on_servers(
            case,
            {
                side: Load(server, options, count, scale.seconds, scale.warmup)
                for side, server in servers.items()
            },
        )

    return [planned("", "udp"), planned("; Trio by Datagrams", "udp-batches")]


def http(scale: Scale) -> list[Planned]:
    def planned(kind: str, sides: Iterable[str], count: int) -> Planned:
        name = f"{'streams' if kind == 'http' else kind}, {count} connections"
        case = Case("http", name, BASELINE, "per_cpu_second", {}, {"connections": count})
        jobs = {side: Wrk(Server(side, kind), count, 1) for side in sides}
        return planned_on_servers(case, jobs, "" if shutil.which("wrk") else "wrk is not installed")

    counts = (8, 256)[: scale.choose(2, 2, 1)]
    return [
        *(planned("http", (*WITH_BUDGET, "limit"), count) for count in counts),
        *(
            planned(
                "hypercorn", (BASELINE, "trio-uring", "trio-uring-accelerate", "asyncio", "uvloop"), count
            )
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
        return planned_on_servers(
            case,
            {side: Crowd(Server(side, "streams"), count, scale.seconds / 2, 0.05) for side in WITH_READINESS},
        )

    return [planned(count) for count in (10, 1000, 30_000)[: scale.choose(3, 2, 1)]]


def idle(scale: Scale) -> list[Planned]:
    seconds = {"full": 1.5, "quick": 0.5, "smoke": 0.05}[scale.name]
    case = Case("idle", "10 connections, nothing to do", BASELINE, "cpu_share", {})
    return [
        planned_on_servers(case, {side: Idle(Server(side, "streams"), seconds) for side in WITH_READINESS})
    ]


def planned_on_servers(
    case: Case, jobs: Mapping[str, Load | Wrk | Crowd | Idle], missing: str = ""
) -> Planned:
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


def size_in_words(count: int) -> str:
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count // size} {unit}"
    return f"{count} B"


def count_in_words(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
