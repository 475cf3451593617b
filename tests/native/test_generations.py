"""After 2^31 - 1 operations a slot has a generation that it had before. What is late then, of the last
operation of all, is still told from what is new, and from what is no operation.

`generations.c` sets the generations, since a test cannot wait for so many operations.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import trio
from equivalence import Backend, every_ring
from in_flight import Pipe
from pairs import armed_pair, peer_socket
from trio.testing import wait_all_tasks_blocked

from trio_uring import lowlevel
from trio_uring.ring.native import ffi

ROOT = Path(__file__).resolve().parents[2]
COMPILER = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
SLOTS = range(1, 5)

pytestmark = [
    pytest.mark.usefixtures("no_hanging"),
    pytest.mark.skipif(
        not (ROOT / "native").is_dir() or not shutil.which(COMPILER[0]), reason="nothing can be compiled here"
    ),
]


@pytest.fixture(scope="module")
def generations(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("generations") / "generations.so"
    source = Path(__file__).with_name("generations.c")
    options = ["-std=c11", "-D_GNU_SOURCE", "-shared", "-fPIC", f"-I{ROOT / 'native'}"]
    subprocess.run([*COMPILER, *options, str(source), "-o", str(library)], check=True, timeout=120)
    return ctypes.CDLL(str(library))


def core() -> ctypes.c_void_p:
    """That of the run that calls."""
    manager: Any = trio.lowlevel.current_task()._runner.io_manager
    return ctypes.c_void_p(int(ffi.cast("uintptr_t", manager.core)))


@every_ring
@pytest.mark.parametrize("left", range(4))
def test_operations_complete_while_generations_begin_anew(
    backend: Backend, left: int, generations: ctypes.CDLL, pipe: tuple[int, int]
) -> None:
    reader, writer = pipe

    async def main() -> None:
        peer, stream = await armed_pair()  # its receive stays with the kernel
        async with peer, stream:
            generations.near_the_last(core(), left)
            for number in range(8):
                async with trio.open_nursery() as nursery:
                    buffers = [bytearray(1) for _ in SLOTS]
                    for buffer in buffers:
                        nursery.start_soon(lowlevel.read, reader, buffer)
                    await wait_all_tasks_blocked()
                    os.write(writer, bytes(range(len(buffers))))
                assert sorted(b"".join(buffers)) == list(range(len(buffers)))
                peer_socket(peer).send(bytes([number]))
                assert await stream.receive_some() == bytes([number])
            found = [generations.generation_of(core(), slot) for slot in SLOTS]
            assert min(found) > 0
            assert sorted(found)[-2] < 10  # one of them is the receive's

    backend.run(main)


@every_ring
@pytest.mark.parametrize("left", range(4))
def test_the_late_answer_to_the_last_operation_of_all_is_nobody_elses(
    backend: Backend, left: int, generations: ctypes.CDLL, pipe: tuple[int, int]
) -> None:
    """A wait is cancelled, and a read has its slot before the kernel's answer is seen. Taken for the
    read's, it would be made again, and the first one would take what others are to read."""
    reader, _ = pipe

    async def main() -> None:
        generations.near_the_last(core(), left)
        for _ in range(8):
            async with trio.open_nursery() as nursery:
                with Pipe() as other:
                    async with trio.open_nursery() as cancelled:
                        cancelled.start_soon(trio.lowlevel.wait_readable, reader)
                        await wait_all_tasks_blocked()
                        cancelled.cancel_scope.cancel()
                    buffer = bytearray(1)
                    nursery.start_soon(lowlevel.read, other.reader, buffer)
                    for _ in range(3):
                        await wait_all_tasks_blocked()
                    os.write(other.writer, b"1")
                    while not any(buffer):
                        await trio.lowlevel.checkpoint()
                    os.write(other.writer, b"2")
                    for _ in range(3):
                        await trio.lowlevel.checkpoint()
                    assert (bytes(buffer), other.rest()) == (b"1", b"2")
        assert 0 < generations.generation_of(core(), 1) < 20

    backend.run(main)
