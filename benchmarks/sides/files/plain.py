"""The works with plain `open`, in one thread: what a program pays that does nothing else.

Where others have several tasks, the file objects take turns.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from io import FileIO
from itertools import cycle
from pathlib import Path
from time import perf_counter

from sides.files.contents import BLOCK, block, check, chunk
from sides.files.work import LINES_BETWEEN_LOOKS, Kind, Record, Work

Run = Callable[[], None]


@contextmanager
def random_reads(work: Work, record: Record, read_at: Callable[[FileIO, int], bytes]) -> Iterator[Run]:
    with ExitStack() as stack:
        files = [stack.enter_context(open(work.path, "rb", buffering=0)) for _ in range(work.tasks)]
        choose = random.Random(0).random

        def run() -> None:
            for file in cycle(files):
                start = perf_counter()
                if start > record.deadline and len(record.latencies) >= work.least:
                    return
                number = int(choose() * work.count)
                data = read_at(file, number * BLOCK)
                record.latencies.append(perf_counter() - start)
                check(data, number, BLOCK)

        yield run


def _seek_and_read(file: FileIO, offset: int) -> bytes:
    file.seek(offset)
    return file.read(BLOCK)


def _pread(file: FileIO, offset: int) -> bytes:
    return os.pread(file.fileno(), BLOCK, offset)


@contextmanager
def small_files(work: Work, record: Record, operation: Callable[[str, int], None]) -> Iterator[Run]:
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


def _read_by_path(path: str, number: int) -> None:
    check(Path(path).read_bytes(), number, BLOCK)


def _write(path: str, number: int) -> None:
    with open(path, "xb") as file:
        file.write(block(number))


def _write_by_path(path: str, number: int) -> None:
    Path(path).write_bytes(block(number))


def _stat(path: str, _: int) -> None:
    assert os.stat(path).st_size == BLOCK


def _exists(path: str, _: int) -> None:
    assert Path(path).exists()


@contextmanager
def tree(work: Work, record: Record) -> Iterator[Run]:
    def run() -> None:
        while perf_counter() < record.deadline or record.operations < work.least:
            record.operations += sum(1 for _ in Path(work.path).rglob("*"))

    yield run


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


WORKS: dict[Kind, Callable[[Work, Record], AbstractContextManager[Run]]] = {
    "random": partial(random_reads, read_at=_seek_and_read),
    "pread": partial(random_reads, read_at=_pread),
    "small-read": partial(small_files, operation=_read),
    "path-read": partial(small_files, operation=_read_by_path),
    "small-write": partial(small_files, operation=_write),
    "path-write": partial(small_files, operation=_write_by_path),
    "small-stat": partial(small_files, operation=_stat),
    "small-exists": partial(small_files, operation=_exists),
    "tree": tree,
    "sequential-read": sequential_read,
    "sequential-write": sequential_write,
    "lines": lines,
}
