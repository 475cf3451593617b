"""FdStreams: a receive after one that has emptied the pipe waits at once, and only of what poll and read
agree upon; whoever reads, writes, closes or cancels besides sees what he sees on epoll."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import pty
import subprocess
import sys
import termios
import threading
import tty
from typing import TYPE_CHECKING, Any

import outcome
import pytest
import trio
import trio.testing
from child_process import output_of
from equivalence import EPOLL, URING, Backend, every_backend, every_ring, io_statistics, without
from trio.lowlevel import FdStream
from trio.testing import wait_all_tasks_blocked

import trio_uring
from trio_uring import RingOptions

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_hanging")
both = pytest.mark.parametrize("backend", [EPOLL, URING], ids=["epoll", "io_uring"])


def fd_pipe() -> tuple[FdStream, FdStream]:
    """Reader and writer."""
    reader, writer = os.pipe()
    return FdStream(reader), FdStream(writer)


async def emptied_pipe() -> tuple[FdStream, FdStream]:
    """The same; the reader has received all that was in the pipe."""
    reader, writer = fd_pipe()
    await writer.send_all(b"all")
    assert await reader.receive_some() == b"all"
    return reader, writer


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of what our receives have read, -1 where they would have blocked."""
    lengths: list[int] = []
    os_read = os.read

    def read(fd: int, length: int) -> bytes:
        try:
            data = os_read(fd, length)
        except BlockingIOError:
            lengths.append(-1)
            raise
        lengths.append(len(data))
        return data

    monkeypatch.setattr(os, "read", read)
    return lengths


# The attempt that is left out


@every_ring
def test_an_emptied_pipe_is_not_read_before_something_comes(backend: Backend, reads: list[int]) -> None:
    async def main() -> None:
        reader, writer = await emptied_pipe()
        async with reader, writer, trio.open_nursery() as nursery:
            nursery.start_soon(receive, reader, b"more")
            await wait_all_tasks_blocked()
            await writer.send_all(b"more")

    async def receive(reader: FdStream, awaited: bytes) -> None:
        assert await reader.receive_some() == awaited

    backend.run(main)
    assert reads == [3, 4]


@every_ring
@pytest.mark.parametrize("most", [3, 4])
def test_who_has_not_emptied_the_pipe_reads_at_once(backend: Backend, most: int, reads: list[int]) -> None:
    """After a receive that got all it asked for there may be more; it costs an attempt if there is not."""

    async def main() -> None:
        reader, writer = fd_pipe()
        async with reader, writer:
            await writer.send_all(b"allmore")
            assert await reader.receive_some(3) == b"all"
            assert await reader.receive_some(most) == b"more"[:most]

    backend.run(main)
    assert reads == [3, most]


@both
def test_at_its_end_a_pipe_says_so_again_and_again(backend: Backend) -> None:
    async def main() -> None:
        reader, writer = await emptied_pipe()
        async with reader:
            await writer.aclose()
            for _ in range(3):
                with trio.testing.assert_checkpoints():
                    assert await reader.receive_some() == b""

    backend.run(main)


@both
def test_a_named_pipe_that_was_opened_when_nobody_wrote_is_at_its_end(
    backend: Backend, tmp_path: Path
) -> None:
    """Another reader has kept what was written before. poll(2) then says nothing of the end."""

    async def main() -> None:
        name = tmp_path / "fifo"
        os.mkfifo(name)
        keeper = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
        writer = os.open(name, os.O_WRONLY)
        os.write(writer, b"all")
        os.close(writer)
        async with FdStream(os.open(name, os.O_RDONLY | os.O_NONBLOCK)) as reader:
            assert await reader.receive_some() == b"all"
            assert await reader.receive_some() == b""
            assert await reader.receive_some() == b""
        os.close(keeper)

    backend.run(main)


@both
def test_a_pipe_that_is_opened_again_by_proc_is_at_its_end(backend: Backend) -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        os.write(writer, b"all")
        os.close(writer)
        async with FdStream(os.open(f"/proc/self/fd/{reader}", os.O_RDONLY | os.O_NONBLOCK)) as again:
            assert await again.receive_some() == b"all"
            assert await again.receive_some() == b""
        os.close(reader)

    backend.run(main)


@pytest.fixture
def terminal() -> tuple[int, int]:
    """A terminal that passes on what it gets, and says that it is ready from five bytes on."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    attributes = termios.tcgetattr(slave)
    attributes[6][termios.VMIN] = 5
    attributes[6][termios.VTIME] = 0
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    return master, slave


@both
def test_a_terminal_gives_less_than_it_says_that_it_is_ready_for(
    backend: Backend, terminal: tuple[int, int]
) -> None:
    async def main() -> None:
        master, slave = (FdStream(fd) for fd in terminal)
        async with master, slave:
            for _ in range(3):
                await master.send_all(b"ab")
                while bytes_in(slave.fileno()) < 2:
                    await trio.sleep(0.001)
                assert await slave.receive_some() == b"ab"
            await slave.send_all(b"back")
            answer = b""
            while len(answer) < 4:
                answer += await master.receive_some()
            assert answer == b"back"

    backend.run(main)


def bytes_in(fd: int) -> int:
    """How many bytes can be read now."""
    waiting = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, waiting)
    return waiting[0]


@both
def test_a_terminal_that_is_hung_up_breaks_the_stream(backend: Backend, terminal: tuple[int, int]) -> None:
    async def main() -> None:
        master, slave = (FdStream(fd) for fd in terminal)
        async with master:
            await slave.send_all(b"last")
            await slave.aclose()
            assert await master.receive_some() == b"last"
            with pytest.raises(trio.BrokenResourceError) as raised:
                await master.receive_some()
            assert isinstance(raised.value.__cause__, OSError)
            assert raised.value.__cause__.errno == errno.EIO

    backend.run(main)


@both
@pytest.mark.parametrize("name", ["/dev/null", "/dev/zero"])
def test_character_devices(backend: Backend, name: str) -> None:
    async def main() -> None:
        async with FdStream(os.open(name, os.O_RDWR)) as stream:
            for _ in range(3):
                await stream.send_all(b"x" * 100_000)
                assert await stream.receive_some(5) == (b"" if name == "/dev/null" else bytes(5))

    backend.run(main)


@every_ring
def test_who_was_woken_for_nothing_waits_on(backend: Backend, reads: list[int]) -> None:
    """Others have the same pipe, and were quicker."""

    async def main() -> None:
        reader, writer = await emptied_pipe()
        async with reader, writer, trio.open_nursery() as nursery:
            received: list[bytes] = []

            async def receive() -> None:
                received.append(await reader.receive_some())

            for awaited in (b"mine", b"also mine"):
                nursery.start_soon(receive)
                await wait_all_tasks_blocked()
                for _ in range(3):
                    os.write(writer.fileno(), b"theirs")
                    assert os.read(reader.fileno(), 10) == b"theirs"
                    await wait_all_tasks_blocked()
                    await wait_all_tasks_blocked()
                assert not received
                os.write(writer.fileno(), awaited)
                await wait_all_tasks_blocked(0.001)
                assert received.pop() == awaited

    backend.run(main)
    assert reads.count(-1) <= 2  # once for each receive, which is then confirmed by poll(2)


# Checkpoints


@every_backend
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_each_call_is_a_checkpoint(backend: Backend, size: int) -> None:
    async def main() -> None:
        reader, writer = fd_pipe()
        async with reader, writer:
            for _ in range(2):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send, writer)
                    received = 0
                    while received < size:
                        with trio.testing.assert_checkpoints():
                            received += len(await reader.receive_some())

    async def send(writer: FdStream) -> None:
        with trio.testing.assert_checkpoints():
            await writer.send_all(bytes(size))

    backend.run(main)


@every_backend
def test_a_call_that_is_cancelled_before_it_begins_does_nothing(backend: Backend) -> None:
    async def main() -> None:
        reader, writer = await emptied_pipe()
        async with reader, writer:
            with trio.CancelScope() as scope:
                scope.cancel()
                await writer.send_all(b"x")
            assert scope.cancelled_caught
            with pytest.raises(BlockingIOError):
                os.read(reader.fileno(), 1)
            os.write(writer.fileno(), b"y")
            with trio.CancelScope() as scope:
                scope.cancel()
                await reader.receive_some()
            assert scope.cancelled_caught
            assert await reader.receive_some() == b"y"

    backend.run(main)


@every_backend
def test_a_send_that_is_cancelled_in_its_first_step_has_sent_nothing(backend: Backend) -> None:
    """Trio's own writes after its checkpoint."""

    async def main() -> None:
        reader, writer = fd_pipe()
        async with reader, writer, trio.open_nursery() as nursery:
            for _ in range(10):  # in whichever order the two tasks come
                scope = trio.CancelScope()
                nursery.start_soon(send, writer, scope)
                await trio.lowlevel.cancel_shielded_checkpoint()
                scope.cancel()
                await wait_all_tasks_blocked()
                assert scope.cancelled_caught
            with pytest.raises(BlockingIOError):
                os.read(reader.fileno(), 1)

    async def send(writer: FdStream, scope: trio.CancelScope) -> None:
        with scope:
            await writer.send_all(b"x")

    backend.run(main)


def test_with_a_budget_calls_that_need_not_wait_go_on_without_a_yield(still_clock: None) -> None:
    async def main() -> list[int]:
        reader, writer = fd_pipe()
        task = trio.lowlevel.current_task()
        steps = []
        async with reader, writer:
            for _ in range(10):
                await writer.send_all(b"x")
                steps.append(task._schedule_points)
            for _ in range(10):
                assert await reader.receive_some(1) == b"x"
                steps.append(task._schedule_points)
        return [step - steps[0] for step in steps]

    with_budget = Backend("budget", RingOptions(checkpoint_budget=4)).run(main)
    assert with_budget == [(number + 1) // 5 for number in range(20)]
    assert URING.run(main) == list(range(20))


# Closing and cancelling


@every_backend
def test_who_waits_is_told_that_another_task_closes(backend: Backend) -> None:
    async def main() -> None:
        reader, writer = await emptied_pipe()
        async with writer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fails, reader)
                await wait_all_tasks_blocked()
                reader.close()
                assert reader.fileno() == -1
            with pytest.raises(BrokenPipeError):  # nothing keeps the reading side open
                os.write(writer.fileno(), b"x")

    async def fails(reader: FdStream) -> None:
        with pytest.raises(trio.ClosedResourceError, match=r"^another task closed this fd$"):
            await reader.receive_some()

    backend.run(main)


@every_backend
def test_a_descriptor_that_somebody_has_closed_below_is_closed(backend: Backend) -> None:
    async def main() -> None:
        reader, writer = await emptied_pipe()
        async with writer:
            os.close(reader.fileno())
            with pytest.raises(trio.ClosedResourceError, match=r"^file was already closed$"):
                await reader.receive_some()
            reader._fd_holder.fd = -1

    backend.run(main)


@every_backend
def test_after_a_cancelled_wait_nothing_keeps_the_pipe_open(backend: Backend) -> None:
    async def main() -> None:
        reader, writer = await emptied_pipe()
        async with writer:
            with trio.move_on_after(0.001) as scope:
                await reader.receive_some()
            assert scope.cancelled_caught
            os.close(reader.fileno())
            with pytest.raises(BrokenPipeError):
                os.write(writer.fileno(), b"x")
            reader._fd_holder.fd = -1

    backend.run(main)


@every_backend
def test_no_byte_is_lost_by_cancelled_receives(backend: Backend) -> None:
    size = 300_000

    async def main() -> None:
        reader, writer = fd_pipe()
        pattern = bytes(number * number % 251 for number in range(size))
        received = bytearray()
        async with reader, writer, trio.open_nursery() as nursery:
            nursery.start_soon(send, writer, pattern)
            while len(received) < size:
                with trio.CancelScope() as scope:
                    nursery.start_soon(cancel_soon, scope, len(received) % 3)
                    received += await reader.receive_some(1 + len(received) % 5000)
        assert received == pattern

    async def send(writer: FdStream, pattern: bytes) -> None:
        for start in range(0, size, 7001):
            await writer.send_all(pattern[start : start + 7001])

    async def cancel_soon(scope: trio.CancelScope, steps: int) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    backend.run(main)


@every_backend
def test_a_bytearray_cannot_be_resized_while_it_is_sent(backend: Backend) -> None:
    async def main() -> None:
        reader, writer = fd_pipe()
        data = bytearray(200_000)
        async with reader, writer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.send_all, data)
                await wait_all_tasks_blocked()
                with pytest.raises(BufferError):
                    data.append(0)
                received = 0
                while received < 200_000:
                    received += len(await reader.receive_some())
            data.append(0)

    backend.run(main)


# Runs


def test_a_stream_serves_one_run_after_another_and_runs_on_epoll() -> None:
    reader, writer = fd_pipe()

    async def main() -> None:
        for _ in range(2):
            await writer.send_all(b"all")
            assert await reader.receive_some() == b"all"

    for backend in (URING, EPOLL, URING, Backend("off", without("pipes")), EPOLL, URING):
        backend.run(main)


def test_outside_of_a_run_the_error_is_trios() -> None:
    reader, writer = fd_pipe()

    async def use_it() -> None:
        await writer.send_all(b"all")
        await reader.receive_some()

    URING.run(use_it)
    with trio_uring.installed():
        calls: list[Any] = [reader.receive_some(), writer.send_all(b"x")]
        for call in calls:
            call.send(None)  # Trio's own yields first
            with pytest.raises(RuntimeError, match="must be called from async context"):
                call.send(outcome.Value(None))


def test_the_feature_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def flags() -> tuple[bool, bool]:
        reader, writer = await emptied_pipe()
        async with reader, writer:
            return "pipes" in io_statistics().flags, hasattr(reader, "_uring_pipe")

    assert URING.run(flags) == (True, True)
    assert Backend("off", without("pipes")).run(flags) == (False, False)
    monkeypatch.setenv("TRIO_URING_DISABLE", "pipes")
    assert URING.run(flags) == (False, False)
    (row,) = (row for row in trio_uring.capabilities().features if row.name == "pipes")
    assert row.state == "off"


def test_a_forked_child_cannot_wait_in_the_parents_run() -> None:
    said = output_of(
        """
        import os, warnings, trio, trio_uring
        warnings.simplefilter("ignore")

        async def main():
            reader, writer = map(trio.lowlevel.FdStream, os.pipe())
            await writer.send_all(b"all")
            assert await reader.receive_some() == b"all"
            pid = os.fork()
            if not pid:
                try:
                    await reader.receive_some()
                except RuntimeError as error:
                    print(error, flush=True)
                os._exit(0)
            os.waitpid(pid, 0)
            await writer.send_all(b"still the parent's")
            print(await reader.receive_some())

        trio_uring.run(main)
        """
    )
    assert said == (
        "this Trio run belongs to the parent process; the child cannot wait for I/O in it\n"
        'b"still the parent\'s"\n'
    )


# Processes

ECHO = """
import sys
while data := sys.stdin.buffer.raw.read(65536):
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
sys.stderr.write("bye")
"""


@every_backend
def test_a_childs_standard_streams(backend: Backend) -> None:
    async def main() -> None:
        sent = bytes(number * number % 251 for number in range(300_000))
        command = [sys.executable, "-c", ECHO]
        done = await trio.run_process(command, stdin=sent, capture_stdout=True, capture_stderr=True)
        assert (done.stdout, done.stderr, done.returncode) == (sent, b"bye", 0)

    backend.run(main)


@every_backend
def test_a_conversation_with_a_child(backend: Backend) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            process = await nursery.start(start_cat)
            assert process.stdin is not None
            assert process.stdout is not None
            for number in range(20):
                await process.stdin.send_all(b"%d" % number)
                assert await process.stdout.receive_some() == b"%d" % number
            await process.stdin.aclose()
            assert await process.stdout.receive_some() == b""

    async def start_cat(task_status: Any) -> None:
        await trio.run_process(
            ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, task_status=task_status
        )

    backend.run(main)


@every_backend
def test_a_thread_at_the_other_side(backend: Backend) -> None:
    async def main() -> None:
        reader, writer = fd_pipe()
        far_reader, far_writer = os.pipe()

        def echo() -> None:
            os.set_blocking(reader.fileno(), True)
            while data := os.read(reader.fileno(), 65536):
                os.write(far_writer, data)
            os.close(far_writer)

        thread = threading.Thread(target=echo)
        thread.start()
        async with writer, FdStream(far_reader) as back:
            for _ in range(50):
                await writer.send_all(b"question")
                assert await back.receive_some() == b"question"
            await writer.aclose()
            assert await back.receive_some() == b""
        thread.join()
        reader.close()

    backend.run(main)


# What others put in the place of what Trio calls


@both
def test_what_replaces_a_function_that_trio_calls_is_called(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: set[str] = set()

    def replace(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def replacement(*arguments: Any) -> Any:
            called.add(name)
            return original(*arguments)

        monkeypatch.setattr(owner, name, replacement)

    async def receive(reader: FdStream) -> None:
        await reader.receive_some()

    async def main() -> None:
        reader, writer = await emptied_pipe()
        for owner, name in (
            (os, "read"),
            (os, "write"),
            (trio.lowlevel, "wait_readable"),
            (trio.lowlevel, "wait_writable"),
        ):
            replace(owner, name)
        async with reader, writer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive, reader)
                await wait_all_tasks_blocked()
                await writer.send_all(b"x")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.send_all, bytes(1 << 20))
                left = 1 << 20
                while left:
                    left -= len(await reader.receive_some())
        assert called == {"read", "write", "wait_readable", "wait_writable"}

    backend.run(main)
