"""Calls on files that are cancelled: nothing that was read or written is lost, and nothing of a
cancelled scope happens.
"""

from __future__ import annotations

import fcntl
import os
import random
import termios
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from equivalence import PATIENCE, URING, Backend
from open_files import CALLS, KINDS, every_kind, of, on_both, over

from trio_uring import open_file
from trio_uring.files.async_file import Turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


async def cancelled_in(call: Callable[[], Awaitable[object]], when: Callable[[], bool]) -> bool:
    """Cancels a call once nothing more can happen in it and ``when`` is true; whether it raised Cancelled."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                while not when():
                    await trio.lowlevel.checkpoint()
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()

            nursery.start_soon(stop)
            await call()
            nursery.cancel_scope.cancel()
    return scope.cancelled_caught


def pipe_is_empty(fd: int) -> bool:
    return fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4) == b"\0" * 4


@every_kind
@pytest.mark.parametrize("call", CALLS)
def test_what_a_cancelled_read_had_read_is_read_again(pipe: tuple[int, int], kind: str, call: str) -> None:
    if (kind, call) in {("raw", "read"), ("raw", "readinto"), ("text", "readinto")}:
        pytest.skip("one transfer, which happens or does not, or no such method")
    reader, writer = pipe
    lines = [b"one\n", b"two\n", b"three, which is longer than the buffer", b" and not over"]
    data = b"".join(lines) if call in ("read all", "readlines", "read", "readinto") else b"".join(lines[2:])

    async def main() -> None:
        file = await over(reader, kind)
        os.write(writer, data)
        assert await cancelled_in(lambda: CALLS[call](file), lambda: pipe_is_empty(reader))
        os.write(writer, b"!\n")
        os.close(writer)
        assert await file.read() == of(kind, data + b"!\n")

    URING.run(main)


@every_kind
def test_reads_that_are_cancelled_at_random_moments_lose_nothing(pipe: tuple[int, int], kind: str) -> None:
    reader, writer = pipe
    text = "".join(f"{number} \u20ac\n" for number in range(300)).encode()
    chance = random.Random(1)

    async def main() -> None:
        file = await over(reader, kind)
        got: list[Any] = []
        async with trio.open_nursery() as nursery:

            async def feed() -> None:
                rest = text
                while rest:
                    size = chance.randrange(1, 40)
                    rest = rest[os.write(writer, rest[:size]) :]
                    for _ in range(chance.randrange(4)):
                        await trio.lowlevel.checkpoint()
                os.close(writer)

            nursery.start_soon(feed)
            while True:
                scope = trio.CancelScope()

                async def stop(scope: trio.CancelScope = scope) -> None:
                    for _ in range(chance.randrange(6)):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(stop)
                with scope:
                    size = chance.randrange(1, 50)
                    call = chance.choice([file.read, file.readline])
                    got.append(await call(size))
                    if not got[-1]:
                        break
        assert of(kind, b"").join(got) == of(kind, text)

    URING.run(main)


def test_what_a_cancelled_flush_had_not_written_is_written_later(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    data = bytes(range(256)) * 1024

    async def main() -> None:
        file = await open_file(writer, "wb", len(data) + 1, closefd=False)
        await file.write(data)
        assert await cancelled_in(file.flush, lambda: not pipe_is_empty(reader))
        got = os.read(reader, len(data))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.aclose)
            async with await open_file(reader, "rb", 0, closefd=False) as other:
                while len(got) < len(data):
                    got += await other.read(len(data)) or b""
        assert got == data

    URING.run(main)


@pytest.mark.parametrize("buffered", [b"", b"x"], ids=["empty", "filled"])
def test_a_large_write_that_is_cancelled_half_way_is_completed_later(
    pipe: tuple[int, int], buffered: bytes
) -> None:
    reader, writer = pipe
    data = bytes(range(256)) * 1024

    async def main() -> None:
        file = await open_file(writer, "wb", 16, closefd=False)
        await file.write(buffered)
        assert not await cancelled_in(lambda: file.write(data), lambda: not pipe_is_empty(reader))
        got = os.read(reader, len(data))
        assert 0 < len(got) < len(data)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.aclose)
            async with await open_file(reader, "rb", 0, closefd=False) as other:
                while len(got) < len(buffered + data):
                    got += await other.read(len(data)) or b""
        assert got == buffered + data

    URING.run(main)


def test_a_write_that_is_cancelled_before_its_start_has_not_happened(pipe: tuple[int, int]) -> None:
    reader, writer = pipe

    async def main() -> None:
        os.set_blocking(writer, False)
        filled = os.write(writer, bytes(1 << 20))
        os.set_blocking(writer, True)
        file = await open_file(writer, "wb", 16, closefd=False)
        await file.write(b"kept")
        assert await cancelled_in(lambda: file.write(bytes(100)), lambda: True)
        assert os.read(reader, filled) == bytes(filled)
        await file.aclose()
        assert os.read(reader, 1000) == b"kept"

    URING.run(main)


@on_both
@pytest.mark.parametrize(("mode", "buffering"), [("rb", 0), ("rb", -1), ("r+b", -1), ("r", -1), ("r+", -1)])
def test_no_call_of_a_cancelled_scope_happens(
    backend: Backend, tmp_path: Path, mode: str, buffering: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\n" * 10)

    async def main() -> None:
        async with await open_file(path, mode, buffering) as file:
            await file.readline()
            before = await file.tell()
            calls: list[Callable[[], Awaitable[object]]] = [
                *(lambda call=call: CALLS[call](file) for call in CALLS if call != "readinto" or "b" in mode),
                file.tell,
                file.flush,
                lambda: file.seek(0),
                lambda: file.seek(0, 2),
            ]
            if "+" in mode:
                calls += [lambda: file.write(b"xx" if "b" in mode else "xx"), lambda: file.truncate(3)]
            for call in calls:
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await call()
                assert scope.cancelled_caught
                assert await file.tell() == before
            assert await file.readline() == (b"two\n" if "b" in mode else "two\n")
        assert path.read_bytes() == b"one\ntwo\n" * 10

    backend.run(main)


@every_kind
def test_calls_on_a_file_that_are_cancelled_at_random_moments_leave_its_position(
    tmp_path: Path, kind: str
) -> None:
    chance = random.Random(4)
    path = tmp_path / "file"
    lines = [f"{number} \u20ac {'x' * chance.randrange(300)}\n" for number in range(5000)]
    path.write_text("".join(lines), encoding="utf-8")
    outcomes = set()

    def drop_some() -> None:
        with path.open("r+b") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), chance.randrange(1 << 19), 1 << 18, os.POSIX_FADV_DONTNEED)

    async def main() -> None:
        mode, buffering = KINDS[kind]
        arguments = {"encoding": "utf-8"} if kind == "text" else {}
        got: list[Any] = []
        async with await open_file(path, mode, buffering, **arguments) as file:
            while not got or got[-1]:
                drop_some()
                before = await file.tell()
                scope = trio.CancelScope()
                if not chance.randrange(4):
                    scope.cancel()

                async def stop(scope: trio.CancelScope = scope) -> None:
                    for _ in range(chance.randrange(6)):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stop)
                    with scope:
                        call = chance.choice([file.read, file.readline, file.read])
                        got.append(await call(chance.choice([10, 5000, 100_000])))
                outcomes.add(scope.cancelled_caught)
                if scope.cancelled_caught:
                    assert await file.tell() == before
            with trio.CancelScope() as scope:
                scope.cancel()
                await file.readlines()
        assert of(kind, b"").join(got) == of(kind, "".join(lines).encode())

    URING.run(main)
    assert outcomes == {True, False}


@on_both
@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_unbuffered_writes_that_are_cancelled_have_happened_or_not(
    backend: Backend, tmp_path: Path, mode: str
) -> None:
    chance = random.Random(5)
    path = tmp_path / "file"
    accepted: list[bytes] = []

    async def main() -> None:
        async with await open_file(path, mode, 0) as file:
            for number in range(100):
                data = bytes([number]) * chance.choice([10, 20_000, 2 << 20])
                scope = trio.CancelScope()

                async def stop(scope: trio.CancelScope = scope) -> None:
                    for _ in range(chance.randrange(5)):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stop)
                    with scope:
                        accepted.append(data[: await file.write(data)])
                assert await file.tell() == path.stat().st_size == sum(map(len, accepted))

    backend.run(main)
    assert path.read_bytes() == b"".join(accepted)


@pytest.mark.parametrize("hint", [-1, 100_000])
def test_readlines_that_is_cancelled_has_read_nothing(tmp_path: Path, hint: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\n" * 30_000)

    async def main() -> None:
        for mode, ticks in (("r", 3), ("r", 10), ("rb", 3), ("rb", 10)):
            async with await open_file(path, mode, 1000) as file:
                await file.readline()
                before = await file.tell()
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:

                        async def stop(scope: trio.CancelScope = scope, ticks: int = ticks) -> None:
                            for _ in range(ticks):
                                await trio.lowlevel.checkpoint()
                            scope.cancel()

                        nursery.start_soon(stop)
                        await file.readlines(hint)
                assert scope.cancelled_caught
                assert await file.tell() == before
                assert len(await file.read()) == 240_000 - 4

    URING.run(main)


class InterruptedTurns(Turns):
    """A file's turns, where a signal handler raises once as somebody has got one."""

    rings = True
    has_turn: Any = None

    @property
    def holder(self) -> Any:
        return self.has_turn

    @holder.setter
    def holder(self, task: Any) -> None:
        self.has_turn = task
        if task is not None and self.rings:
            self.rings = False
            raise InterruptedError


@on_both
@pytest.mark.parametrize("call", ["tell", "fsync", "aclose"])
def test_a_call_that_a_signal_handler_ends_as_it_gets_its_turn_does_not_keep_it(
    backend: Backend, tmp_path: Path, call: str
) -> None:
    async def main() -> None:
        for mode in ("w", "wb"):
            file = await open_file(tmp_path / "file", mode)
            await file.write(of("text" if mode == "w" else "buffered", b"data"))
            file._turns = InterruptedTurns(file._position)

            async def interrupted_call(file: Any = file) -> None:
                with pytest.raises(InterruptedError):
                    await getattr(file, call)()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(interrupted_call)
            with trio.fail_after(PATIENCE):  # from another task
                if call != "aclose":
                    await file.flush()
            await file.aclose()
            assert (tmp_path / "file").read_bytes() == b"data"

    backend.run(main)
