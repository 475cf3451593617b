"""What grows with the number of connections, and how far it may: the figures of docs/scale.md.

    python benchmarks/scale.py [--most CONNECTIONS] [--rounds N]

Three tables, each of Trio on epoll and of Trio on trio-uring, measured by turns in processes of
their own: what an idle TCP connection takes, and from that what 100,000 and 1,000,000 would take; what
happens when all of them get data at once; and how many rings fit into locked memory, one for each process,
until an unprivileged user is refused. The last one and the kernel's slabs need root.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio
import trio.testing

import trio_uring
from trio_uring.ring.locked_memory import size_of_buffers, size_of_ring

BACKENDS: dict[str, Callable[..., Any]] = {"epoll": trio.run, "io_uring": trio_uring.run}
FEW = 200
"""Connections before the first look: what is made once is made."""
SLABS = ("TCP", "sock_inode_cache", "filp", "io_kiocb", "kmalloc-96")
"""What the kernel has for a connection, both ends of it, and for a multishot receive, on the whole machine.
epoll's eventpoll_epi and eventpoll_pwq are left out, since the kernel does not tell their true number."""
NOBODY = 65534


def pages_of_its_own() -> int:
    """Bytes of memory that this process has alone."""
    _, resident, of_files, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return (resident - of_files) * resource.getpagesize()


def slabs() -> dict[str, int]:
    """Bytes of the objects that the kernel has, by their kinds."""
    path = Path("/proc/slabinfo")
    if not os.access(path, os.R_OK):
        return {}
    lines = (line.split() for line in path.read_text().splitlines()[2:])
    return {name: int(active) * int(size) for name, active, _, size, *_ in lines}


# In a process of its own


async def idle(count: int) -> dict[str, float]:
    """Connections of which a task waits for data, whose other ends nobody reads."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
        server.setblocking(False)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(server))
        child = subprocess.Popen(
            [sys.executable, __file__, "--connect", str(server.getsockname()[1]), str(FEW), str(count)],
            stdin=subprocess.PIPE,
        )
        assert child.stdin is not None
        async with trio.open_nursery() as nursery:
            looks = []
            for number in (FEW, count):
                for _ in range(number):
                    nursery.start_soon((await listener.accept()).receive_some, 4096)
                await trio.testing.wait_all_tasks_blocked(0.1)
                looks.append((pages_of_its_own(), slabs()))
                child.stdin.write(b"\n")
                child.stdin.flush()
            began = time.process_time()
            await trio.sleep(2)
            used = time.process_time() - began
            gc.collect()
            collected = time.process_time() - began - used
            nursery.cancel_scope.cancel()
        child.stdin.close()
        child.wait()
    (few, kinds), (many, more_kinds) = looks
    of_kinds = {kind: (more_kinds[kind] - kinds[kind]) / count for kind in SLABS if kind in kinds}
    return {
        "python": (many - few) / count,
        "cpu": used / 2,
        "gc": collected * 1e9 / (FEW + count),
        **of_kinds,
    }


def connect(port: int, *counts: int) -> None:
    """The other ends, in the portions for which the server asks."""
    ends = []
    for count in counts:
        ends += [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
        sys.stdin.readline()
    sys.stdin.read()


async def at_once(count: int) -> dict[str, float]:
    """All connections get 64 bytes at once. A task that only yields runs beside theirs."""
    pairs = [trio.socket.socketpair() for _ in range(count)]
    streams = [trio.SocketStream(left) for left, _ in pairs]
    received = [0] * count

    async def receive(number: int) -> None:
        for _ in range(2):
            received[number] += len(await streams[number].receive_some(4096))

    async def until(total: int) -> float:
        """Waits until all have received so much, in turns; returns the most CPU time between two."""
        latest, before = 0.0, time.process_time()
        while sum(received) < total:
            await trio.sleep(0)
            now = time.process_time()
            latest, before = max(latest, now - before), now
        return latest

    def send() -> None:
        for _, right in pairs:
            right._sock.send(bytes(64))  # type: ignore[attr-defined]

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(receive, number)
        await trio.testing.wait_all_tasks_blocked(0.1)
        send()
        await until(64 * count)
        await trio.testing.wait_all_tasks_blocked(0.1)
        send()
        before, began = enters(), time.process_time()
        latest = await until(128 * count)
        used = time.process_time() - began
    assert received == [128] * count
    return {"cpu": used, "latest": latest, "enters": enters() - before}


def enters() -> int:
    return int(getattr(trio.lowlevel.current_statistics().io_statistics, "entered", 0))


def rings(limit: int, *, with_sockets: bool) -> int:
    """How many processes, each with one run, an unprivileged user may have at this limit."""
    children: list[int] = []
    wait, over = os.pipe()
    while True:
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(over)
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with warnings.catch_warnings():
                warnings.simplefilter("error", trio_uring.UringFallbackWarning)
                with suppress(BaseException):
                    trio_uring.run(hold, with_sockets, tell, wait)
            os._exit(0)
        os.close(tell)
        children.append(child)
        is_held = os.read(told, 1)
        os.close(told)
        if not is_held:
            break
    os.close(over)
    for child in children:
        os.waitpid(child, 0)
    time.sleep(0.5)  # until the kernel has taken the rings down
    return len(children) - 1


async def hold(with_sockets: bool, tell: int, wait: int) -> None:
    """A run that has what it takes from the first socket on, until it need not wait any more."""
    left, right = trio.socket.socketpair()
    with left, right:
        if with_sockets:
            await right.send(b"x")
            await left.recv(1)
        os.write(tell, b"h")
        os.read(wait, 1)


# The tables


def measured(*arguments: object) -> Any:
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, check=True, text=True
    )
    return json.loads(done.stdout)


def by_turns(what: str, count: int, rounds: int) -> dict[str, dict[str, float]]:
    """The medians of what the backends give."""
    seen: dict[str, list[dict[str, float]]] = {backend: [] for backend in BACKENDS}
    for _ in range(rounds):
        for backend, all_seen in seen.items():
            all_seen.append(measured("--child", what, backend, count))
    return {
        backend: {key: statistics.median(one[key] for one in all_seen) for key in all_seen[0]}
        for backend, all_seen in seen.items()
    }


def tell_idle(most: int, rounds: int) -> None:
    print(f"An idle TCP connection, by the slope from {FEW} to {most}:\n")
    print("| | epoll | io_uring |\n| --- | --- | --- |")
    seen = by_turns("idle", most, rounds)
    names = {"python": "the process, bytes", "cpu": "CPU of all, share", "gc": "a full collection, ns"}
    for key in seen["epoll"]:
        name = names.get(key, f"{key}, bytes")
        print(f"| {name} | " + " | ".join(f"{seen[backend][key]:.4g}" for backend in BACKENDS) + " |")
    for count in (100_000, 1_000_000):
        sizes = (f"{seen[backend]['python'] * count / 1e9:.2f}" for backend in BACKENDS)
        print(f"| {count:,} connections, GB of the process | " + " | ".join(sizes) + " |")
    print()


def tell_at_once(most: int, rounds: int) -> None:
    print(f"{most // 2} connections get data at once:\n")
    print("| | epoll | io_uring |\n| --- | --- | --- |")
    seen = by_turns("at_once", most // 2, rounds)
    for key, name, factor in (
        ("cpu", "CPU until all tasks have run, ms", 1e3),
        ("latest", "a task that only yields waits for at most, ms", 1e3),
        ("enters", "io_uring_enter", 1),
    ):
        print(f"| {name} | " + " | ".join(f"{seen[one][key] * factor:.1f}" for one in BACKENDS) + " |")
    print()


def tell_rings() -> None:
    ring, buffers = size_of_ring(64, 128, has_array=False), size_of_buffers(64)
    print(f"Where locked memory counts, a run takes {ring} bytes, {ring + buffers} with stream sockets:\n")
    print("| RLIMIT_MEMLOCK | processes | with stream sockets |\n| --- | --- | --- |")
    for limit in (64 << 10, 256 << 10, 1 << 20):
        without, with_them = (rings(limit, with_sockets=sockets) for sockets in (False, True))
        print(f"| {limit >> 10} KiB | {without} | {with_them} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--most", type=int, default=9000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    tell_idle(arguments.most, arguments.rounds)
    tell_at_once(2 * arguments.most, arguments.rounds)
    if os.geteuid() == 0:
        tell_rings()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    match sys.argv[1:]:
        case ["--connect", *numbers]:
            connect(*map(int, numbers))
        case ["--child", what, backend, count]:
            print(json.dumps(BACKENDS[backend]({"idle": idle, "at_once": at_once}[what], int(count))))
        case _:
            main()
