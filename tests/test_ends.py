"""A run ends, whatever fails, and gives back what it took: the ring, its descriptors, Trio's names."""

from __future__ import annotations

import errno

import pytest
from child_process import SECCOMP, output_of, run_python

PREPARE = f"""
import ctypes, errno, gc, os, signal, socket, sys, tempfile, threading, time, warnings
import trio, trio.testing, trio_uring
from trio._core import _run
from trio_uring import RingOptions, lowlevel
sys.path.insert(0, {str(SECCOMP.parent)!r})
import seccomp

sys.unraisablehook = lambda _: None  # of tasks that never end
warnings.simplefilter("ignore")
originals = _run.TheIOManager, _run.setup_runner

def rings():
    folder = "/proc/self/fd/"
    links = [os.readlink(folder + fd) for fd in os.listdir(folder) if os.path.lexists(folder + fd)]
    return sum("io_uring" in link for link in links)

async def in_flight(nursery):
    '''Something of each kind is with the kernel.'''
    reader, writer = os.pipe()
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen()
    left, right = trio.socket.socketpair()
    client, server = socket.socket(), listener.accept
    client.connect(listener.getsockname())
    accepted, _ = await listener.accept()
    stream = trio.SocketStream(accepted)
    for data in (b"1", b"2"):  # the second receive is multishot
        client.sendall(data)
        assert await stream.receive_some(1) == data
    file = await trio_uring.open_file(tempfile.mkstemp()[1], "wb", buffering=1)
    nursery.start_soon(lowlevel.read, reader, bytearray(10))
    nursery.start_soon(listener.accept)
    nursery.start_soon(left.recv, 10)
    nursery.start_soon(stream.receive_some)
    nursery.start_soon(trio.SocketStream(right).send_all, bytes(10_000_000))
    nursery.start_soon(trio.lowlevel.wait_readable, reader)
    nursery.start_soon(file.write, bytes(10_000))
    await trio.testing.wait_all_tasks_blocked()
    return [client, left, right, listener, file]

def say_how_it_ended(*arguments, **options):
    try:
        print(trio_uring.run(*arguments, **options))
    except BaseException as error:
        while hasattr(error, "exceptions"):
            error, *_ = error.exceptions
        while error.__cause__ is not None:
            error = error.__cause__
        print(type(error).__name__, getattr(error, "errno", ""))
    gc.collect()
    print(rings(), "rings", (_run.TheIOManager, _run.setup_runner) == originals)
    sys.stdout.flush()

def leave():
    os._exit(0)  # the interpreter's own end meets closed descriptors
"""
LIMIT = 30
"""Seconds for a child, most of them its start on a busy machine. None of them waits longer than two."""

ANSWERS = [
    *(errno.EPERM, errno.EBADF, errno.EBADFD, errno.ENXIO, errno.EINVAL, errno.ENOSYS, errno.EBADR),
    *(errno.EAGAIN, errno.EBUSY, errno.ENOMEM, errno.EINTR, errno.ETIME, 0),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: errno.errorcode.get(answer, "0"))
@pytest.mark.parametrize("end", ["cancels", "returns", "crashes"])
def test_a_ring_that_may_not_be_entered_any_more(answer: int, end: str) -> None:
    """As in a program that sandboxes itself after its start. Some answers mean that it will go on."""
    said = output_of(
        PREPARE
        + f"""
class Crash(trio.abc.Instrument):
    crashes = False
    def before_io_wait(self, _):
        if self.crashes:
            raise SystemExit
crash = Crash()

def forbid():
    seccomp.install({{"io_uring_enter": {answer}}})

class Instrument(trio.abc.Instrument):
    def before_io_wait(self, timeout): ...

async def main():
    if {end == "returns"}:
        trio.lowlevel.spawn_system_task(lowlevel.read, os.pipe()[0], bytearray(10))
        await trio.sleep(0.01)
        forbid()
        return "returned"
    async with trio.open_nursery() as nursery:
        kept = await in_flight(nursery)
        forbid()
        if {end == "crashes"}:
            raise SystemExit
        nursery.cancel_scope.cancel()

say_how_it_ended(main)
leave()
""",
        timeout=LIMIT,
    ).splitlines()
    assert said[-1] == "0 rings True"
    assert said[-2] == f"{type(OSError(answer, '')).__name__} {answer or errno.EAGAIN}" or answer in (
        errno.EINTR,
        errno.ETIME,
    ), said
