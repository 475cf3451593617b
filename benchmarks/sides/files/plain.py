"""The works with plain `open`, in one thread: what a program pays that does nothing else.

Where others have several tasks, the file objects take turns.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from time import perf_counter

from sides.files.contents import BLOCK, block, check, chunk
from sides.files.work import LINES_BETWEEN_LOOKS, Record, Work

Run = Callable[[], None]


@contextmanager
def random_reads(work: Work, record: Record) -> Iterator[Run]:
    with ExitStack() as stack:
        files = [stack.enter_context(open(work.path, "rb", buffering=0)) for _ in range(work.tasks)]
        choose = random.Random(0).random

        def run() -> None:
            for file in cycle(files):
                start = perf_counter()
                if start > record.deadline and len(record.latencies) >= work.least:
                    return
                number = int(choose() * work.count)
                file.seek(number * BLOCK)
                data = file.read(BLOCK)
                record.latencies.append(perf_counter() - start)
                check(data, number, BLOCK)

        yield run


@contextmanager
def small_files(work: Work, record: Record) -> Iterator[Run]:
    operation = {"small-read": _read, "small-write": _write, "small-stat": _stat}[work.kind]

    def run() -> None:
        for number in range(work.count):
            start = perf_counter()
            if start > record.deadline and len(record.latencies) >= work.least:
                return
            operation(work.small_file(number), number)
            record.latencies.append(perf_counter() - start)

    yield run


def _read(path: str, number: int) -> None:
    with open(path, "rb") as file:
        check(file.read(), number, BLOCK)


def _write(path: str, number: int) -> None:
    with open(path, "xb") as file:
        file.write(block(number))


def _stat(path: str, number: int) -> None:
    assert os.stat(path).st_size == BLOCK


@contextmanager
def sequential_read(work: Work, record: Record) -> Iterator[Run]:
    with open(work.path, "rb") as file:

        def run() -> None:
            while (perf_counter() < record.deadline or record.operations < work.least) and (
                data := file.read(work.size)
            ):
                check(data, record.operations * (work.size // BLOCK), work.size)
                record.operations += 1

        yield run


@contextmanager
def sequential_write(work: Work, record: Record) -> Iterator[Run]:
    data = chunk(work.size)
    with open(work.path, "wb") as file:

        def run() -> None:
            while (
                perf_counter() < record.deadline or record.operations < work.least
            ) and record.operations < work.count:
                file.write(data)
                record.operations += 1
            file.flush()

        yield run


@contextmanager
def lines(work: Work, record: Record) -> Iterator[Run]:
    with open(work.path, encoding="utf-8") as file:

        def run() -> None:
            for line in file:
                record.operations += 1
                record.characters += len(line)
                if not record.operations % LINES_BETWEEN_LOOKS and perf_counter() > record.deadline:
                    return

        yield run


WORKS = {
    "random": random_reads,
    "small-read": small_files,
    "small-write": small_files,
    "small-stat": small_files,
    "sequential-read": sequential_read,
    "sequential-write": sequential_write,
    "lines": lines,
}
