"""`run_statistics`: the runs of a process, looked at from outside of them."""

from __future__ import annotations

import os
import threading
from functools import partial

import pytest
import trio

import trio_uring
from trio_uring import RingOptions


def test_there_are_none_without_a_run() -> None:
    assert trio_uring.run_statistics() == ()
    trio_uring.run(trio.sleep, 0)
    assert trio_uring.run_statistics() == ()


def test_run_tells_of_itself_what_trio_tells_and_the_size_of_its_ring() -> None:
    async def main() -> None:
        (found,) = trio_uring.run_statistics()
        within = trio.lowlevel.current_statistics().io_statistics
        assert isinstance(within, trio_uring.UringStatistics)
        names = "entries", "cq_entries", "flags", "tasks_waiting_read", "entered"
        assert [getattr(found, name) for name in names] == [getattr(within, name) for name in names]
        assert (found.entries, found.cq_entries) == (16, 512)

    trio_uring.run(main, ring=RingOptions(entries=16, cq_entries=512))


def test_all_runs_are_seen_from_any_thread() -> None:
    async def nested() -> tuple[int, ...]:
        return tuple(run.entries for run in trio_uring.run_statistics())

    async def main() -> None:
        sizes = await trio.to_thread.run_sync(lambda: trio_uring.run(nested, ring=RingOptions(entries=8)))
        assert sizes == (64, 8)
        found = await trio.to_thread.run_sync(trio_uring.run_statistics)
        assert [run.entries for run in found] == [64]

    trio_uring.run(main)


def test_runs_on_epoll_are_none_of_ours() -> None:
    async def main() -> int:
        return len(trio_uring.run_statistics())

    assert trio.run(main) == 0


def test_they_may_be_asked_for_while_runs_come_work_and_go() -> None:
    stop = threading.Event()
    failures: list[BaseException] = []
    seen: set[int] = set()

    def watch() -> None:
        try:
            while not stop.is_set():
                for run in trio_uring.run_statistics():
                    seen.add(run.tasks_waiting_read)
        except BaseException as error:
            failures.append(error)

    async def echo(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), echo, 0)
            port = listener.socket.getsockname()[1]
            for _ in range(20):
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    for _ in range(5):
                        await stream.send_all(b"x")
                        assert await stream.receive_some() == b"x"
            nursery.cancel_scope.cancel()

    watchers = [threading.Thread(target=watch) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(10):
            trio_uring.run(main)
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join()
    assert not failures
    assert len(seen) > 1
    assert trio_uring.run_statistics() == ()


def test_guest_run_is_one_of_them() -> None:
    import asyncio

    async def main() -> int:
        await trio.sleep(0)
        return len(trio_uring.run_statistics())

    async def host() -> int:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        trio_uring.start_guest_run(
            main, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
        )
        return int((await done).unwrap())

    assert asyncio.run(host()) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_forked_child_has_not_its_parents() -> None:
    async def main() -> int:
        pid = os.fork()
        if not pid:
            os._exit(len(trio_uring.run_statistics()))
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)

    assert trio_uring.run(main) == 0
