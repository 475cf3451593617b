"""What the standard library has no word on: several tasks, threads, descriptors.

That the calls do what they do in the standard library is for tests/oracle to prove.
"""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import os
import pty
import resource
import threading
import tracemalloc
import tty
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from equivalence import URING, Backend, descriptors_so_far, open_descriptors
from open_files import CALLS, KINDS, every_kind, of, on_both

import trio_uring
from trio_uring import open_file
from trio_uring.ring.features import has_operation

if TYPE_CHECKING:
    from pathlib import Path


@on_both
def test_every_call_is_a_checkpoint(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\n" * 100)

    async def check(mode: str, buffering: int) -> None:
        with trio.testing.assert_checkpoints():
            file = await open_file(path, mode, buffering)
        data: Any = b"x" if "b" in mode else "x"
        calls = [file.tell, *(lambda call=call: CALLS[call](file) for call in ("next", "readline"))]
        calls += [lambda: file.seek(0), lambda: file.read(1), lambda: file.read(0), lambda: file.readline(0)]
        if "b" in mode:
            calls += [lambda: file.readinto(bytearray(3)), lambda: file.readinto(bytearray())]
            if buffering:
                calls += [file.peek, lambda: file.read1(2), lambda: file.readinto1(bytearray(2))]
        if file.writable():
            calls += [
                *(lambda size=size: file.write(data * size) for size in (1, 0, 6, 7, 8)),
                lambda: file.writelines([]),
                lambda: file.truncate(900),
            ]
        calls += [lambda: file.seek(0, 2), file.flush, file.read, file.readlines]
        for call in calls:
            with contextlib.suppress(StopAsyncIteration), trio.testing.assert_checkpoints():
                await call()
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                await file.aclose()

    async def main() -> None:
        for mode, buffering in [("r+b", 0), ("r+b", -1), ("r+", -1), ("rb", 7), ("w+b", 7)]:
            await check(mode, buffering)

    backend.run(main)


@on_both
def test_aclose_that_is_cancelled_writes_and_closes(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        for mode, data in (("wb", b"data"), ("w", "data")):
            file = await open_file(path, mode)
            await file.write(data)
            fd = file.fileno()
            with trio.CancelScope() as scope:
                scope.cancel()
                await file.aclose()
            assert scope.cancelled_caught
            assert file.closed
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
            assert path.read_bytes() == b"data"

    backend.run(main)


@on_both
def test_a_failing_last_write_closes_all_the_same(backend: Backend) -> None:
    async def main() -> None:
        file = await open_file("/dev/full", "wb")
        await file.write(b"data")
        with pytest.raises(OSError, match="No space left"):
            await file.aclose()
        assert file.closed
        await file.aclose()

    backend.run(main)


def test_closing_waits_for_the_call_of_another_task(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    seen: list[object] = []

    async def main() -> None:
        file = await open_file(reader, "rb", closefd=False)

        async def read() -> None:
            seen.append(await file.read(4))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(file.aclose)
            await trio.testing.wait_all_tasks_blocked()
            assert not file.closed
            os.write(writer, b"data")
        assert file.closed

    URING.run(main)
    assert seen == [b"data"]


@on_both
@every_kind
def test_tasks_that_share_a_file_share_out_its_lines(backend: Backend, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    lines = [f"{number}\n".encode() for number in range(200)]
    path.write_bytes(b"".join(lines))
    got: list[Any] = []

    async def main() -> None:
        mode, buffering = KINDS[kind]
        async with await open_file(path, mode, buffering) as file, trio.open_nursery() as nursery:

            async def read() -> None:
                while line := await file.readline():
                    got.append(line)

            for _ in range(5):
                nursery.start_soon(read)

    backend.run(main)
    assert sorted(got) == sorted(of(kind, line) for line in lines)


@on_both
def test_tasks_that_share_a_file_write_whole_pieces(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        async with await open_file(path, "wb", 16) as file, trio.open_nursery() as nursery:

            async def write(letter: bytes) -> None:
                for size in range(1, 30):
                    await file.write(letter * size + b"\n")

            for letter in (b"a", b"b", b"c"):
                nursery.start_soon(write, letter)

    backend.run(main)
    expected = [letter * size for letter in (b"a", b"b", b"c") for size in range(1, 30)]
    assert sorted(path.read_bytes().split()) == sorted(expected)


def test_calls_start_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = set(threading.enumerate())

    async def main() -> None:
        for mode, buffering in (("w+b", 0), ("w+b", -1), ("w+", -1)):
            data: Any = b"line\n" if "b" in mode else "line\n"
            async with await open_file(path, mode, buffering) as file:
                await file.write(data * 10_000)
                await file.writelines([data] * 3)
                await file.flush()
                await file.seek(0)
                await file.readline()
                await file.read(10_000)
                await file.read()
                await file.seek(0)
                assert len([line async for line in file]) == 10_003
                if has_operation("ftruncate"):
                    await file.truncate(10)
        assert set(threading.enumerate()) <= before

    URING.run(main)


@on_both
@pytest.mark.parametrize("mode", ["wb", "w", "ab+"])
def test_a_file_that_was_thrown_away_is_written_and_closed_with_a_warning(
    backend: Backend, tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        gc.collect()
        before = descriptors_so_far()
        file = await open_file(path, mode)
        await file.write(b"data" if "b" in mode else "data")
        with pytest.warns(ResourceWarning, match="unclosed file"):  # noqa: PT031
            del file
            gc.collect()
        assert open_descriptors() == before
        assert path.read_bytes() == b"data"

    backend.run(main)


def test_a_cancelled_open_leaves_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)

    async def main() -> None:
        before = descriptors_so_far()
        for cancel_first in (True, False):
            with trio.CancelScope() as scope:
                if cancel_first:
                    scope.cancel()
                async with trio.open_nursery() as nursery:

                    async def stop(scope: trio.CancelScope = scope) -> None:
                        await trio.testing.wait_all_tasks_blocked()
                        scope.cancel()

                    nursery.start_soon(stop)
                    await open_file(path, "w")  # there is nobody to read
            assert scope.cancelled_caught
        assert open_descriptors() == before

    URING.run(main)


@on_both
def test_opening_a_named_pipe_waits_for_the_other_side(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    got: list[str] = []

    async def read() -> None:
        async with await open_file(path) as file:
            got.append(await file.read())

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            async with await open_file(path, "w") as file:
                await file.write("data")

    backend.run(main)
    assert got == ["data"]


def test_a_crash_with_a_read_in_flight_corrupts_nothing(pipe: tuple[int, int]) -> None:
    reader, writer = pipe

    async def main() -> None:
        file = await open_file(reader, "rb", 16, closefd=False)
        trio.lowlevel.spawn_system_task(file.read, 1 << 20)
        await trio.testing.wait_all_tasks_blocked()
        raise KeyError

    with pytest.raises(KeyError):
        URING.run(main)
    os.write(writer, b"for the next reader")
    assert os.read(reader, 100) == b"for the next reader"


@on_both
@pytest.mark.parametrize(
    ("mode", "buffering"), [("rb", 0), ("wb", 0), ("rb", -1), ("wb", -1), ("r+b", -1), ("r", -1), ("w", -1)]
)
def test_a_file_has_the_names_of_trios(backend: Backend, tmp_path: Path, mode: str, buffering: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")

    async def main() -> None:
        async with (
            await open_file(path, mode, buffering) as ours,
            await trio.open_file(path, mode, buffering) as trios,
        ):
            assert public(ours) - {"pread", "pread_into", "pwrite", "fsync", "fdatasync"} == public(trios)
            for name in public(trios) - {"wrapped", "buffer", "raw"}:
                value = getattr(trios, name)
                assert callable(getattr(ours, name)) == callable(value)
                if not callable(value):
                    assert getattr(ours, name) == value
            for name in ("fileno", "nothing"):
                assert hasattr(ours, name) == hasattr(trios, name)

    def public(file: object) -> set[str]:
        return {name for name in dir(file) if not name.startswith("_")}

    backend.run(main)


@on_both
def test_positions_beyond_4_gib(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        for buffering in (0, -1):
            async with await open_file(path, "w+b", buffering) as file:
                await file.seek(5 << 30)
                await file.write(b"far")
                assert await file.tell() == (5 << 30) + 3
                await file.seek(-3, 2)
                assert await file.read() == b"far"
                await file.truncate((4 << 30) + 1)
                await file.seek(1 << 32)
                assert await file.read(2) == b"\0"

    backend.run(main)


@on_both
@pytest.mark.parametrize("mode", ["wb", "ab"])
@pytest.mark.parametrize("buffering", [0, 16])
def test_a_write_that_falls_short_moves_the_position_as_far(
    backend: Backend, tmp_path: Path, mode: str, buffering: int
) -> None:
    if buffering and backend is URING:
        pytest.skip("it is written behind, and so test_write_behind.py's")
    path = tmp_path / "file"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def main() -> None:
        async with await open_file(path, mode, buffering) as file:
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
            try:
                await file.write(b"a" * 4000)
                with pytest.raises(OSError, match="File too large"):  # noqa: PT012
                    assert await file.write(b"b" * 4000) == 1000
                    await file.write(b"c" * 4000)
                assert await file.tell() == 5000
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == b"a" * 4000 + b"b" * 1000

    backend.run(main)


@on_both
def test_a_buffer_can_be_resized_after_a_failure(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"data")

    async def main() -> None:
        for buffering in (0, -1):
            buffer = bytearray(10_000)
            async with await open_file(path, "rb", buffering) as file:
                scope = trio.CancelScope()
                with scope:
                    scope.cancel()
                    try:
                        await file.readinto(buffer)
                    except BaseException:
                        buffer.append(0)
                        raise
                assert scope.cancelled_caught

    backend.run(main)


@on_both
def test_files_that_are_no_files(backend: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        async with await open_file("/proc/self/status") as file:
            assert "Name:" in await file.read()
        async with await open_file("/dev/zero", "rb") as file:
            assert await file.read(100_000) == bytes(100_000)
        async with await open_file(os.devnull, "r+b", 0) as file:
            assert await file.write(b"gone") == 4
            assert await file.read(10) == b""
        for path in (tmp_path, tmp_path / "missing"):
            with pytest.raises(OSError) as expected:  # noqa: PT011
                open(path)  # noqa: SIM115
            with pytest.raises(type(expected.value)) as raised:
                await open_file(path)
            assert raised.value.args == expected.value.args
            assert raised.value.filename == expected.value.filename

    backend.run(main)


@on_both
def test_a_terminal_is_read_line_by_line(backend: Backend) -> None:
    master, slave = pty.openpty()
    tty.setcbreak(slave)

    async def main() -> None:
        async with await open_file(slave, closefd=False) as file:
            assert file.line_buffering
            os.write(master, b"one\ntwo\n")
            assert await file.readline() == "one\n"
            assert await file.__anext__() == "two\n"

    backend.run(main)
    os.close(master)
    os.close(slave)


@on_both
def test_wrapping(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        raw = io.FileIO(path, "w+")
        raw.write(b"one\n")
        file = trio_uring.wrap_file(raw)
        assert isinstance(file, trio_uring.files.raw.RawFile)
        await file.write(b"two\n")
        raw.seek(0)
        assert await file.readline() == b"one\n"
        assert raw.read() == b"two\n"
        await file.aclose()
        assert raw.closed
        other = trio_uring.wrap_file(io.BytesIO(b"data"))
        assert isinstance(other, type(trio.wrap_file(io.BytesIO())))
        assert await other.read() == b"data"

    backend.run(main)


@on_both
def test_detaching_writes_and_goes_one_layer_down(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        text = await open_file(path, "w+")
        await text.write("one\n")
        buffered = await text.detach()
        assert path.read_bytes() == b"one\n"
        with pytest.raises(ValueError, match="detached"):
            await text.write("no")
        await buffered.write(b"two\n")
        raw = await buffered.detach()
        assert path.read_bytes() == b"one\ntwo\n"
        with pytest.raises(ValueError, match="detached"):
            await buffered.read()
        await raw.write(b"three\n")
        await raw.seek(0)
        assert await raw.readlines() == [b"one\n", b"two\n", b"three\n"]
        await raw.aclose()

    backend.run(main)


@on_both
@pytest.mark.parametrize("newline", [None, "", "\n"])
def test_the_position_of_a_text_file_is_told_while_it_is_iterated(
    backend: Backend, tmp_path: Path, newline: str | None
) -> None:
    path = tmp_path / "file"
    lines = [f"{number} \u20ac\n" for number in range(3000)]
    path.write_text("".join(lines), encoding="utf-8")

    async def main() -> None:
        async with await open_file(path, encoding="utf-8", newline=newline) as file:
            told = [await file.tell() async for _ in file]
            ends = list(itertools.accumulate(len(line.encode()) for line in lines))
            assert told == ends
            for number in (7, 2999, 1500):
                await file.seek(told[number - 1])
                assert await file.readline() == lines[number]

    backend.run(main)


def test_readlines_holds_no_second_copy_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x" * 99_999 + "\n" + "y" * 5_000_000)

    async def main() -> None:
        async with await open_file(path) as file:
            tracemalloc.start()
            lines = await file.readlines()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert sum(map(len, lines)) == 5_100_000
            # The pieces of the last line, and the line.
            assert peak < 2.5 * 5_100_000

    URING.run(main)


@on_both
@pytest.mark.parametrize("buffering", [0, -1])
def test_what_does_not_block_says_that_there_is_nothing(
    backend: Backend, pipe: tuple[int, int], buffering: int
) -> None:
    reader, writer = pipe
    for end in pipe:
        os.set_blocking(end, False)

    async def main() -> None:
        source = await open_file(reader, "rb", buffering, closefd=False)
        target = await open_file(writer, "wb", 0, closefd=False)
        for call in (lambda: source.read(5), source.read, lambda: source.readinto(bytearray(3))):
            assert await call() is None
        written = 0
        while (count := await target.write(bytes(1 << 16))) is not None:
            written += count
        assert written >= 4096
        assert await source.read(100) == bytes(100)

    backend.run(main)


@on_both
@pytest.mark.parametrize("buffering", [0, -1])
def test_nor_does_a_terminal_that_does_not_block(backend: Backend, buffering: int) -> None:
    """The kernel's ring cannot be told not to wait for one."""
    ends = os.openpty()
    tty.setraw(ends[1])
    os.set_blocking(ends[1], False)

    async def main() -> None:
        source = await open_file(ends[1], "rb", buffering, closefd=False)
        target = await open_file(ends[1], "wb", 0, closefd=False)
        for call in (lambda: source.read(5), source.read, lambda: source.readinto(bytearray(3))):
            assert await call() is None
        while await target.write(bytes(1 << 12)) is not None:
            pass
        os.write(ends[0], b"typed")
        assert await source.read(5) == b"typed"

    try:
        backend.run(main)
    finally:
        for end in ends:
            os.close(end)


@on_both
def test_text_that_a_pipe_takes_in_part_leaves_the_encoder_behind_it(
    backend: Backend, pipe: tuple[int, int]
) -> None:
    reader, writer = pipe
    for end in pipe:
        os.set_blocking(end, False)

    async def main() -> None:
        file = await open_file(writer, "w", encoding="iso2022_jp", closefd=False)
        text = "\u3042" * 1_000_000
        with pytest.raises(BlockingIOError) as raised:
            await file.write(text)
        data = os.read(reader, 1_000_000)
        await file.flush()
        await file.write("end")
        await file.aclose()
        data += os.read(reader, 1_000_000)
        encoded = text.encode("iso2022_jp")[: raised.value.characters_written]
        assert data == encoded + b"\x1b(Bend"

    backend.run(main)


@on_both
@pytest.mark.parametrize("mode", ["w", "r+", "wb", "r+b"])
def test_files_that_refuse_offsets_are_written(backend: Backend, mode: str) -> None:
    """As those of /proc that are made up in one go."""
    with open("/proc/self/comm") as file:
        name = file.read()

    async def main() -> None:
        async with await open_file("/proc/self/comm", mode) as file:
            await file.write(b"changed" if "b" in mode else "changed")
        with open("/proc/self/comm") as changed:
            assert changed.read() == "changed\n"

    try:
        backend.run(main)
    finally:
        with open("/proc/self/comm", "w") as restored:
            restored.write(name)
