"""The tasks that a tick wakes: Trio's `reschedule` is done in its place, and nobody may notice."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
from equivalence import URING, Backend, every_backend, io_statistics
from trio._core import _run as trio_run
from trio.lowlevel import wait_readable
from trio.testing import wait_all_tasks_blocked

import trio_uring


class Wakings(trio.abc.Instrument):
    def __init__(self) -> None:
        self.tasks: list[str] = []

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        self.tasks.append(task.name)


async def a_reader(sock: socket.socket) -> None:
    await wait_readable(sock)


async def a_receiver(stream: trio.SocketStream) -> None:
    assert await stream.receive_some() == b"x"


async def wake_each() -> None:
    """A task that waits to read, and one that receives."""
    near, far = trio.socket.socketpair()
    sock, peer = socket.socketpair()
    with near, far, sock, peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a_reader, sock)
            nursery.start_soon(a_receiver, trio.SocketStream(near))
            await wait_all_tasks_blocked()
            peer.send(b"x")
            await far.send(b"x")


def names_of(tasks: list[str]) -> list[str]:
    return sorted(name.rpartition(".")[2] for name in tasks if ".a_re" in name)


@every_backend
def test_an_instrument_hears_of_each_task_that_is_woken(backend: Backend) -> None:
    wakings = Wakings()

    async def main() -> None:
        for _ in range(2):  # it may come when the run has begun, and go
            await wake_each()
            trio.lowlevel.add_instrument(wakings)
            await wake_each()
            trio.lowlevel.remove_instrument(wakings)

    backend.run(main)
    # Once each as it starts, and once as it is woken.
    assert names_of(wakings.tasks) == 4 * ["a_reader"] + 4 * ["a_receiver"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[trio.lowlevel.Task]:
    """What a `reschedule` that does more, by no name that Trio's does not use, was called with."""
    tasks: list[trio.lowlevel.Task] = []
    original: Any = trio_run.Runner.reschedule

    def reschedule(self: trio_run.Runner, task: trio.lowlevel.Task, *args: Any) -> None:
        original(self, task, *args)
        tasks.append(task)

    monkeypatch.setattr(trio_run.Runner, "reschedule", reschedule)
    return tasks


def test_a_reschedule_that_does_more_than_is_known_is_called(calls: list[trio.lowlevel.Task]) -> None:
    URING.run(wake_each)
    assert names_of([task.name for task in calls]) == ["a_reader", "a_reader", "a_receiver", "a_receiver"]


def test_reschedule_is_known_on_every_trio_and_python_that_is_supported() -> None:
    """If this fails, a newer Trio has another one, and `wake` of native/python has to learn it."""

    async def main() -> bool:
        return io_statistics().knows_reschedule

    assert URING.run(main)
    assert trio_uring.capabilities().knows_reschedule


def test_statistics_say_that_reschedule_is_called(calls: list[trio.lowlevel.Task]) -> None:
    async def main() -> bool:
        return io_statistics().knows_reschedule

    assert not URING.run(main)
    assert not trio_uring.capabilities().knows_reschedule
    assert calls
