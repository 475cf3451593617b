"""FIFOs: opening one returns when its other side is open, as open(2) does; who waits there may be
cancelled, and holds up no other file."""

from __future__ import annotations

import contextlib
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from equivalence import URING, descriptors_so_far, open_descriptors
from open_files import on_both

import trio_uring
from trio_uring import lowlevel, open_file
from trio_uring.loop.workers import ExtraWorker
from trio_uring.lowlevel import open_at

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from equivalence import Backend

    from trio_uring.loop.run import Run

MANY = 30
"""More than the kernel has workers, and more than it has for each CPU of most machines."""


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@on_both
def test_a_handshake_over_two_fifos(backend: Backend, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    os.mkfifo(there)
    os.mkfifo(back)

    def peer() -> None:
        with open(there, "wb", 0) as answers, open(back, "rb", 0) as questions:
            answers.write(b"answer to " + (questions.read(100) or b""))

    async def main() -> None:
        thread = threading.Thread(target=peer)
        thread.start()
        async with await open_file(there, "rb") as answers, await open_file(back, "wb", 0) as questions:
            await questions.write(b"question")
            assert await answers.read() == b"answer to question"
        await trio.to_thread.run_sync(thread.join)

    backend.run(main)


@on_both
def test_tasks_open_both_sides(backend: Backend, fifo: Path) -> None:
    async def write() -> None:
        async with await open_file(fifo, "w") as file:
            await file.write("data")

    async def main() -> None:
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                assert await trio_uring.Path(fifo).read_text() == "data"

    backend.run(main)


OPENINGS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "to read": lambda path: open_file(path, "rb"),
    "to write": lambda path: open_file(path, "wb"),
    "to append": lambda path: open_file(path, "a"),
    "read_bytes": lambda path: trio_uring.Path(path).read_bytes(),
    "write_bytes": lambda path: trio_uring.Path(path).write_bytes(b"x"),
    "openat to read": lambda path: lowlevel.openat(path, os.O_RDONLY),
    "openat to write": lambda path: lowlevel.openat(path, os.O_WRONLY),
}
every_opening = pytest.mark.parametrize("opening", OPENINGS)


@every_opening
def test_who_waits_for_the_other_side_may_be_cancelled(fifo: Path, opening: str) -> None:
    async def main() -> None:
        before = descriptors_so_far()
        with trio.CancelScope() as scope:

            async def stop() -> None:
                await trio.testing.wait_all_tasks_blocked(0.02)
                scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(stop)
                with pytest.raises(trio.Cancelled):
                    await OPENINGS[opening](fifo)
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert open_descriptors() == before
        # Nobody is left that would take the other side for the one that has gone.
        with pytest.raises(OSError, match="No such device"):
            os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)

    URING.run(main)


def test_a_cancelled_opening_lets_others_wait(fifo: Path) -> None:
    """It does not pretend to be the other side."""
    opened: list[str] = []

    async def read(name: str, scope: trio.CancelScope) -> None:
        with scope:
            file = await open_file(fifo, "rb")
            opened.append(name)
            assert await file.read() == b"data"
            await file.aclose()

    async def main() -> None:
        scopes = [trio.CancelScope() for _ in range(2)]
        async with trio.open_nursery() as nursery:
            for name, scope in zip("ab", scopes, strict=True):
                nursery.start_soon(read, name, scope)
            await trio.testing.wait_all_tasks_blocked(0.02)
            scopes[0].cancel()
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert opened == []
            await trio_uring.Path(fifo).write_bytes(b"data")
        assert opened == ["b"]

    URING.run(main)


@pytest.mark.parametrize("opening", ["to read", "to write"])
def test_many_that_wait_hold_up_no_other_file_and_no_thread(tmp_path: Path, opening: str) -> None:
    for number in range(MANY):
        os.mkfifo(tmp_path / str(number))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(MANY):
                nursery.start_soon(OPENINGS[opening], tmp_path / str(number))
            await trio.testing.wait_all_tasks_blocked(0.02)
            async with await open_file(tmp_path / "file", "w+b", 0) as file:
                assert await file.write(bytes(1 << 20)) == 1 << 20
                await file.fsync()
            assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
            assert await trio.to_thread.run_sync(os.getpid) == os.getpid()
            nursery.cancel_scope.cancel()

    URING.run(main)


def test_many_that_write_to_full_fifos_hold_up_no_other_file(tmp_path: Path) -> None:
    ends = []
    for number in range(MANY):
        os.mkfifo(tmp_path / str(number))
        ends.append(os.open(tmp_path / str(number), os.O_RDWR))

    async def write(path: Path) -> None:
        async with await open_file(path, "wb", 0) as file:
            while True:
                await file.write(bytes(1 << 20))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(MANY):
                nursery.start_soon(write, tmp_path / str(number))
            await trio.testing.wait_all_tasks_blocked(0.02)
            async with await open_file(tmp_path / "file", "wb", 0) as file:
                assert await file.write(bytes(1 << 20)) == 1 << 20
            nursery.cancel_scope.cancel()

    URING.run(main)
    for end in ends:
        os.close(end)


def test_a_writer_that_has_gone_again_was_there(fifo: Path) -> None:
    async def write_and_go(data: bytes) -> None:
        other = None
        while other is None:  # no such device: the kernel's worker has not come to open it yet
            await trio.testing.wait_all_tasks_blocked(0.001)
            with contextlib.suppress(OSError):
                other = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        with open(other, "wb", 0) as file:
            file.write(data)

    async def main() -> None:
        for data in (b"data", b""):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write_and_go, data)
                async with await open_file(fifo, "rb") as file:
                    assert await file.read() == data

    URING.run(main)


@pytest.mark.parametrize("mode", ["rb", "wb", "r+b", "ab"])
@pytest.mark.parametrize("kind", ["file", "fifo", "/dev/null", "/dev/ptmx"])
def test_what_was_opened_blocks_as_if_it_had_never_been_opened_otherwise(
    tmp_path: Path, kind: str, mode: str
) -> None:
    path = tmp_path / kind
    if kind == "file":
        path.touch()
    elif kind == "fifo":
        os.mkfifo(path)
    other = os.open(path, os.O_RDWR)

    async def main() -> None:
        async with await open_file(path, mode, 0) as file:
            assert os.get_blocking(file.fileno())

    if (kind, mode) != ("fifo", "r+b"):  # which `open` refuses: it has no position
        URING.run(main)
    os.close(other)


def test_a_file_whose_lease_is_to_be_broken_is_waited_for(tmp_path: Path) -> None:
    import fcntl
    import signal

    path = tmp_path / "file"
    path.write_bytes(b"data")
    holder = os.open(path, os.O_RDONLY)

    def let_go(*_: object) -> None:
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    before = signal.signal(signal.SIGIO, let_go)
    try:
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_RDLCK)

        async def main() -> None:
            async with await open_file(path, "r+b") as file:
                assert await file.read() == b"data"

        URING.run(main)
    finally:
        os.close(holder)
        signal.signal(signal.SIGIO, before)


def test_a_thread_that_has_opened_when_it_is_abandoned_leaves_nothing_open(
    fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As before Linux 5.15, where a thread opens a FIFO that has to wait."""
    has_ended = threading.Event()
    run_sync_soon = trio.lowlevel.TrioToken.run_sync_soon

    class NoWorker(ExtraWorker):
        def __init__(self, run: Run) -> None:
            super().__init__(run)
            self.has_worker = False

    def noticed(token: trio.lowlevel.TrioToken, *args: Any, **options: Any) -> None:
        run_sync_soon(token, *args, **options)
        has_ended.set()

    monkeypatch.setattr(open_at, "ExtraWorker", NoWorker)

    async def main() -> None:
        before = descriptors_so_far()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_file, fifo, "wb", 0)
            while not trio.testing.active_thread_count():
                await trio.sleep(0)
            monkeypatch.setattr(trio.lowlevel.TrioToken, "run_sync_soon", noticed)
            nursery.cancel_scope.cancel()
            reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
            assert has_ended.wait(60)
        os.close(reader)
        for _ in range(1000):
            if open_descriptors() == before:
                return
            await trio.sleep(0.01)
        raise AssertionError("a descriptor is left")

    URING.run(main)


@on_both
def test_errors_of_opening_are_those_of_the_standard_library(backend: Backend, tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))

        async def main() -> None:
            for name, mode in (("socket", "rb"), ("socket", "wb"), (".", "wb"), ("missing", "rb")):
                with pytest.raises(OSError) as expected:  # noqa: PT011
                    open(tmp_path / name, mode)  # noqa: SIM115
                with pytest.raises(OSError) as raised:  # noqa: PT011
                    await open_file(tmp_path / name, mode)
                assert raised.value.args == expected.value.args
                assert raised.value.filename == expected.value.filename

        backend.run(main)


def test_a_run_ends_that_has_crashed_while_it_opened(fifo: Path) -> None:
    async def main() -> None:
        trio.lowlevel.spawn_system_task(partial(open_file, fifo, "rb"))
        trio.lowlevel.spawn_system_task(partial(open_file, fifo, "wb", 0, opener=None))
        await trio.testing.wait_all_tasks_blocked(0.02)
        raise KeyError

    before = descriptors_so_far()
    with pytest.raises(KeyError):
        URING.run(main)
    assert open_descriptors() == before


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_a_thread_opens_for_a_run_that_has_crashed_is_closed(
    fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_open = threading.Event()
    os_open = os.open

    def noticed(path: Any, *args: Any, **options: Any) -> int:
        fd = os_open(path, *args, **options)
        is_open.set()
        return fd

    async def main() -> None:
        monkeypatch.setattr(os, "open", noticed)
        trio.lowlevel.spawn_system_task(open_file, fifo, "rb")
        while not trio.testing.active_thread_count():
            await trio.sleep(0)
        trio.lowlevel.current_task()._runner.runq.append("not a task")  # type: ignore[arg-type]
        await trio.sleep_forever()

    with pytest.raises(trio.TrioInternalError):
        trio.run(main)
    before = descriptors_so_far()
    os.close(os_open(fifo, os.O_WRONLY))
    assert is_open.wait(60)
    for _ in range(1000):
        if descriptors_so_far() == before:
            return
        threading.Event().wait(0.01)
    raise AssertionError("a descriptor is left")
