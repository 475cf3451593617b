"""Uses each operation of sockets, files and `lowlevel`, while one of them is refused: for a child process.

The kernel itself refuses, with EACCES, or the library that stands before liburing (injector.c). A use that
moves bytes has checked that none is lost: what was not received is still there, and what was written is the
beginning of what was to be written.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import seccomp
import trio
from injector import Injector
from restricting import restrict

import trio_uring
from trio_uring import lowlevel
from trio_uring.ring.opcodes import OPCODES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

DATA: Final = bytes(range(256)) * 200
PATIENCE: Final = 30


# Sockets


async def receive() -> None:
    plain, peer = socket.socketpair()
    with trio.socket.from_stdlib_socket(plain) as sock, peer:
        for _ in range(2):  # the first is made at once
            peer.send(b"data")
            try:
                assert await sock.recv(10) == b"data"
            except OSError:
                assert plain.recv(10) == b"data"
                raise


async def receive_again() -> None:
    """By a multishot, over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        plain, _ = listener.accept()
    async with trio.SocketStream(trio.socket.from_stdlib_socket(plain)) as stream:
        with peer:
            for _ in range(5):
                peer.send(b"data")
                try:
                    assert await stream.receive_some(10) == b"data"
                except trio.BrokenResourceError:
                    assert plain.recv(10) == b"data"
                    raise


async def send_all() -> None:
    plain, peer = socket.socketpair()
    async with trio.SocketStream(trio.socket.from_stdlib_socket(plain)) as stream:
        with peer:
            for _ in range(2):  # the first is made at once
                try:
                    await stream.send_all(b"data")
                except trio.BrokenResourceError:
                    assert not select.select([peer], [], [], 0)[0]
                    raise
                assert peer.recv(10) == b"data"


async def accept() -> None:
    """Somebody connects once it waits."""
    plain = socket.create_server(("127.0.0.1", 0))
    peers: list[socket.socket] = []
    with trio.socket.from_stdlib_socket(plain) as listener:
        trio.lowlevel.current_trio_token().run_sync_soon(
            lambda: peers.append(socket.create_connection(plain.getsockname()))
        )
        try:
            accepted, _ = await listener.accept()
        except OSError:
            while not peers:
                await trio.lowlevel.checkpoint()
            plain.accept()[0].close()
            raise
        finally:
            name = peers[0].getsockname() if peers else None
            for peer in peers:
                peer.close()
        with accepted:
            assert accepted.getpeername() == name


async def datagram() -> None:
    left, right = trio.socket.socketpair(type=socket.SOCK_DGRAM)
    with left, right:
        await left.send(b"data")
        assert await right.recv(10) == b"data"


async def send_file() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = await trio.open_tcp_stream(*listener.getsockname())
        with listener.accept()[0] as peer:
            async with stream:
                Path("sent").write_bytes(DATA)
                with open("sent", "rb") as file:
                    assert await trio_uring.send_file(stream, file) == len(DATA)
            received = b""
            while piece := peer.recv(100_000):
                received += piece
            assert received == DATA


# Files and paths


def cold(name: str = "cold") -> str:
    """A file that is not in the page cache."""
    with open(name, "wb") as file:
        file.write(DATA)
        file.flush()
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return name


@contextmanager
def beginning(name: str) -> Iterator[None]:
    """What is written within is the beginning of the data; all of it, unless there is an error."""
    try:
        yield
    except OSError:
        assert DATA.startswith(Path(name).read_bytes() if os.path.exists(name) else b"")
        raise
    assert Path(name).read_bytes() == DATA


async def write_file() -> None:
    with beginning("written"):
        async with await trio_uring.open_file("written", "wb") as file:
            for at in range(0, len(DATA), 5000):
                await file.write(DATA[at : at + 5000])


async def write_bytes() -> None:
    with beginning("written at once"):
        await trio_uring.Path("written at once").write_bytes(DATA)


async def update_file() -> None:
    Path("updated").write_bytes(DATA)
    async with await trio_uring.open_file("updated", "r+b") as file:
        await file.write(b"\0\1\2\3")
        await file.flush()
    assert Path("updated").read_bytes() == DATA


async def read_file() -> None:
    async with await trio_uring.open_file(cold(), "rb") as file:
        assert await file.read(1000) == DATA[:1000]
        assert await file.read() == DATA[1000:]


async def read_bytes() -> None:
    assert await trio_uring.Path(cold()).read_bytes() == DATA


async def read_pipe() -> None:
    reader, writer = os.pipe()
    with open(writer, "wb", 0) as sender, open(reader, "rb", 0) as source:
        async with trio_uring.wrap_file(source) as file:
            sender.write(b"data")
            try:
                assert await file.read(10) == b"data"
            except OSError:
                assert os.read(reader, 10) == b"data"
                raise


async def truncate() -> None:
    Path("long").write_bytes(DATA)
    async with await trio_uring.open_file("long", "r+b") as file:
        assert await file.truncate(1000) == 1000
    assert Path("long").stat().st_size == 1000


async def missing() -> None:
    """Which the kernel has not cached."""
    assert not await trio_uring.Path("missing").exists()


async def make_and_remove_folder() -> None:
    await trio_uring.Path("folder").mkdir()
    await trio_uring.Path("folder").rmdir()


async def rename_and_remove() -> None:
    Path("old").touch()
    await trio_uring.Path("old").rename("new")
    await trio_uring.Path("new").unlink()


async def links() -> None:
    Path("target").touch()
    await trio_uring.Path("symbolic").symlink_to("target")
    await trio_uring.Path("hard").hardlink_to("target")


async def operations_on_files() -> None:
    with open(cold("operations"), "r+b", buffering=0) as file:
        assert await lowlevel.readv(file, [bytearray(10)], 0) == 10
        assert await lowlevel.writev(file, [DATA[:5], DATA[5:10]], 0) == 10
        await lowlevel.fallocate(file, 0, 0, len(DATA))
        await lowlevel.fsync(file)
        assert (await lowlevel.fstat(file)).st_size == len(DATA)


USES: Final[dict[Callable[[], Awaitable[None]], str]] = {
    receive: "recv",
    receive_again: "recv",
    send_all: "send",
    accept: "accept",
    datagram: "",
    send_file: "splice read?",
    write_file: "openat write? writev",
    write_bytes: "openat write",
    update_file: "openat write",
    read_file: "openat? read?",
    read_bytes: "openat? read?",
    read_pipe: "read",
    truncate: "openat ftruncate",
    missing: "statx?",
    make_and_remove_folder: "mkdirat unlinkat",
    rename_and_remove: "renameat unlinkat",
    links: "symlinkat linkat",
    operations_on_files: "readv writev fallocate fsync statx",
}
"""Each use, and the operations that it needs: if one of them is refused, the caller is told. A use makes one
with a question mark if the kernel has not cached what is asked for."""


async def use_all(said: dict[str, int]) -> None:
    for use in USES:
        before = sorted(os.listdir("/proc/self/fd"))
        with trio.fail_after(PATIENCE):
            try:
                await use()
            except (OSError, trio.BrokenResourceError) as error:
                met = error if isinstance(error, OSError) else error.__cause__
                assert isinstance(met, OSError), met
                said[use.__name__] = met.errno or 0
            else:
                said[use.__name__] = 0
        assert sorted(os.listdir("/proc/self/fd")) == before, use.__name__
    await wait_in_vain()


async def wait_in_vain() -> None:
    """Waits for what does not come, and is cancelled; and the run sleeps meanwhile."""
    left, right = trio.socket.socketpair()
    with left, right:
        before = entered()
        with trio.move_on_after(0.1):
            await trio.lowlevel.wait_readable(left)
        await trio.sleep(0.1)
        await trio.to_thread.run_sync(os.getpid)
        assert entered() - before < 20


def entered() -> int:
    statistics: object = trio.lowlevel.current_statistics().io_statistics
    assert isinstance(statistics, trio_uring.UringStatistics)
    return statistics.entered


def main(operation: str, errors: Sequence[int], library: str = "") -> list[dict[str, int]]:
    """What the uses met in one run for each error that the library has for the operation, or in the one run
    in which the kernel refuses it."""
    number = next(row.number for row in OPCODES if row.name == operation)
    if not library:
        restrict([number])
        return [run()]
    injector = Injector(Path(library))
    said = []
    for error in errors:
        injector.forbid(number, error)
        said.append(run())
    return said


def main_without(calls: Sequence[str], error: int) -> list[dict[str, int]]:
    """The same where a filter answers these system calls with ``error``."""
    seccomp.install(dict.fromkeys(calls, error))
    return [run()]


def run() -> dict[str, int]:
    """For each use, the errno that the caller got, or 0; and the errno that has ended the run early, if one
    has."""
    gc.collect()  # else what the run before has abandoned closes its descriptors in the midst of this one
    said: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            trio_uring.run(use_all, said)
        except OSError as met:
            said["run"] = met.errno or 0
        os.chdir("/")
    return said
