"""Writes that go on behind the user's back: what can be seen of them.

That calls return what they do in the standard library is for tests/oracle to prove, also for
these: most of its writes do not fit the buffer. A limit on the size of files makes writes fail
and fall short as a full disk does.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import random
import threading
import weakref
from array import array
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from equivalence import EPOLL, URING, Backend, descriptors_so_far, every_backend, open_descriptors
from file_limits import files_no_longer_than

from trio_uring import open_file, send_file, start_guest_run
from trio_uring.files import write_behind
from trio_uring.files.write_behind import MOST_BEHIND

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

on_both = pytest.mark.parametrize("backend", [URING, EPOLL], ids=lambda backend: backend.name)

DATA = bytes(range(256)) * 1024
MUCH = DATA * (MOST_BEHIND // len(DATA))
"""That a worker of the kernel's needs a while for."""
TOO_LARGE = (errno.EFBIG, os.strerror(errno.EFBIG))


CALLS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "read": lambda file: file.read(1),
    "read all": lambda file: file.read(),
    "read1": lambda file: file.read1(1),
    "readinto": lambda file: file.readinto(bytearray(3)),
    "readinto1": lambda file: file.readinto1(bytearray(3)),
    "readline": lambda file: file.readline(),
    "readlines": lambda file: file.readlines(),
    "peek": lambda file: file.peek(),
    "seek to": lambda file: file.seek(0),
    "seek by": lambda file: file.seek(-1, 1),
    "seek to the end": lambda file: file.seek(0, 2),
    "tell": lambda file: file.tell(),
    "truncate": lambda file: file.truncate(),
    "flush": lambda file: file.flush(),
    "detach": lambda file: file.detach(),
    "aclose": lambda file: file.aclose(),
}
every_call = pytest.mark.parametrize("call", CALLS)


@every_call
@pytest.mark.parametrize("mode", ["w+b", "w+"])
def test_every_call_but_a_write_waits_for_what_is_behind(tmp_path: Path, call: str, mode: str) -> None:
    path = tmp_path / "file"
    if mode == "w+" and call in ("read1", "readinto", "readinto1", "peek", "seek by"):
        pytest.skip("binary files only")
    data: Any = MUCH if "b" in mode else MUCH.decode("latin-1")

    async def main() -> None:
        arguments = {} if "b" in mode else {"encoding": "latin-1", "newline": ""}
        file = await open_file(path, mode, **arguments)
        await file.write(data)
        assert path.stat().st_size == 0
        await CALLS[call](file)
        assert path.stat().st_size == len(MUCH)
        with contextlib.suppress(ValueError):  # it is detached
            await file.aclose()

    URING.run(main)
    assert path.read_bytes() == MUCH


@every_backend
def test_data_arrives_as_it_was_when_it_was_written_and_in_that_order(
    backend: Backend, tmp_path: Path
) -> None:
    chance = random.Random(1)
    written = bytearray()

    async def main() -> None:
        for mode in ("wb", "ab", "w+b"):
            async with await open_file(tmp_path / mode, mode, 1000) as file:
                for _ in range(100):
                    size = chance.choice([1, 10, 600, 999, 1000, 1001, 5000, 300_000])
                    data = chance.randbytes(size)
                    form = chance.choice([bytes, bytearray, memoryview])
                    if form is memoryview:
                        given: Any = memoryview(b"<" + data + b">")[1:-1]
                    else:
                        given = form(data)
                    assert await file.write(given) == size
                    if form is bytearray:
                        given[:] = bytes(size)
                        given.append(0)
                    written.extend(data)
                    if mode == "w+b" and not chance.randrange(30):
                        assert await file.seek(-1, 1) == len(written) - 1
                        assert await file.read(2) == data[-1:]
            assert (tmp_path / mode).read_bytes() == written
            written.clear()

    backend.run(main)


def test_files_that_append_to_the_same_file_keep_their_pieces_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def write(letter: bytes) -> None:
        async with await open_file(path, "ab") as file:
            for _ in range(50):
                await file.write(letter * 9999 + b"\n")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for letter in (b"a", b"b", b"c"):
                nursery.start_soon(write, letter)

    URING.run(main)
    assert sorted(path.read_bytes().split()) == sorted([b"a" * 9999, b"b" * 9999, b"c" * 9999] * 50)


def test_a_shared_position_is_moved_by_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        async with (
            await open_file(path, "wb") as one,
            await open_file(os.dup(one.fileno()), "wb") as other,
        ):
            await one.write(DATA)
            await one.flush()
            await other.write(DATA[::-1])
            assert await other.tell() == 2 * len(DATA)
            await one.write(DATA)

    URING.run(main)
    assert path.read_bytes() == DATA + DATA[::-1] + DATA


@pytest.mark.parametrize("existing", [0, 20])
def test_files_that_share_a_position_and_write_at_the_same_time_overwrite_nothing(
    tmp_path: Path, existing: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA * existing)

    async def write(file: Any, letter: bytes) -> None:
        async with file:
            for _ in range(150):
                await file.write(letter * len(DATA))

    async def main() -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        one, other = await open_file(fd, "wb"), await open_file(os.dup(fd), "wb")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, one, b"a")
            nursery.start_soon(write, other, b"b")

    URING.run(main)
    data = path.read_bytes()
    pieces = [data[start : start + len(DATA)] for start in range(0, len(data), len(DATA))]
    assert sorted(pieces) == [b"a" * len(DATA)] * 150 + [b"b" * len(DATA)] * 150


def test_no_more_is_behind_than_there_may_be(tmp_path: Path) -> None:
    async def main() -> None:
        async with await open_file(tmp_path / "file", "wb", 4096) as file:
            for size in (10_000, 1 << 20, MOST_BEHIND, MOST_BEHIND + 1):
                for _ in range(10):
                    await file.write(b"x")
                    await file.write(bytes(size))
                    assert await unwritten(file) <= MOST_BEHIND + 4096
            for _ in range(5000):
                await file.write(b"x" * 4000)
                assert await unwritten(file) <= MOST_BEHIND + 4096

    async def unwritten(file: Any) -> int:
        return int(file._buffer._behind.size)

    URING.run(main)


def test_files_that_are_written_at_the_same_time_share_what_may_be_behind(tmp_path: Path) -> None:
    async def main() -> None:
        files: list[Any] = [await open_file(tmp_path / str(number), "wb") for number in range(40)]
        most = 0

        async def write(file: Any) -> None:
            nonlocal most
            for _ in range(20):
                await file.write(DATA)
                most = max(
                    most, sum(file._buffer._behind.size for file in files if file._buffer._behind is not None)
                )

        async with trio.open_nursery() as nursery:
            for file in files:
                nursery.start_soon(write, file)
        for file in files:
            await file.aclose()
        assert most < 5 * MOST_BEHIND + len(files) * len(DATA)

    URING.run(main)


def test_many_small_pieces_are_written_in_several_writes(tmp_path: Path) -> None:
    lines = [b"%d\n" % number for number in range(5000)]

    async def main() -> None:
        async with await open_file(tmp_path / "file", "wb", 2) as file:
            await file.writelines(lines)

    URING.run(main)
    assert (tmp_path / "file").read_bytes() == b"".join(lines)


def test_writes_that_are_cancelled_have_happened_or_not(tmp_path: Path) -> None:
    chance = random.Random(2)
    accepted: list[bytes] = []
    outcomes: set[bool] = set()

    async def main() -> None:
        async with await open_file(tmp_path / "file", "wb", 1000) as file:
            for number in range(150):
                data = bytes([number]) * chance.choice([600, 1000, 20_000, 3 << 20])
                scope = trio.CancelScope()
                async with trio.open_nursery() as nursery:

                    async def stop(scope: trio.CancelScope = scope) -> None:
                        for _ in range(chance.randrange(5)):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(stop)
                    with scope:
                        await file.write(data)
                        accepted.append(data)
                outcomes.add(scope.cancelled_caught)
                if chance.randrange(10) == 0:
                    assert await file.tell() == sum(map(len, accepted))

    URING.run(main)
    assert outcomes == {True, False}
    assert (tmp_path / "file").read_bytes() == b"".join(accepted)


FAILING = {
    "a large write": lambda file: file.write(DATA),
    "a write that does not fit": lambda file: file.write(b"x" * 900),
    **{name: call for name, call in CALLS.items() if name not in ("aclose", "detach")},
}


@pytest.mark.parametrize("call", FAILING)
@pytest.mark.parametrize("mode", ["w+b", "a+b"])
def test_an_error_is_told_once_and_loses_nothing(tmp_path: Path, call: str, mode: str) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        async with await open_file(path, mode, 1000) as file:
            with files_no_longer_than(5000):
                await file.write(DATA)
                await file.write(b"y" * 200)
                with pytest.raises(OSError) as raised:  # noqa: PT011, PT012
                    while True:  # it is accepted until the kernel has answered
                        await FAILING[call](file)
                assert raised.value.args == TOO_LARGE
                assert raised.value.filename is None
                assert path.stat().st_size == 5000
            position = await file.tell()
            assert position >= len(DATA) + 200
            await file.flush()
            assert path.stat().st_size == position == await file.tell()
        assert path.read_bytes()[: len(DATA) + 200] == DATA + b"y" * 200

    URING.run(main)


def test_a_failure_that_lasts_is_told_by_every_call_as_by_a_flush_of_the_standard_library(
    tmp_path: Path,
) -> None:
    def expected() -> list[object]:
        with open(tmp_path / "standard", "wb", len(DATA)) as file:
            file.write(DATA[:8000])
            seen: list[object] = []
            with files_no_longer_than(5000):
                for _ in range(3):
                    with pytest.raises(OSError) as raised:  # noqa: PT011
                        file.flush()
                    seen += [raised.value.args, file.tell(), os.fstat(file.fileno()).st_size]
            return seen

    async def main() -> None:
        async with await open_file(tmp_path / "ours", "wb") as file:
            seen: list[object] = []
            with files_no_longer_than(5000):
                await file.write(DATA[:8000])
                for _ in range(3):
                    with pytest.raises(OSError) as raised:  # noqa: PT011
                        await file.flush()
                    seen += [raised.value.args, await file.tell(), os.fstat(file._own_fileno()).st_size]
            assert seen == expected()

    URING.run(main)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "standard").read_bytes() == DATA[:8000]


def test_what_is_on_the_file_is_always_the_beginning_of_what_was_accepted(tmp_path: Path) -> None:
    chance = random.Random(3)
    path = tmp_path / "file"
    accepted = bytearray()
    errors = 0

    async def main() -> None:
        nonlocal errors
        limit = contextlib.ExitStack()
        async with await open_file(path, "wb", 1000) as file:
            with limit:
                for _ in range(600):
                    what = chance.choice(["write"] * 8 + ["flush", "tell", "more room"])
                    data = chance.randbytes(chance.choice([300, 1000, 3000, 70_000]))
                    with contextlib.suppress(OSError):
                        errors += 1
                        if what == "write":
                            assert await file.write(data) == len(data)
                            accepted.extend(data)
                        elif what == "flush":
                            await file.flush()
                            assert path.stat().st_size == len(accepted)
                        elif what == "tell":
                            assert await file.tell() == len(accepted)
                        else:
                            limit.close()
                            limit.enter_context(
                                files_no_longer_than(len(accepted) + chance.randrange(400_000))
                            )
                        errors -= 1
                    assert path.stat().st_size <= len(accepted)
        assert path.read_bytes() == accepted

    URING.run(main)
    assert errors > 20


def test_a_failing_last_write_closes_all_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        for mode in ("wb", "w"):
            file = await open_file(tmp_path / "file", mode)
            fd = file._own_fileno()
            with files_no_longer_than(5000):
                await file.write(DATA if mode == "wb" else "x" * 10_000)
                with pytest.raises(OSError) as raised:  # noqa: PT011
                    await file.aclose()
            assert raised.value.args == TOO_LARGE
            assert file.closed
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
            await file.aclose()

    URING.run(main)


@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_a_descriptor_that_was_closed_below_is_an_error_of_the_next_call(tmp_path: Path, mode: str) -> None:
    async def main() -> None:
        file = await open_file(tmp_path / "file", mode)
        await file.write(DATA)
        os.close(file._own_fileno())
        for call in (file.flush, file.flush, file.aclose):
            with pytest.raises(OSError, match="Bad file descriptor"):
                await call()

    URING.run(main)


def test_aclose_that_is_cancelled_writes_all_and_closes(tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        for mode in ("wb", "w"):
            data: Any = DATA if mode == "wb" else DATA.decode("latin-1")
            file = await open_file(path, mode, **({} if mode == "wb" else {"encoding": "latin-1"}))
            for _ in range(10):
                await file.write(data)
            await file.write(data[:10])
            with trio.CancelScope() as scope:
                scope.cancel()
                await file.aclose()
            assert scope.cancelled_caught
            assert file.closed
            assert path.read_bytes() == DATA * 10 + DATA[:10]

    URING.run(main)


def test_a_call_that_is_cancelled_while_it_waits_leaves_the_writes_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        async with await open_file(path, "wb") as file:
            for call in (file.flush, file.tell, partial(file.seek, 0)):
                await file.write(DATA)
                await file.write(b"x")
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await call()
                assert scope.cancelled_caught
            assert await file.tell() == 3 * len(DATA) + 3

    URING.run(main)
    assert path.read_bytes() == (DATA + b"x") * 3


@pytest.mark.parametrize("mode", ["wb", "w", "a+b"])
@pytest.mark.parametrize("ticks", [0, 1, 20])
def test_a_file_that_was_thrown_away_is_written_and_closed(tmp_path: Path, mode: str, ticks: int) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        before = descriptors_so_far()
        arguments = {} if "b" in mode else {"encoding": "latin-1", "newline": ""}
        file = await open_file(path, mode, **arguments)
        for data in (DATA, DATA, DATA[:10]):
            await file.write(data if "b" in mode else data.decode("latin-1"))
        for _ in range(ticks):
            await trio.lowlevel.checkpoint()
        with pytest.warns(ResourceWarning, match="unclosed file"):  # noqa: PT031
            del file
            gc.collect()
            while open_descriptors() != before:
                await trio.lowlevel.checkpoint()
        assert path.read_bytes() == 2 * DATA + DATA[:10]

    URING.run(main)


def test_a_file_that_is_thrown_away_with_its_run_is_written(tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main(*, crashes: bool) -> None:
        file = await open_file(path, "wb")
        for _ in range(10):
            await file.write(DATA)
        if crashes:
            raise KeyError

    for crashes in (False, True):
        with pytest.warns(ResourceWarning, match="unclosed file"):  # noqa: PT031
            with pytest.raises(KeyError) if crashes else contextlib.nullcontext():
                URING.run(partial(main, crashes=crashes))
            gc.collect()
        assert path.read_bytes() == 10 * DATA


@on_both
@pytest.mark.parametrize("ticks", [0, 1, 20])
def test_a_file_survives_the_run_that_was_writing_it(backend: Backend, tmp_path: Path, ticks: int) -> None:
    path = tmp_path / "file"
    files: list[Any] = []

    async def crash() -> None:
        files.append(file := await open_file(path, "wb"))
        for data in (DATA, DATA[::-1], b"x" * 10):
            await file.write(data)
        for _ in range(ticks):
            await trio.lowlevel.checkpoint()
        raise KeyError

    async def go_on() -> None:
        async with files.pop() as file:
            await file.write(DATA)
            assert await file.tell() == 3 * len(DATA) + 10

    with pytest.raises(KeyError):
        URING.run(crash)
    backend.run(go_on)
    assert path.read_bytes() == DATA + DATA[::-1] + b"x" * 10 + DATA


def test_a_crash_while_a_task_waits_for_the_writes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files: list[Any] = []

    async def crash() -> None:
        files.append(file := await open_file(path, "wb"))
        await file.write(DATA)
        trio.lowlevel.spawn_system_task(file.flush)
        await trio.lowlevel.checkpoint()
        raise KeyError

    with pytest.raises(KeyError):
        URING.run(crash)
    URING.run(files[0].aclose)
    assert path.read_bytes() == DATA


def test_a_guest_run_writes_behind_as_well(tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def guest() -> None:
        async with await open_file(path, "wb") as file:
            for _ in range(20):
                await file.write(DATA)
            assert await file.tell() == 20 * len(DATA)
            await file.write(DATA)

    async def host() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        start_guest_run(
            guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
        )
        (await asyncio.wait_for(done, URING.patience)).unwrap()

    asyncio.run(host())
    assert path.read_bytes() == 21 * DATA


def test_tasks_that_share_a_file_write_whole_pieces(tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        async with await open_file(path, "wb", 1000) as file, trio.open_nursery() as nursery:

            async def write(letter: bytes) -> None:
                for size in (10, 900, 2000, 100_000, 1 << 20):
                    for _ in range(5):
                        await file.write(letter * size + b"\n")

            for letter in (b"a", b"b", b"c"):
                nursery.start_soon(write, letter)

    URING.run(main)
    expected = [letter * size for letter in (b"a", b"b", b"c") for size in (10, 900, 2000, 100_000, 1 << 20)]
    assert sorted(path.read_bytes().split()) == sorted(expected * 5)


@on_both
@pytest.mark.parametrize("flags", [0, os.O_SYNC, os.O_DSYNC], ids=["plain", "O_SYNC", "O_DSYNC"])
def test_who_wants_to_know_that_data_has_arrived_is_kept_waiting(
    backend: Backend, tmp_path: Path, flags: int
) -> None:
    path = tmp_path / "file"
    if not flags and backend is URING:
        pytest.skip("this one is written behind")

    async def main() -> None:
        opener = lambda path, more: os.open(path, more | flags)  # noqa: E731
        async with await open_file(path, "wb", opener=opener) as file:
            await file.write(DATA)
            assert path.read_bytes() == DATA

    backend.run(main)


def test_what_is_written_to_a_pipe_is_there_at_once() -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        async with await open_file(reader, "rb", 0) as source, await open_file(writer, "wb", 16) as file:
            await file.write(b"x" * 100)
            os.set_blocking(source.fileno(), False)
            assert os.read(source.fileno(), 1000) == b"x" * 100

    URING.run(main)


def test_text_that_could_not_be_written_stays_and_is_written_later(tmp_path: Path) -> None:
    path = tmp_path / "file"
    text = "\u20ac" * 20_000

    async def main() -> None:
        async with await open_file(path, "w", encoding="utf-16") as file:
            with files_no_longer_than(5001):
                await file.write(text)
                with pytest.raises(OSError, match="File too large"):
                    await file.flush()
                with pytest.raises(OSError, match="File too large"):
                    await file.write(text)
            await file.write("end")

    URING.run(main)
    assert path.read_text("utf-16") == text + "end"


def test_a_file_is_sent_with_what_was_written_to_it(tmp_path: Path) -> None:
    async def main() -> None:
        near, far = trio.socket.socketpair()
        got = bytearray()

        async def receive() -> None:
            while data := await far.recv(1 << 16):
                got.extend(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            for mode in ("w+b", "w+"):
                async with await open_file(tmp_path / mode, mode) as file:
                    await file.write(MUCH if "b" in mode else "x" * len(MUCH))
                    assert await send_file(trio.SocketStream(near), file) == len(MUCH)
            near.close()
        far.close()
        assert got == MUCH + b"x" * len(MUCH)

    URING.run(main)


def test_no_thread_is_started(tmp_path: Path) -> None:
    before = set(threading.enumerate())

    async def main() -> None:
        async with await open_file(tmp_path / "file", "wb") as file:
            for _ in range(100):
                await file.write(DATA)
        assert set(threading.enumerate()) <= before

    URING.run(main)


def test_every_write_is_a_checkpoint(tmp_path: Path) -> None:
    async def main() -> None:
        async with await open_file(tmp_path / "file", "wb", 1000) as file:
            for size in [0, 600, 600, 999, 1000, 5000, MOST_BEHIND, MOST_BEHIND, MOST_BEHIND + 1] * 2:
                with trio.testing.assert_checkpoints():
                    await file.write(bytes(size))

    URING.run(main)


@on_both
@pytest.mark.parametrize("buffering", [0, 1000])
def test_an_append_of_nothing_and_one_that_fails_leave_the_position(
    backend: Backend, tmp_path: Path, buffering: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5000)

    async def main() -> None:
        async with await open_file(path, "a+b", buffering) as file:
            await file.write(b"")
            for offset in (0, 7):
                assert await file.seek(offset) == offset
                await file.write(b"")
                await file.flush()
                assert await file.tell() == offset
            with files_no_longer_than(5000), pytest.raises(OSError, match="File too large"):  # noqa: PT012
                await file.write(b"y" * 2000)
                await file.flush()
            if not buffering:
                assert await file.tell() == 7

    backend.run(main)


def test_what_a_signal_handler_interrupts_as_the_kernel_gets_it_is_kept_for_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    vectors: list[weakref.ref[array[int]]] = []
    submit = write_behind._submit

    def interrupted(*arguments: Any) -> None:
        submit(*arguments)
        raise InterruptedError

    def noted(code: str) -> array[int]:
        vector = array(code)
        vectors.append(weakref.ref(vector))
        return vector

    async def main() -> None:
        async with await open_file(path, "wb") as file:
            monkeypatch.setattr(write_behind, "array", noted)
            monkeypatch.setattr(write_behind, "_submit", interrupted)
            with pytest.raises(InterruptedError):
                await file.write(DATA)
            monkeypatch.undo()
            gc.collect()
            assert len(vectors) == 1
            assert vectors[0]() is not None

    URING.run(main)
    assert path.read_bytes() == DATA
