"""One allocation fails, wherever it is made: an error of a task or, where Trio has no memory, of the run.

No byte is lost or wrong for those who go on, the run ends, and nothing is left of it.
"""

from __future__ import annotations

import importlib.util

import pytest
from child_process import run_python

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("_testcapi") is None, reason="this Python has no _testcapi"
)
# Of the allocations that fail, each in a child of its own.
NUMBERS = range(30, 1700, 120)
SEGMENTATION_FAULT = -11
"""Of CPython 3.13.0's own, where it has no memory for a function object."""

PROGRAM = """
import gc, os, socket, sys, warnings
import _testcapi, trio, trio.testing, trio_uring
from trio._core import _run

sys.unraisablehook = lambda _: None
warnings.simplefilter("ignore")
originals = _run.TheIOManager, _run.setup_runner

async def exchange(left, right, size):
    sent = bytes(range(256)) * (size // 256)
    for _ in range(5):
        try:
            await left.send_all(sent)
            received = b""
            while len(received) < len(sent):
                received += await right.receive_some()
        except MemoryError:
            return
        assert received == sent, "lost"

async def accept(listener):
    try:
        sock, _ = await listener.accept()
        sock.close()
    except MemoryError:
        pass

async def wait(reader, writer):
    try:
        await trio.lowlevel.wait_writable(writer)
        os.write(writer, b"x")
        await trio.lowlevel.wait_readable(reader)
    except MemoryError:
        pass

async def read(reader, writer):
    buffer = bytearray(4)
    try:
        await trio_uring.lowlevel.write(writer, b"data")
        await trio_uring.lowlevel.read(reader, buffer)
    except MemoryError:
        return
    assert buffer == b"data", "lost"

async def main():
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen()
    tasks = []
    for size in (256, 4096, 65536):
        ends = [trio.SocketStream(end) for end in trio.socket.socketpair()]
        tasks.append((exchange, *ends, size))
        client = trio.socket.socket()
        await client.connect(listener.getsockname())
        server, _ = await listener.accept()
        tasks.append((exchange, trio.SocketStream(client), trio.SocketStream(server), size))
    client = socket.create_connection(listener.getsockname())
    tasks += [(accept, listener), (wait, *os.pipe()), (read, *os.pipe())]
    async with trio.open_nursery() as nursery:
        for task in tasks:  # Trio never runs a task that it had no memory to start
            nursery.start_soon(*task)
        _testcapi.set_nomemory({number}, {number} + 1)
        while nursery.child_tasks:
            await trio.testing.wait_all_tasks_blocked()
            for task in nursery.child_tasks:
                if task.name.endswith("exchange"):
                    # Its peer met the error, and will send no more.
                    nursery.cancel_scope.cancel()

try:
    trio_uring.run(main)
except BaseException as error:
    _testcapi.remove_mem_hooks()
    left = [error]
    while left:
        error = left.pop()
        left += [*getattr(error, "exceptions", ()), *filter(None, [error.__cause__, error.__context__])]
        assert "lost" not in map(str, error.args), error
_testcapi.remove_mem_hooks()
main = listener = error = None
_run.GLOBAL_RUN_CONTEXT.__dict__.clear()
gc.collect()
links = [os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd")]
print(sum("io_uring" in os.readlink(link) for link in links if os.path.lexists(link)))
print((_run.TheIOManager, _run.setup_runner) == originals, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("number", NUMBERS)
def test_an_allocation_that_fails(number: int) -> None:
    done = run_python(PROGRAM.replace("{number}", str(number)), timeout=60)
    if done.returncode != SEGMENTATION_FAULT:
        assert (done.stdout, done.stderr) == ("0\nTrue\n", "")
