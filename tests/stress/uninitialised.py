"""Run by test_uninitialised_memory.py, in a process whose fresh and freed memory is marked.

All that is ever written to files and sockets are bytes below `MARKS`. Meanwhile a thread cuts the files off,
makes them longer, and punches holes into them. Prints how many bytes it has looked at.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

import trio_uring
from trio_uring import RingOptions, lowlevel
from trio_uring.ring.native import uncleared_bytes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MARKS = 32
"""What memory is marked with is not below this; holes are zeros."""
UNTOUCHED = b"\xa5"
ALLOWED = bytes(range(MARKS))
SIZES = (1, 100, 4095, 8192, 8193, 70_000, 300_000)

RINGS = (
    RingOptions(files=True),
    RingOptions(files=True, buffers=2, buffer_size=1024, read_ahead=1, checkpoint_budget=16),
    RingOptions(files=True, features={"completions": False}),
)


class Reading:
    def __init__(self, folder: Path, seed: int) -> None:
        self.choices = random.Random(seed)
        self.path = folder / "changing"
        self.written = folder / "written"
        self.seen = 0
        self.ended = False

    def look(self, data: bytes | bytearray | memoryview | str) -> None:
        found = data.encode("latin-1") if isinstance(data, str) else bytes(data)
        strange = found.translate(None, ALLOWED)
        assert not strange, f"{len(strange)} of {len(found)} bytes: {strange[:20]!r}"
        self.seen += len(found)

    def data(self, size: int) -> bytes:
        return self.choices.randbytes(size).translate(bytes(number % MARKS for number in range(256)))

    # The thread

    def change(self) -> None:
        choices = random.Random(self.choices.random())
        content = self.data(400_000)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT)
        while not self.ended:
            size = choices.choice((0, 1, 5000, 8192, 100_000, 400_000))
            if choices.random() < 0.6:
                os.pwrite(fd, content[:size], choices.choice((0, 0, 4096, 100_000)))
            else:
                os.ftruncate(fd, size)
            if choices.random() < 0.3:
                time.sleep(0.0005)
        os.close(fd)

    # The run

    async def run(self, seconds: float) -> None:
        self.path.write_bytes(self.data(400_000))
        self.written.touch()
        changing = threading.Thread(target=self.change)
        changing.start()
        try:
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as nursery:
                    for call in (self.read_files, self.read_at_once, self.read_into, self.send, self.write):
                        nursery.start_soon(self.repeat, call)
        finally:
            self.ended = True
            changing.join()

    async def repeat(self, call: Callable[[], Awaitable[None]]) -> None:
        while True:
            with trio.move_on_after(self.choices.choice((0.0005, 0.01, 1, 1))):
                await call()
            await trio.lowlevel.checkpoint()

    async def read_files(self) -> None:
        mode, buffering = self.choices.choice((("rb", -1), ("rb", 0), ("r+b", -1), ("rb", 70_000), ("r", -1)))
        options: dict[str, Any] = {} if "b" in mode else {"encoding": "latin-1", "newline": ""}
        async with await trio.open_file(self.path, mode, buffering, **options) as file:
            for _ in range(4):
                await file.seek(self.choices.choice((0, 0, 4000)))
                name = self.choices.choice(("read", "readline", "readlines", "read1", "peek", "pread"))
                if not hasattr(file, name):
                    name = "read"
                await self.call(file, name)

    async def call(self, file: Any, name: str) -> None:
        size = self.choices.choice((*SIZES, -1))
        if name == "pread":
            self.look(await file.pread(abs(size), self.choices.choice((0, 5000))))
        elif name == "readlines":
            for line in await file.readlines(size):
                self.look(line)
        else:
            self.look(await getattr(file, name)(size))

    async def read_at_once(self) -> None:
        self.look(await trio.Path(self.path).read_bytes())
        self.look(await trio.Path(self.path).read_text("latin-1"))

    async def read_into(self) -> None:
        """What is behind the bytes that were read stays as it was, unless the file was cut off meanwhile."""
        buffer = bytearray(UNTOUCHED * self.choices.choice(SIZES))
        kind = self.choices.choice(("readinto", "lowlevel", "vector"))
        if kind == "readinto":
            opened: Any = await trio.open_file(self.path, "rb", self.choices.choice((0, -1)))
            async with opened as file:
                got = await file.readinto(buffer)
        else:
            fd = await lowlevel.openat(self.path, os.O_RDONLY)
            try:
                if kind == "lowlevel":
                    got = await lowlevel.read(fd, buffer, 0)
                else:
                    views = [memoryview(buffer)[: len(buffer) // 2], memoryview(buffer)[len(buffer) // 2 :]]
                    got = await lowlevel.readv(fd, views, 0)
            finally:
                os.close(fd)
        self.look(memoryview(buffer)[:got])
        self.look(bytes(buffer[got:]).translate(None, UNTOUCHED))

    async def send(self) -> None:
        """A peer gets nothing but what is in the file, and a receiver nothing but what was sent."""
        near, far = socket.socketpair()
        far.setblocking(False)
        async with trio.SocketStream(trio.socket.from_stdlib_socket(near)) as stream:
            with far:
                received: Callable[[], Awaitable[bytes]] = partial(
                    stream.receive_some, self.choices.choice(SIZES)
                )
                for _ in range(4):
                    far.send(self.data(self.choices.choice((1, 500, 20_000))))
                    self.look(await received())
                with suppress(trio.TooSlowError), trio.fail_after(0.005), open(self.path, "rb") as file:
                    await trio_uring.send_file(stream, file, count=self.choices.choice((100, 100_000)))
                with suppress(BlockingIOError):
                    while data := far.recv(100_000):
                        self.look(data)

    async def write(self) -> None:
        try:
            async with await trio.open_file(self.written, "w+b", self.choices.choice((-1, 0, 100))) as file:
                for _ in range(self.choices.randrange(6)):
                    await file.write(self.data(self.choices.choice(SIZES)))
                    if self.choices.random() < 0.3:
                        await file.seek(self.choices.choice((0, 5, 20_000)))
        finally:
            self.look(self.written.read_bytes())


def main() -> None:
    folder, seconds, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    assert set(uncleared_bytes(200_000)) - set(ALLOWED), "memory is not marked"
    seen = []
    for ring in RINGS:
        reading = Reading(folder, seed)
        trio_uring.run(reading.run, seconds / len(RINGS), ring=ring)
        seen.append(reading.seen)
    print(*seen)


if __name__ == "__main__":
    main()
