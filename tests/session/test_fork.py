"""Fork: the parent's run does not notice, and the child starts with nothing of it."""

from __future__ import annotations

import pytest
from child_process import output_of
from equivalence import needs_completions

PREPARE = """
import os, socket, sys, warnings, trio, trio.testing, trio_uring
# In a child of a run Trio warns of the parent's wake-up descriptor, on epoll too.
warnings.simplefilter("ignore", RuntimeWarning)
# Python 3.12 warns of any fork beside threads, which is what this is about.
warnings.simplefilter("ignore", DeprecationWarning)
from trio._core import _run as trio_run
originals = trio_run.TheIOManager, trio_run.setup_runner

def rings():
    names = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if
             os.path.lexists(f"/proc/self/fd/{fd}")]
    return [name for name in names if "io_uring" in name or "eventfd" in name]

async def backend():
    return trio.lowlevel.current_statistics().io_statistics.backend

def fork(child):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = child() or 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    return pid

def status_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_the_parents_waits_go_on_and_the_child_keeps_no_ring() -> None:
    said = output_of(
        PREPARE
        + """
async def main():
    left, right = socket.socketpair()
    woken = trio.Event()
    async def wait():
        await trio.lowlevel.wait_readable(left)
        woken.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0)
        assert len(rings()) == 2
        for _ in range(3):
            assert status_of(fork(lambda: print("child has", rings()))) == 0
        right.send(b"x")
        with trio.fail_after(30):
            await woken.wait()
            await trio.to_thread.run_sync(lambda: None)
    print("parent is on", await backend())

trio_uring.run(main)
assert originals == (trio_run.TheIOManager, trio_run.setup_runner)
"""
    )
    assert said == "child has []\n" * 3 + "parent is on io_uring\n"


@pytest.mark.parametrize(
    ("leave", "end"),
    [
        ("return 'returned'", "returned"),
        ("raise SystemExit(7)", "child ends by an error"),
        ("raise KeyError('left')", "child ends by an error"),
        ("await trio.sleep_forever()", "io_uring"),
        (
            "with trio.CancelScope(shield=True): await trio.lowlevel.wait_readable(right)",
            "child ends by an error",
        ),
    ],
)
def test_a_child_that_leaves_through_the_run_ends_and_the_parent_goes_on(leave: str, end: str) -> None:
    said = output_of(
        PREPARE
        + f"""
async def main():
    left, right = socket.socketpair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.wait_readable, left)
        await trio.testing.wait_all_tasks_blocked()
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            nursery.cancel_scope.cancel()
            {leave}
        with trio.fail_after(30):
            await trio.to_thread.run_sync(os.waitpid, pid, 0)
            nursery.cancel_scope.cancel()
    with trio.fail_after(30):
        await trio.sleep(0.001)
    return await backend()

parent = os.getpid()
try:
    print(trio_uring.run(main))
except BaseException as error:
    assert os.getpid() != parent, error
    print("child ends by an error")
if os.getpid() != parent:
    print("child goes on")
    print("child runs on", trio_uring.run(backend))
assert originals == (trio_run.TheIOManager, trio_run.setup_runner)
assert rings() == []
sys.stdout.flush()
os._exit(0)
"""
    ).splitlines()
    assert said[-4:-1] == [end, "child goes on", "child runs on io_uring"]
    assert said[-1] == "io_uring"


def test_a_child_runs_on_a_ring_of_its_own_wherever_it_was_forked() -> None:
    said = output_of(
        PREPARE
        + """
def child():
    assert rings() == []
    print(trio_uring.run(backend), trio.run(backend))
    assert originals == (trio_run.TheIOManager, trio_run.setup_runner)
    assert rings() == []

def in_installed_child():
    print(trio.run(backend))
    trio_uring.uninstall()
    child()

print("outside")
status_of(fork(child))
trio_uring.run(backend)
status_of(fork(child))

print("in a thread of a run")
async def main():
    assert await trio.to_thread.run_sync(lambda: status_of(fork(child))) == 0
    await trio.sleep(0.001)
trio_uring.run(main)

print("installed")
with trio_uring.installed():
    assert status_of(fork(in_installed_child)) == 0
    async def installed_main():
        assert await trio.to_thread.run_sync(lambda: status_of(fork(in_installed_child))) == 0
    trio.run(installed_main)
"""
    )
    pair = "io_uring epoll\n"
    assert said == (
        f"outside\n{pair}{pair}in a thread of a run\n{pair}installed\nio_uring\n{pair}io_uring\n{pair}"
    )


def test_multiprocessings_fork_context_works_inside_and_outside_a_run() -> None:
    said = output_of(
        PREPARE
        + """
import multiprocessing
context = multiprocessing.get_context("fork")

def work(queue):
    queue.put(trio_uring.run(backend))

def start():
    queue = context.SimpleQueue()
    process = context.Process(target=work, args=[queue])
    process.start()
    print(queue.get())
    process.join()
    assert process.exitcode == 0

start()
async def main():
    await trio.to_thread.run_sync(start)
trio_uring.run(main)
"""
    )
    assert said == "io_uring\n" * 2


@pytest.mark.parametrize("end", ["closes", "crashes"])
def test_the_peer_sees_the_end_although_a_child_lives(end: str) -> None:
    """The child holds no copy of the socket but through the ring."""
    said = output_of(
        PREPARE
        + f"""
left, right = socket.socketpair()
left.set_inheritable(False)
stop, stopped = os.pipe()
pids = []

def child():
    left.close()
    os.close(stopped)
    os.write(1, b"child lives\\n")
    os.read(stop, 1)

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.wait_readable, left)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0)
        pids.append(fork(child))
        if {end == "crashes"}:
            raise KeyError
        trio.lowlevel.notify_closing(left)
        left.close()

try:
    trio_uring.run(main)
except BaseException:
    left.close()
right.settimeout(20)
assert right.recv(1) == b""
assert os.waitpid(pids[0], os.WNOHANG) == (0, 0)
os.write(1, b"the peer sees the end\\n")
os.close(stopped)
assert status_of(pids[0]) == 0
"""
    )
    assert sorted(said.splitlines()) == ["child lives", "the peer sees the end"]


@needs_completions  # without, a child that goes on would receive what is the parent's
@pytest.mark.parametrize("child", ["return", "os._exit(0)"])
def test_a_fork_while_a_tick_wakes_its_tasks(child: str) -> None:
    """The child goes on with the events that it finds, of which the ring is gone."""
    said = output_of(
        PREPARE
        + f"""
class Forks(trio.abc.Instrument):
    left = 3
    pids = []

    def task_scheduled(self, task):
        if not Forks.left or not active or os.getpid() != parent:
            return
        Forks.left -= 1
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            Forks.pids.append(pid)
        else:
            leave()

def leave():
    {child}

async def read(sock):
    results.append(await sock.recv(100_000))

async def main():
    pairs = [trio.socket.socketpair() for _ in range(40)]
    async with trio.open_nursery() as nursery:
        for left, right in pairs:
            nursery.start_soon(read, left)
            nursery.start_soon(trio.lowlevel.wait_readable, os.pipe()[0])
        await trio.testing.wait_all_tasks_blocked()
        for left, right in pairs:
            right._sock.send(bytes(10_000))
        active.append(True)
        with trio.move_on_after(30):
            while len(results) < 40:
                await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    return len(results)

active, results, parent = [], [], os.getpid()
try:
    ends = trio_uring.run(main, instruments=[Forks()])
except BaseException:
    assert os.getpid() != parent
if os.getpid() != parent:
    os._exit(len(rings()))
print("ends", ends, [status_of(pid) for pid in Forks.pids])
"""
    )
    assert said == "ends 40 [0, 0, 0]\n"
