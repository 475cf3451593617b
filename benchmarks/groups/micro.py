"""What single steps of a Trio program cost: a pyperf script, one runtime at a time, and
the micro group of the suite.

    python -m groups.micro --runtime trio-epoll [--scale X] [pyperf's options] [BENCHMARK ...]

in the folder of the benchmarks.

The suite runs BOTH runtimes one right after the other and computes ratios, which is what
to quote: the time of a step alone changes with the machine's mood. Of the values that a
process measures one after the other it takes the fastest, since whatever else runs only
adds. Each benchmark has a process of its own in a full run; in smaller ones, where starts
would take longer than all else, one process of each runtime does them all.

A run that is not on the backend that it was asked for fails.
"""

from __future__ import annotations

import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs
import pyperf
import trio
import trio.testing
from trio.lowlevel import checkpoint, current_trio_token, notify_closing, wait_readable

from groups.plan import Planned, Scale
from measure.processes import FOLDER, PATIENCE, ChildError, inherited
from report.model import Case, Measurement
from sides.runtimes import TRIO, WrongBackendError, run_trio, seen, trio_backend

BASELINE = "trio-epoll"
BOTH = (BASELINE, "trio-uring")
SCRIPT = ("-m", "groups.micro")
WRONG_BACKEND = "wrong backend"
"""What the script's last line begins with if that is why it failed."""
MASS = 1000
"""Tasks that are cancelled at once."""

Timed = Callable[[int], Awaitable[float]]


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


async def run_sync_soon_nothing_pending(loops: int) -> float:
    """Only the call, from the loop's own thread."""
    run_sync_soon = current_trio_token().run_sync_soon
    elapsed = 0.0
    for _ in range(loops):
        await trio.testing.wait_all_tasks_blocked()
        start = time.perf_counter()
        run_sync_soon(_nothing)
        elapsed += time.perf_counter() - start
    return elapsed


async def run_sync_soon_asleep(loops: int) -> float:
    """Only the call, from a thread, while the loop sleeps."""
    token = current_trio_token()
    done = trio.Event()
    elapsed = 0.0

    def thread() -> None:
        nonlocal elapsed
        for _ in range(loops):
            time.sleep(500e-6)
            start = time.perf_counter()
            token.run_sync_soon(_nothing)
            elapsed += time.perf_counter() - start
        token.run_sync_soon(done.set)

    threading.Thread(target=thread).start()
    await done.wait()
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


async def _median_lateness(seconds: float, loops: int) -> float:
    late = []
    for _ in range(loops):
        start = time.perf_counter()
        await trio.sleep(seconds)
        late.append(time.perf_counter() - start - seconds)
    return statistics.median(late) * loops


async def lateness_300_us(loops: int) -> float:
    return await _median_lateness(300e-6, loops)


async def lateness_5_ms(loops: int) -> float:
    return await _median_lateness(5e-3, loops)


async def mass_cancel(loops: int) -> float:
    """From the cancellation until the last of the tasks is gone."""
    elapsed = 0.0
    with ExitStack() as stack:
        waited_on = []
        for _ in range(MASS):
            a, b = socket.socketpair()
            waited_on.append(stack.enter_context(a))
            stack.enter_context(b)
        for _ in range(loops):
            async with trio.open_nursery() as nursery:
                for sock in waited_on:
                    nursery.start_soon(wait_readable, sock)
                await trio.testing.wait_all_tasks_blocked()
                start = time.perf_counter()
                nursery.cancel_scope.cancel()
            elapsed += time.perf_counter() - start
    return elapsed


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


BENCHMARKS = {
    "idle get_events(0)": Benchmark(idle_get_events, 40_000),
    "idle checkpoint": Benchmark(idle_checkpoint, 8_000),
    "run_sync_soon, nothing pending": Benchmark(run_sync_soon_nothing_pending, 800),
    "run_sync_soon, loop asleep": Benchmark(run_sync_soon_asleep, 60),
    "run_sync_soon, pending": Benchmark(run_sync_soon_pending, 20_000),
    "thread to callback": Benchmark(thread_round_trip, 800),
    "wait_readable, ready": Benchmark(wait_readable_ready, 4_000),
    "ping-pong, wait_readable": Benchmark(ping_pong_wait, 1_600),
    "ping-pong, Trio sockets": Benchmark(ping_pong_sockets, 1_000),
    "cancelled wait": Benchmark(cancelled_wait, 1_600),
    "cancelled wait, at once": Benchmark(cancelled_wait_at_once, 1_600),
    f"cancel {MASS:,} waits": Benchmark(mass_cancel, 1),
    "notify_closing, no waiter": Benchmark(notify_closing_idle, 20_000),
    "trio.sleep(300e-6)": Benchmark(sleep_300_us, 60),
    "lateness of a sleep of 300 us": Benchmark(lateness_300_us, 60),
    "lateness of a sleep of 5 ms": Benchmark(lateness_5_ms, 8),
    "trio.run of nothing": Benchmark(None, 100),
}


def plan(scale: Scale) -> list[Planned]:
    amount, values = {"full": (1.0, 8), "quick": (0.15, 3), "smoke": (0.001, 1)}[scale.name]
    together = {runtime: Processes(runtime, amount, values, list(BENCHMARKS)) for runtime in BOTH}
    planned = []
    for name in BENCHMARKS:
        jobs = {}
        for runtime in BOTH:
            alone = Processes(runtime, amount, values, [name])
            jobs[runtime] = MicroJob(name, alone if scale.name == "full" else together[runtime])
        planned.append(Planned(Case("micro", name, BASELINE, "seconds", {}), dict(jobs)))
    return planned


@attrs.define
class Processes:
    """Measures benchmarks, always all of the names in one process of one runtime."""

    runtime: str
    amount: float
    values: int
    names: Sequence[str]
    _not_taken: dict[str, tuple[float, str]] = attrs.field(factory=dict, init=False)

    def take(self, name: str) -> tuple[float, str]:
        """The benchmark's time in seconds and the backend seen; of a new process if the
        last one's was taken already."""
        if name not in self._not_taken:
            self._not_taken = self._measured()
        return self._not_taken.pop(name)

    def _measured(self) -> dict[str, tuple[float, str]]:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder, "result.json")
            # A worker of pyperf measures in its own process; its status is the script's.
            options = ["--worker", f"--values={self.values}", "--output", str(output)]
            command = [sys.executable, *SCRIPT, "--runtime", self.runtime, "--scale", str(self.amount)]
            done = subprocess.run(
                [*command, *options, *self.names],
                env=inherited(),
                cwd=FOLDER,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            words = done.stderr.strip()[-2000:]
            last = words.rpartition("\n")[2]
            if done.returncode and last.startswith(WRONG_BACKEND):
                raise WrongBackendError(last.removeprefix(f"{WRONG_BACKEND}: "))
            if done.returncode:
                raise ChildError(f"{' '.join(command)}\nended with status {done.returncode}: {words}")
            suite = pyperf.BenchmarkSuite.load(str(output))
            return {name: _result(suite.get_benchmark(name)) for name in self.names}


def _result(benchmark: pyperf.Benchmark) -> tuple[float, str]:
    return float(min(benchmark.get_values())), benchmark.get_metadata()["seen"]


@attrs.frozen
class MicroJob:
    name: str
    processes: Processes

    def measure(self) -> tuple[Measurement, str]:
        seconds, text = self.processes.take(self.name)
        return {"seconds": seconds}, text

    def count_system_calls(self) -> dict[str, float]:
        """None: a benchmark prepares and measures in one go."""
        return {}


def main() -> None:
    runner = pyperf.Runner(
        processes=1,
        values=12,
        warmups=1,
        loops=1,
        program_args=SCRIPT,
        add_cmdline_args=lambda command, args: command.extend(
            ["--runtime", args.runtime, "--scale", str(args.scale), *args.benchmark]
        ),
    )
    runner.argparser.add_argument("--runtime", choices=TRIO, required=True)
    runner.argparser.add_argument("--scale", type=float, default=1.0, help="loops, times this")
    runner.argparser.add_argument("benchmark", nargs="*", default=[], help="; ".join(BENCHMARKS))
    args = runner.parse_args()
    if unknown := set(args.benchmark) - set(BENCHMARKS):
        runner.argparser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    _allow_files(2 * MASS + 100)
    for name in args.benchmark or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        loops = max(1, int(benchmark.loops * args.scale))
        metadata = {"seen": _on_runtime(args.runtime, idle_checkpoint, 1)[1]}
        runner.bench_time_func(
            name, _time, args.runtime, benchmark, loops, inner_loops=loops, metadata=metadata
        )


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count, hard)), hard))


def _time(outer_loops: int, runtime: str, benchmark: Benchmark, loops: int) -> float:
    if benchmark.function is None:
        _on_runtime(runtime, idle_checkpoint, 1)
        return run_nothing(outer_loops * loops)
    return _on_runtime(runtime, benchmark.function, outer_loops * loops)[0]


def _on_runtime(runtime: str, timed: Timed, loops: int) -> tuple[float, str]:
    """What was timed, and the backend that was seen."""
    result = 0.0, ""

    async def main() -> None:
        nonlocal result
        text = seen(runtime, trio_backend(), os.getpid())
        result = await timed(loops), text

    run_trio(runtime, main)
    return result


if __name__ == "__main__":
    try:
        main()
    except WrongBackendError as error:
        sys.exit(f"{WRONG_BACKEND}: {error}")
