"""`trio.Process.wait` by a pidfd: it is readable when the whole process has ended, and then Trio waits with
a call that blocks. So whoever is woken too early stops the loop."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import pytest
import trio
import trio.testing
from equivalence import Backend, every_backend

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Trio waits by a thread here")

# The first thread ends alone, by the system call; exit_group(2), which is Python's exit, would end all. The
# second one tells when the first is gone, and does what it is told on standard input.
FIRST_THREAD_ENDS = """
import ctypes, os, sys, threading
own, gone = os.getpid(), {"x86_64": 60, "aarch64": 93}[os.uname().machine]

def go_on():
    while open(f"/proc/self/task/{own}/stat").read().rpartition(")")[2].split()[0] != "Z":
        pass
    os.write(1, b"first thread gone\\n")
    if sys.stdin.readline() == "exec\\n":
        os.execv("/bin/sh", ["sh", "-c", "echo executed; read line; exit 5"])
    os._exit(7)

threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall(gone, 0)
"""


@every_backend
@pytest.mark.parametrize(
    ("told", "status"), [([b"end\n"], 7), ([b"exec\n", b"end\n"], 5)], ids=["ends", "execs"]
)
@pytest.mark.usefixtures("no_hanging")
def test_a_process_whose_first_thread_ends_first_goes_on(
    backend: Backend, told: list[bytes], status: int
) -> None:
    async def main() -> int:
        async with trio.open_nursery() as nursery:
            process = await nursery.start(
                partial(
                    trio.run_process,
                    [sys.executable, "-c", FIRST_THREAD_ENDS],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    check=False,
                )
            )
            for line in told:
                assert await process.stdout.receive_some() in (b"first thread gone\n", b"executed\n")
                await trio.testing.wait_all_tasks_blocked()
                assert process.returncode is None
                await process.stdin.send_all(line)
        return process.returncode

    assert backend.run(main) == status
