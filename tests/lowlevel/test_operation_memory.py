"""The memory of operations stays where it is until the kernel is done, and no longer."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import tracemalloc
import weakref
from typing import TYPE_CHECKING, Any

import trio
import trio.testing
from equivalence import Backend, every_ring
from in_flight import Pipe, in_flight, is_pinned

import trio_uring
from trio_uring import lowlevel

if TYPE_CHECKING:
    from pathlib import Path


@every_ring
def test_a_buffer_is_pinned_while_the_kernel_has_it_and_not_after(backend: Backend, pipe: Pipe) -> None:
    async def main() -> None:
        first, second, unread = bytearray(4), bytearray(4), bytearray(4)
        was_read = trio.Event()  # on older kernels a worker of theirs reads from pipes
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                await lowlevel.readv(pipe.reader, [first, second])
                assert not is_pinned(first)
                assert not is_pinned(second)
                try:
                    await lowlevel.read(pipe.writer, unread)
                except OSError:
                    assert not is_pinned(unread)
                was_read.set()
                try:
                    await lowlevel.readv(pipe.reader, [first, second])
                except trio.Cancelled:
                    assert not is_pinned(first)
                    assert not is_pinned(second)
                    raise

            nursery.start_soon(read)
            await in_flight(1)
            assert is_pinned(first)
            assert is_pinned(second)
            os.write(pipe.writer, b"12345678")
            await was_read.wait()
            await in_flight(1)
            assert is_pinned(first)
            assert is_pinned(second)
            nursery.cancel_scope.cancel()
        assert first + second == b"12345678"

    backend.run(main)


class Array(bytearray):
    """Can be referred to weakly."""


def test_what_is_in_flight_is_not_freed(pipe: Pipe) -> None:
    freed: list[str] = []

    async def read() -> None:
        buffer = Array(8)
        weakref.finalize(buffer, freed.append, "freed")
        await lowlevel.read(pipe.reader, memoryview(buffer)[2:6])

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await in_flight(1)
            gc.collect()
            assert freed == []
            os.write(pipe.writer, b"data")
        gc.collect()
        assert freed == ["freed"]

    trio_uring.run(main)


def test_memory_does_not_grow_with_the_number_of_operations(tmp_path: Path, pipe: Pipe) -> None:
    async def some(file: Any, count: int) -> None:
        buffer = bytearray(16)
        for _ in range(count):
            await lowlevel.write(file, buffer, 0)
            await lowlevel.read(file, buffer, 0)
            with contextlib.suppress(OSError):
                await lowlevel.read(-1, buffer)
            with trio.CancelScope() as scope:
                scope.cancel()
                await lowlevel.read(pipe.reader, buffer)
            with trio.move_on_after(0):
                await lowlevel.readv(pipe.reader, [buffer])

    async def main() -> int:
        with open(tmp_path / "file", "w+b", buffering=0) as file:
            await some(file, 200)
            tracemalloc.start()
            try:
                await some(file, 50)
                gc.collect()
                before, _ = tracemalloc.get_traced_memory()
                resident = resident_kib()
                await some(file, 1_500)
                gc.collect()
                after, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert resident_kib() - resident < 2_000
            return after - before

    assert trio_uring.run(main) < 20_000


def resident_kib() -> int:
    """Without what is of files, which the kernel may take out of memory and read again meanwhile."""
    with open("/proc/self/statm") as file:
        _, resident, of_files, *_ = map(int, file.read().split())
    return (resident - of_files) * resource.getpagesize() // 1024
