"""Runs of the mixed workload under one rule, one after the other, in a process of their own.

    LD_PRELOAD=injector.so python child.py injector.so RULE [--seed SEED] [--runs RUNS] ...

Prints one line of JSON at the end: what was injected, seen and checked. Whatever is not as it
should be is an exception, or, if a run takes too long, the stacks of its tasks.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import faulthandler
import gc
import itertools
import json
import os
import random
import resource
import sys
import tempfile
import threading
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
import work_on_files
import work_on_streams
import work_on_the_rest
from injector import Injector
from rules import RULES
from stacks import print_task
from work import Work

import trio_uring
from trio_uring import RingOptions
from trio_uring.loop.trio_internals import SocketType
from trio_uring.ring.opcodes import READ

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Part = Callable[[Work], Awaitable[None]]

PARTS: Sequence[Part] = (*work_on_streams.PARTS, *work_on_files.PARTS, *work_on_the_rest.PARTS)
SMALLEST = RingOptions(entries=1, cq_entries=1, buffers=2, buffer_size=1024, read_ahead=1024)
PROCESSES = 400


def rings() -> list[RingOptions]:
    """By turns. Accepting ahead, which is for multishots, needs completions."""
    ahead = 3 if "completions" in trio_uring.capabilities().used else 0
    return [RingOptions(), SMALLEST, RingOptions(checkpoint_budget=16, accept_ahead=ahead)]


async def mix(work: Work, parts: Sequence[Part], kept: work_on_streams.Kept) -> None:
    async with trio.open_nursery() as nursery:
        for part in work.choices.sample(parts, len(parts)):
            nursery.start_soon(part, work, name=part.__name__)
    await work_on_streams.slowly(work)
    await kept.go_on(work)


class Child:
    def __init__(self, injector: Injector, arguments: argparse.Namespace) -> None:
        self.injector = injector
        self.rule = RULES[arguments.rule]
        self.lossy: bool = arguments.lossy
        self.parts = [part for part in PARTS if part.__name__ in arguments.parts]
        self.kept = work_on_streams.Kept()
        self.seen = self.checked = 0
        self.unraisable: list[str] = []
        sys.unraisablehook = lambda met: self.unraisable.append(f"{met.object!r}: {met.exc_value!r}")
        # A run that crashes leaves coroutines and sockets to the garbage collector.
        warnings.simplefilter("ignore" if self.rule.ends_run else "error")

    def injected(self) -> int:
        return sum(self.injector.count(name) for name in self.rule.names)

    def run(self, seed: int, ring: RingOptions, *, single: bool) -> None:
        """One run, and what it has to have left."""
        if self.rule.ends_run:
            self.kept = work_on_streams.Kept()
        before = state()
        injected = self.injected()
        with tempfile.TemporaryDirectory() as folder:
            work = Work(seed, Path(folder), self.rule.visible, lossy=self.lossy)
            limit = {"most": 1} if single else {}
            self.injector.begin(*self.rule.names, seed=seed, rate=self.rule.rate, **limit)
            try:
                trio_uring.run(mix, work, self.parts, self.kept, ring=ring)
            except (trio.TrioInternalError, OSError) as error:
                if not (self.rule.ends_run and is_due_to(error, errno.EBADR)):
                    raise
                work.met[errno.EBADR] += 1
            finally:
                self.injector.end()
        injected = self.injected() - injected
        seen = work.met.total()
        assert seen <= injected, f"{seen} errors were seen, and {injected} injected"
        operation = self.injector.last_operation
        # A read whose first part was in the page cache returns that part, as read(2) does. The error is for
        # the next read, and here that has none.
        assert seen or not (single and injected) or operation == READ.number, (
            f"nobody saw the error that operation {operation} has met"
        )
        self.seen += seen
        self.checked += work.checked
        gc.collect()
        after = state()
        if self.rule.ends_run:  # and leaves to whom it may concern what its tasks had open
            before["descriptors"], self.unraisable = after["descriptors"], []
        for name in before:
            assert before[name] == after[name], f"{name}: {before[name]} before, {after[name]} after"
        assert not self.unraisable, self.unraisable


def is_due_to(error: BaseException | None, number: int) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno == number:
            return True
        error = error.__cause__ or error.__context__
    return False


def state() -> dict[str, Any]:
    """What a run has to leave as it was."""
    names = {
        f"{owner.__name__}.{name}": value
        for owner in (trio, trio.socket, trio._core._run, SocketType, trio.SocketStream, trio.SocketListener)
        for name, value in vars(owner).items()
        if callable(value)
    }
    return {"rings": open_rings(), "names of Trio's": names, "descriptors": descriptors()}


def descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


def open_rings() -> list[str]:
    """The descriptors of rings, and of their interrupts."""
    return [name for name, target in descriptors().items() if "io_uring" in target or "eventfd" in target]


class Watchdog:
    """Ends the process if a run takes too long, and says where it is."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        # Without the interpreter, which may be what hangs.
        faulthandler.dump_traceback_later(self._seconds + 5, exit=True)
        self._runner: Any = None
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        faulthandler.cancel_dump_traceback_later()
        self._thread.join()

    def _watch(self) -> None:
        if self._over.wait(self._seconds):
            return
        print(f"hangs: longer than {self._seconds} s", file=sys.stderr)
        for runner in [item for item in gc.get_objects() if isinstance(item, trio._core._run.Runner)]:
            for task in list(runner.tasks):
                print_task(task, sys.stderr)
        for name in open_rings():
            print(Path(f"/proc/self/fdinfo/{name}").read_text(), file=sys.stderr)
        faulthandler.dump_traceback(sys.stderr)
        os._exit(3)


def limit_process(seconds: float) -> None:
    """A program that has gone wrong floods nothing. (Root may have any number of processes.)"""
    for what, most in (
        (resource.RLIMIT_NPROC, PROCESSES),
        (resource.RLIMIT_CPU, int(seconds)),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (limit, limit))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    names = [part.__name__ for part in PARTS]
    parser = argparse.ArgumentParser()
    parser.add_argument("library", type=Path)
    parser.add_argument("rule", choices=RULES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=20, help="that one run may take")
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="of the workload")
    parser.add_argument("--lossy", action="store_true", help="lose a byte, which has to be noticed")
    return parser.parse_args(arguments)


def main(arguments: argparse.Namespace) -> None:
    preloaded = os.environ.get("LD_PRELOAD", "")
    os.environ["LD_PRELOAD"] = preloaded.removesuffix(
        str(arguments.library)
    )  # which is for this process alone
    limit_process(arguments.seconds * (arguments.runs + 1))
    child = Child(Injector(arguments.library), arguments)
    choices = random.Random(arguments.seed)
    for number, ring in zip(range(arguments.runs), itertools.cycle(rings()), strict=False):
        single = child.rule.single and number % 2 == 1
        try:
            with Watchdog(arguments.seconds):  # a run that has crashed ends when it is collected
                child.run(choices.randrange(1 << 32), ring, single=single)
        except BaseException:
            traceback.print_exc()
            print(f"run {number} of seed {arguments.seed}, {ring}", file=sys.stderr)
            sys.exit(1)
    figures = {"injected": child.injected(), "seen": child.seen, "checked": child.checked}
    print(json.dumps({**figures, "rings": child.injector.rings}))


if __name__ == "__main__":
    main(parse(sys.argv[1:]))
