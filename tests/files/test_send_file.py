"""`send_file`: what arrives, what is counted, and who is told of which error."""

from __future__ import annotations

import errno
import gc
import os
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from equivalence import URING, Backend, every_backend, every_ring
from trio._core import _thread_cache

import trio_uring

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

CONTENT = bytes(range(251)) * 20_000  # 5 MB: more than the pipe and the socket's buffers hold


@pytest.fixture(autouse=True)
def _same_descriptors() -> Iterator[None]:
    gc.collect()  # so that it closes nothing of earlier tests meanwhile
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a thread was started")

    monkeypatch.setattr(_thread_cache.ThreadCache, "start_thread_soon", refuse)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    ends = (trio.socket.from_stdlib_socket(end) for end in (ours, peer))
    return trio.SocketStream(next(ends)), trio.SocketStream(next(ends))


async def received_all(stream: trio.abc.ReceiveStream) -> bytes:
    received = bytearray()
    async for chunk in stream:
        received += chunk
    return bytes(received)


async def sent_and_received(
    send: Callable[[trio.SocketStream], Awaitable[int]],
) -> tuple[int, bytes]:
    ours, peer = socket_pair()
    received = b""

    async def receive() -> None:
        nonlocal received
        received = await received_all(peer)

    async with ours, peer, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        sent = await send(ours)
        await ours.send_eof()
    return sent, received


@every_backend
@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, None), (1, None), (0, 3), (4095, 100_001), (0, len(CONTENT) + 9), (len(CONTENT) - 5, 9)],
)
def test_a_socket_gets_what_is_asked_for_and_the_position_stays(
    backend: Backend, path: Path, offset: int, count: int | None
) -> None:
    expected = CONTENT[offset : None if count is None else offset + count]
    seen: list[int] = []

    async def main() -> None:
        with open(path, "rb") as file:
            file.seek(77)
            sent, received = await sent_and_received(
                lambda stream: trio_uring.send_file(stream, file, offset, count, progress=seen.append)
            )
            assert file.tell() == 77
        assert received == expected
        assert sent == len(expected) == seen[-1]
        assert seen == sorted(set(seen))

    backend.run(main)


@every_ring
def test_no_thread_is_started(backend: Backend, path: Path, no_threads: None) -> None:
    async def main() -> None:
        before = threading.active_count()
        with open(path, "rb") as file:
            assert await sent_and_received(lambda stream: trio_uring.send_file(stream, file)) == (
                len(CONTENT),
                CONTENT,
            )
            assert threading.active_count() == before
            ours, peer = trio.testing.memory_stream_pair()
            assert await trio_uring.send_file(ours, file, 5, 100) == 100
            assert await peer.receive_some() == CONTENT[5:105]

    backend.run(main)


@every_backend
@pytest.mark.parametrize("offset", [0, len(CONTENT), 1 << 40])
def test_nothing_to_send_is_a_checkpoint(backend: Backend, path: Path, offset: int) -> None:
    async def main() -> None:
        ours, peer = socket_pair()
        async with ours, peer:
            with open(path, "rb") as file, trio.testing.assert_checkpoints():
                assert await trio_uring.send_file(ours, file, offset, 0 if not offset else None) == 0

    backend.run(main)


@every_backend
def test_a_pipe_is_sent_as_it_comes_until_its_end(backend: Backend) -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)

        async def write() -> None:
            left = memoryview(CONTENT)
            while left:
                try:
                    left = left[os.write(writer, left[:100_001]) :]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(writer)
                await trio.lowlevel.checkpoint()
            os.close(writer)

        async def send(stream: trio.SocketStream) -> int:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                first = await trio_uring.send_file(stream, reader, count=1001)
                return first + await trio_uring.send_file(stream, reader)

        assert await sent_and_received(send) == (len(CONTENT), CONTENT)
        os.close(reader)

    backend.run(main)


@every_backend
def test_what_has_no_offsets_has_no_offset(backend: Backend) -> None:
    async def main() -> None:
        ours, peer = socket_pair()
        reader, writer = os.pipe()
        async with ours, peer:
            with pytest.raises(OSError, match="Illegal seek") as raised:
                await trio_uring.send_file(ours, reader, 1)
            assert raised.value.errno == errno.ESPIPE
        os.close(reader)
        os.close(writer)

    backend.run(main)


@every_backend
def test_devices_and_proc_are_sent(backend: Backend) -> None:
    async def main() -> None:
        for name, count in (("/dev/zero", 200_000), ("/proc/self/cmdline", None), ("/dev/null", 5)):
            with open(name, "rb") as file, open(name, "rb") as expected:
                expected_bytes = expected.read(-1 if count is None else count)
                assert await sent_and_received(
                    lambda stream, file=file, count=count: trio_uring.send_file(stream, file, 0, count)
                ) == (len(expected_bytes), expected_bytes)

    backend.run(main)


@every_backend
def test_a_tls_stream_gets_a_copy(backend: Backend, path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    client, server = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(client)
    authority.issue_cert("example.org").configure_cert(server)

    async def main() -> None:
        ours, peer = socket_pair()
        received = b""

        async def receive() -> None:
            nonlocal received
            received = await received_all(trio.SSLStream(peer, client, server_hostname="example.org"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            async with trio.SSLStream(ours, server, server_side=True) as encrypted:
                with open(path, "rb") as file:
                    assert await trio_uring.send_file(encrypted, file, 3, 1_000_000) == 1_000_000
        assert received == CONTENT[3:1_000_003]
        await peer.aclose()

    backend.run(main)


@every_backend
@pytest.mark.parametrize("kind", ["memory", "stapled"])
def test_any_other_stream_gets_a_copy(backend: Backend, path: Path, kind: str) -> None:
    async def main() -> None:
        if kind == "memory":
            ours, peer = trio.testing.memory_stream_pair()
        else:
            ends = socket_pair()
            ours, peer = (trio.StapledStream(end, end) for end in ends)  # type: ignore[assignment]
        received = b""

        async def receive() -> None:
            nonlocal received
            received = await received_all(peer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            with open(path, "rb") as file:
                assert await trio_uring.send_file(ours, file, 3, 1_000_000) == 1_000_000
            await ours.send_eof()
        assert received == CONTENT[3:1_000_003]
        await ours.aclose()
        await peer.aclose()

    backend.run(main)


@every_backend
def test_after_a_cancellation_what_was_accepted_is_known(backend: Backend, path: Path) -> None:
    async def main() -> None:
        ours, peer = socket_pair()
        sent = 0

        def progress(so_far: int) -> None:
            nonlocal sent
            sent = so_far

        async with ours, peer:
            with open(path, "rb") as file:
                os.truncate(path, 1 << 30)
                async with trio.open_nursery() as nursery:

                    async def send() -> None:
                        await trio_uring.send_file(ours, file, progress=progress)

                    nursery.start_soon(send)
                    await trio.testing.wait_all_tasks_blocked()
                    while not sent:
                        await trio.testing.wait_all_tasks_blocked(0.01)
                    nursery.cancel_scope.cancel()
            await ours.aclose()
            received = await received_all(peer)
        if backend.ring is not None:
            assert len(received) == sent
        assert len(received) >= sent > 0
        assert received[: len(CONTENT)] == CONTENT[: len(received)]

    backend.run(main)


def waits_to_write() -> bool:
    statistics: Any = trio.lowlevel.current_statistics().io_statistics
    return bool(statistics.tasks_waiting_write)


@every_backend
def test_a_stream_that_cannot_be_sent_to_says_why_as_send_all_does(backend: Backend, path: Path) -> None:
    async def main() -> None:
        with open(path, "rb") as file:
            ours, peer = socket_pair()
            async with trio.open_nursery() as nursery:

                async def closed() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await trio_uring.send_file(ours, file)

                nursery.start_soon(closed)
                while not waits_to_write():  # a task in a thread looks blocked too
                    await trio.sleep(0.001)
                with pytest.raises(trio.BusyResourceError):
                    await ours.send_all(b"x")
                with pytest.raises(trio.BusyResourceError):
                    await trio_uring.send_file(ours, file)
                await ours.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await trio_uring.send_file(ours, file)
            received = await received_all(peer)
            assert CONTENT.startswith(received)
            await peer.aclose()

            ours, peer = socket_pair()
            async with ours, peer:
                await ours.send_eof()
                with pytest.raises(trio.ClosedResourceError, match="EOF"):
                    await trio_uring.send_file(ours, file)

            ours, peer = socket_pair()
            async with ours, trio.open_nursery() as nursery:

                async def broken() -> None:
                    with pytest.raises(trio.BrokenResourceError):
                        await trio_uring.send_file(ours, file)

                nursery.start_soon(broken)
                await peer.receive_some(10)
                await peer.aclose()

    backend.run(main)


@every_backend
def test_a_file_that_cannot_be_read_is_the_files_error(backend: Backend, path: Path, tmp_path: Path) -> None:
    async def main() -> None:
        ours, peer = socket_pair()
        async with ours, peer:
            with open(path, "ab") as file, pytest.raises(OSError, match="Bad file descriptor"):
                await trio_uring.send_file(ours, file)
            directory = os.open(tmp_path, os.O_RDONLY)
            with pytest.raises(IsADirectoryError):
                await trio_uring.send_file(ours, directory)
            os.close(directory)
            with pytest.raises(OSError, match="Bad file descriptor"):
                await trio_uring.send_file(ours, directory)
            for offset, count in ((-1, None), (0, -1)):
                with open(path, "rb") as file, pytest.raises(ValueError, match="negative"):
                    await trio_uring.send_file(ours, file, offset, count)
            await ours.send_all(b"still good")
            assert await peer.receive_some() == b"still good"

    backend.run(main)


@every_backend
def test_a_file_that_is_cut_off_meanwhile_ends_there(backend: Backend, path: Path) -> None:
    async def main() -> None:
        def cut(_: int) -> None:
            os.truncate(path, 0)

        with open(path, "rb") as file:
            sent, received = await sent_and_received(
                lambda stream: trio_uring.send_file(stream, file, progress=cut)
            )
        assert 0 < sent == len(received) < len(CONTENT)

    backend.run(main)


def test_a_large_sparse_file_arrives(path: Path, no_threads: None) -> None:
    size = 1 << 28
    os.truncate(path, size)

    async def main() -> None:
        ours, peer = socket_pair()
        received = 0

        async def receive() -> None:
            nonlocal received
            buffer = bytearray(1 << 20)
            while count := await peer.socket.recv_into(buffer):
                received += count

        async with ours, peer, trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            with open(path, "rb") as file:
                assert await trio_uring.send_file(ours, file) == size
            await ours.send_eof()
        assert received == size

    URING.run(main)


def test_a_file_that_is_closed_before_a_thread_reads_it_is_no_other_file(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"secret")
    going_on = threading.Event()

    async def main() -> None:
        trio.to_thread.current_default_thread_limiter().total_tokens = 1
        file = open(path, "rb")  # noqa: SIM115
        number = file.fileno()
        ours, peer = trio.testing.memory_stream_pair()

        async def send() -> None:
            with pytest.raises(ValueError, match="closed file"):
                await trio_uring.send_file(ours, file)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, going_on.wait)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            file.close()
            assert os.open(other, os.O_RDONLY) == number
            going_on.set()
        os.close(number)
        await ours.aclose()
        assert await peer.receive_some() == b""

    trio.run(main)


def test_a_file_that_is_closed_before_its_turn_is_no_other_file(path: Path, tmp_path: Path) -> None:
    """Another task is closing it, which has to write first; then its number is another's."""
    other = tmp_path / "other"
    other.write_bytes(b"secret")

    async def main() -> None:
        file = await trio_uring.open_file(path, "r+b")
        await file.write(CONTENT)
        number = file._own_fileno()
        ours, peer = socket_pair()

        async def close() -> None:
            await file.aclose()
            assert os.open(other, os.O_RDONLY) == number

        async def send() -> None:
            with pytest.raises(ValueError, match="closed file"):
                await trio_uring.send_file(ours, file, 0, 6)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            await trio.lowlevel.cancel_shielded_checkpoint()
            nursery.start_soon(send)
        await ours.aclose()
        assert await received_all(peer) == b""
        await peer.aclose()
        os.close(number)

    trio_uring.run(main)
