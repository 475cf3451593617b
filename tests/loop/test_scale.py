"""10,000 waiting tasks, and none at all: memory, wake-ups, and what idling costs.

Figures come from child processes and are printed (`pytest -s`). Only bounds that
no noise reaches decide: memory does not depend on time, and idling has a wide one.
"""

from __future__ import annotations

import json
import os
import resource

import pytest
from equivalence import python

WAITERS = """
import json, os, socket, statistics, sys, time, tracemalloc
import trio, trio_uring
from trio.lowlevel import wait_readable
from trio.testing import wait_all_tasks_blocked

backend, count, traced = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "traced"

def memory():
    if traced:
        return tracemalloc.get_traced_memory()[0]
    with open("/proc/self/statm") as file:  # without what is of files, which the kernel may take and bring
        _, resident, of_files, *_ = map(int, file.read().split())
    return (resident - of_files) * os.sysconf("SC_PAGE_SIZE")

async def wait_for_ever(fd):
    while True:
        await wait_readable(fd)
        os.eventfd_read(fd)
        woken.append(time.perf_counter())

woken = []

async def main():
    numbers = [os.eventfd(0) for _ in range(count)]
    async with trio.open_nursery() as nursery:
        for fd in numbers[:100]:  # what is made once is made
            nursery.start_soon(wait_for_ever, fd)
        await wait_all_tasks_blocked()
        before = memory()
        for fd in numbers[100:]:
            nursery.start_soon(wait_for_ever, fd)
        await wait_all_tasks_blocked()
        per_waiter = (memory() - before) / max(1, count - 100)
        costs = []
        for step in range(0 if traced else 2000):
            started = time.perf_counter()
            os.eventfd_write(numbers[step * 7919 % count], 1)
            while not woken:
                await trio.lowlevel.checkpoint()
            costs.append(woken.pop() - started)
        print(json.dumps({"bytes": per_waiter, "wake": statistics.median(costs or [0]) * 1e6}))
        nursery.cancel_scope.cancel()

if traced:
    tracemalloc.start()
(trio if backend == "epoll" else trio_uring).run(main)
"""


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize(("how", "count"), [("resident", 10_000), ("traced", 2_000)])
def test_waiting_task_takes_hardly_more_memory_than_on_epoll_and_can_be_woken(how: str, count: int) -> None:
    epoll, uring = (
        json.loads(python(WAITERS, backend, str(count), how)) for backend in ("epoll", "io_uring")
    )
    for name, seen in (("epoll", epoll), ("io_uring", uring)):
        print(
            f"{name}, {count:,} waiters: {how} {seen['bytes']:.0f} bytes each, woken in {seen['wake']:.1f} us"
        )
    assert uring["bytes"] <= 1.1 * epoll["bytes"]


AT_ONCE = """
import json, os, sys
import trio, trio.testing, trio_uring

count, off = int(sys.argv[1]), sys.argv[2:]
times_woken = [0] * count
turns = 0

async def wait(number, fd):
    await trio.lowlevel.wait_readable(fd)
    times_woken[number] += 1

def entered():
    return trio.lowlevel.current_statistics().io_statistics.entered

async def main():
    global turns
    numbers = [os.eventfd(0) for _ in range(count)]
    async with trio.open_nursery() as nursery:
        for number, fd in enumerate(numbers):
            nursery.start_soon(wait, number, fd)
        await trio.testing.wait_all_tasks_blocked(0.01)
        before = entered()
        for fd in numbers:
            os.eventfd_write(fd, 1)
        while sum(times_woken) < count:
            turns += 1
            await trio.sleep(0)
    print(json.dumps({"woken": sorted(set(times_woken)), "turns": turns, "entered": entered() - before}))

trio_uring.run(main, ring=trio_uring.RingOptions(features=dict.fromkeys(off, False)))
"""


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("off", [(), ("defer_taskrun",), ("defer_taskrun", "coop_taskrun", "taskrun_flag")])
def test_all_that_wake_at_once_are_woken_once_by_portions(off: tuple[str, ...]) -> None:
    """Many more than the queue of completions has room for, or the kernel works on at a time. The queue takes
    128; others have a turn after each portion, as on epoll they have not."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(most, 20_000) - 1000
    seen = json.loads(python(AT_ONCE, str(count), *off))
    print(f"{count:,} wake at once: {seen}")
    assert seen["woken"] == [1]
    assert seen["turns"] >= count / 128
    assert seen["entered"] <= count / 16


IDLE = """
import json, os, time, sys
import trio, trio_uring

def times():
    with open("/proc/stat") as file:
        iowait = int(file.readline().split()[5])
    used = os.times()
    return used.user + used.system, iowait / os.sysconf("SC_CLK_TCK")

async def main():
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, None, listeners)
        await trio.sleep(0.1)
        used, waited = times()
        await trio.sleep(1)
        used_after, waited_after = times()
        print(json.dumps({"used": used_after - used, "iowait": waited_after - waited}))
        nursery.cancel_scope.cancel()

(trio if sys.argv[1] == "epoll" else trio_uring).run(main)
"""


def test_idle_server_uses_no_processor() -> None:
    for backend in ("epoll", "io_uring"):
        idle = json.loads(python(IDLE, backend))
        print(f"{backend}, an idle second: {idle['used']:.2f} s used, {idle['iowait']:.2f} s iowait in all")
        assert idle["used"] < 0.3


def test_sleep_is_not_iowait_where_the_kernel_can_tell() -> None:
    """The machine's own figure is noise; that the ring was asked not to count is not."""
    code = """
import trio, trio_uring
async def main():
    return trio.lowlevel.current_statistics().io_statistics.flags
print(trio_uring.run(main))
"""
    version = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    if version < (6, 15):
        pytest.skip(f"Linux {os.uname().release} counts a sleeping ring as iowait")
    assert "'no_iowait'" in python(code, environment={"TRIO_URING_DISABLE": ""})
