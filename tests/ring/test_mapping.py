"""Rings open with every liburing: not every release says in the ring what it has mapped."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from child_process import output_of, preloaded

import trio_uring

if TYPE_CHECKING:
    from pathlib import Path

# As liburing 2.5 to 2.14 have it: the queues are mapped, and that is all.
ONLY_MAPS = """
#include <dlfcn.h>
#include <liburing.h>

int io_uring_queue_mmap(int fd, struct io_uring_params *params, struct io_uring *ring)
{
    int (*map)(int, struct io_uring_params *, struct io_uring *) = dlsym(RTLD_NEXT, "io_uring_queue_mmap");
    int result = map(fd, params, ring);

    ring->ring_fd = ring->enter_ring_fd = 0;
    ring->flags = ring->features = 0;
    return result;
}
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
@pytest.mark.skipif(trio_uring.capabilities().liburing_inside, reason="this build has liburing inside")
def test_run_with_a_liburing_that_only_maps(tmp_path: Path) -> None:
    source, library = tmp_path / "maps.c", tmp_path / "maps.so"
    source.write_text(ONLY_MAPS)
    options = ["-D_GNU_SOURCE", "-shared", "-fPIC", "-Wl,--no-as-needed", "-luring"]
    subprocess.run(["gcc", str(source), "-o", str(library), *options], check=True, timeout=60)
    program = """
        import trio, trio_uring

        async def main():
            await trio.sleep(0)
            print(trio.lowlevel.current_statistics().io_statistics.backend)

        trio_uring.run(main)
    """
    assert output_of(program, env=preloaded(library)) == "io_uring\n"
