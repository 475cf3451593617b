"""What single steps of a Trio program cost: a pyperf script, one side at a time.

    python benchmarks/micro.py --side epoll|io_uring [--scale X] [pyperf's options] [BENCHMARK ...]

compare.py runs both sides interleaved, which is what to quote. A run that is not
on the backend that it was asked for fails.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Awaitable, Callable

import attrs
import pyperf
import trio
import trio.testing
from trio.lowlevel import checkpoint, current_trio_token, notify_closing, wait_readable

import trio_uring

SIDES = ("epoll", "io_uring")
Timed = Callable[[int], Awaitable[float]]


def _on_side(side: str, timed: Timed, loops: int) -> float:
    async def main() -> float:
        backend = trio.lowlevel.current_statistics().io_statistics.backend
        if backend != side:
            raise SystemExit(f"this is {backend}, not {side}")
        return await timed(loops)

    return trio.run(main)


async def idle_get_events(loops: int) -> float:
    manager = trio._core._run.GLOBAL_RUN_CONTEXT.runner.io_manager
    manager.process_events(manager.get_events(0))
    start = time.perf_counter()
    for _ in range(loops):
        manager.get_events(0)
    return time.perf_counter() - start


async def idle_checkpoint(loops: int) -> float:
    start = time.perf_counter()
    for _ in range(loops):
        await checkpoint()
    return time.perf_counter() - start


def _nothing() -> None:
    pass


async def run_sync_soon_pending(loops: int) -> float:
    """In bursts, between which the queue is emptied."""
    run_sync_soon = current_trio_token().run_sync_soon
    elapsed = 0.0
    for begun in range(0, loops, 1000):
        run_sync_soon(_nothing)
        start = time.perf_counter()
        for _ in range(min(1000, loops - begun)):
            run_sync_soon(_nothing)
        elapsed += time.perf_counter() - start
        await trio.testing.wait_all_tasks_blocked()
    return elapsed


async def thread_round_trip(loops: int) -> float:
    token = current_trio_token()
    done = trio.Event()
    elapsed = 0.0

    def thread() -> None:
        nonlocal elapsed
        called = threading.Semaphore(0)
        start = time.perf_counter()
        for _ in range(loops):
            token.run_sync_soon(called.release)
            called.acquire()
        elapsed = time.perf_counter() - start
        token.run_sync_soon(done.set)

    threading.Thread(target=thread).start()
    await done.wait()
    return elapsed


async def wait_readable_ready(loops: int) -> float:
    a, b = socket.socketpair()
    with a, b:
        b.send(b"x")
        start = time.perf_counter()
        for _ in range(loops):
            await wait_readable(a)
        elapsed = time.perf_counter() - start
        notify_closing(a)
    return elapsed


async def ping_pong_wait(loops: int) -> float:
    """Two tasks, a byte to and fro, each waits until it is readable."""
    a, b = socket.socketpair()

    async def play(sock: socket.socket, rounds: int) -> None:
        for _ in range(rounds):
            await wait_readable(sock)
            sock.send(sock.recv(1))

    with a, b:
        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play, a, loops)
            nursery.start_soon(play, b, loops)
            a.send(b"x")
        elapsed = time.perf_counter() - start
        notify_closing(a)
        notify_closing(b)
    return elapsed


async def ping_pong_sockets(loops: int) -> float:
    """The same with Trio's sockets, whose ``recv`` tries before it waits."""
    a, b = trio.socket.socketpair()

    async def play(sock: trio.socket.SocketType, rounds: int) -> None:
        for _ in range(rounds):
            await sock.send(await sock.recv(1))

    with a, b:
        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play, a, loops)
            nursery.start_soon(play, b, loops)
            await a.send(b"x")
        return time.perf_counter() - start


async def cancelled_wait(loops: int) -> float:
    """A wait that the kernel knows of is cancelled by another task."""
    a, b = socket.socketpair()
    scope = trio.CancelScope()

    async def waiter() -> None:
        nonlocal scope
        for _ in range(loops):
            with trio.CancelScope() as scope:
                await wait_readable(a)

    with a, b:
        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter)
            await checkpoint()
            for _ in range(loops):
                await checkpoint()
                scope.cancel()
                await checkpoint()
        return time.perf_counter() - start


async def cancelled_wait_at_once(loops: int) -> float:
    """A wait whose scope is cancelled already: the kernel never hears of it."""
    a, b = socket.socketpair()
    with a, b:
        start = time.perf_counter()
        for _ in range(loops):
            with trio.CancelScope() as scope:
                scope.cancel()
                await wait_readable(a)
        return time.perf_counter() - start


async def notify_closing_idle(loops: int) -> float:
    a, b = socket.socketpair()
    with a, b:
        start = time.perf_counter()
        for _ in range(loops):
            notify_closing(a)
        return time.perf_counter() - start


async def sleep_300_us(loops: int) -> float:
    start = time.perf_counter()
    for _ in range(loops):
        await trio.sleep(300e-6)
    return time.perf_counter() - start


async def _main() -> None:
    pass


def run_nothing(loops: int) -> float:
    start = time.perf_counter()
    for _ in range(loops):
        trio.run(_main)
    return time.perf_counter() - start


@attrs.frozen
class Benchmark:
    function: Timed | None
    """None: the run itself is what is timed."""
    loops: int
    at_most: float | None
    """The ratio io_uring / epoll that the project set out to stay under."""


BENCHMARKS = {
    "idle get_events(0)": Benchmark(idle_get_events, 40_000, 0.5),
    "idle checkpoint": Benchmark(idle_checkpoint, 8_000, None),
    "run_sync_soon, pending": Benchmark(run_sync_soon_pending, 20_000, 0.3),
    "thread to callback": Benchmark(thread_round_trip, 800, 0.9),
    "wait_readable, ready": Benchmark(wait_readable_ready, 4_000, 0.9),
    "ping-pong, wait_readable": Benchmark(ping_pong_wait, 1_600, 0.9),
    "ping-pong, Trio sockets": Benchmark(ping_pong_sockets, 1_000, 0.9),
    "cancelled wait": Benchmark(cancelled_wait, 1_600, 0.95),
    "cancelled wait, at once": Benchmark(cancelled_wait_at_once, 1_600, 0.95),
    "notify_closing, no waiter": Benchmark(notify_closing_idle, 20_000, None),
    "trio.sleep(300e-6)": Benchmark(sleep_300_us, 80, 0.4),
    "trio.run of nothing": Benchmark(None, 100, 1.1),
}


def main() -> None:
    runner = pyperf.Runner(
        processes=1,
        values=12,
        warmups=1,
        loops=1,
        program_args=(__file__,),
        add_cmdline_args=lambda command, args: command.extend(
            ["--side", args.side, "--scale", str(args.scale), *args.benchmark]
        ),
    )
    runner.argparser.add_argument("--side", choices=SIDES, required=True)
    runner.argparser.add_argument("--scale", type=float, default=1.0, help="loops, times this")
    runner.argparser.add_argument("benchmark", nargs="*", default=[], help="; ".join(BENCHMARKS))
    args = runner.parse_args()
    if args.side == "io_uring":
        trio_uring.install()
    for name in args.benchmark or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        loops = max(10, int(benchmark.loops * args.scale))
        runner.bench_time_func(name, _time, args.side, benchmark, loops, inner_loops=loops)


def _time(outer_loops: int, side: str, benchmark: Benchmark, loops: int) -> float:
    if benchmark.function is None:
        _on_side(side, idle_checkpoint, 1)
        return run_nothing(outer_loops * loops)
    return _on_side(side, benchmark.function, outer_loops * loops)


if __name__ == "__main__":
    main()
