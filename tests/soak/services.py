"""What the server does for clients: wire.py says what they ask for."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import trio
from wire import (
    BROKEN_DOWNLOAD,
    BROKEN_UPLOAD,
    DONE,
    DOWNLOAD,
    ECHO,
    SLOW_UPLOAD,
    STORED,
    UPLOAD,
    next_request,
    pieces,
)
from work_on_streams import Broken, receive, receive_beginning, send, send_somehow

import trio_uring

if TYPE_CHECKING:
    from work import Work


class Services:
    """One server's: each connection is served by its own task."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._names = itertools.count()

    async def serve(self, stream: trio.abc.Stream) -> None:
        """A connection may break: who has not broken it off himself misses something then, and says so. What
        is not as it should be ends the server."""
        try:
            async with stream:
                while (asked := await next_request(stream)) is not None:
                    await self._answer(stream, *asked)
        except (*Broken, ConnectionError):
            pass

    async def _answer(self, stream: trio.abc.Stream, kind: bytes, size: int) -> None:
        if kind == ECHO:
            await self._echo(stream, size)
        elif kind == UPLOAD:
            await receive(self._work, stream, size)
            await stream.send_all(DONE)
        elif kind == SLOW_UPLOAD:
            await self._receive_slowly(stream, size)
            await stream.send_all(DONE)
        elif kind == STORED:
            await self._store(stream, size)
        elif kind in (DOWNLOAD, BROKEN_DOWNLOAD):
            await send(self._work, stream, size)
        else:
            assert kind == BROKEN_UPLOAD, kind
            await receive_beginning(self._work, stream)

    async def _echo(self, stream: trio.abc.Stream, size: int) -> None:
        async for data in pieces(self._work, stream, size):
            await send_somehow(self._work, stream, data)

    async def _receive_slowly(self, stream: trio.abc.Stream, size: int) -> None:
        async for _ in pieces(self._work, stream, size, 5000):
            await trio.sleep(0.005)

    async def _store(self, stream: trio.abc.Stream, size: int) -> None:
        path = trio_uring.Path(self._work.folder / f"stored {next(self._names)}")
        try:
            async with await trio_uring.open_file(path, "w+b") as file:
                async for data in pieces(self._work, stream, size):
                    await file.write(data)
                await file.flush()  # send_file sends what the kernel has
                assert await trio_uring.send_file(stream, file) == size
        finally:
            with trio.CancelScope(shield=True):
                await path.unlink(missing_ok=True)


async def answer_datagrams(sock: trio.socket.SocketType) -> None:
    """Each goes back to where it came from; who is gone by then has got no answer."""
    while True:
        try:
            datagram, address = await sock.recvfrom(2000)
            await sock.sendto(datagram, address)
        except ConnectionRefusedError:
            pass
