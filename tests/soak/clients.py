"""The clients of a soak: a process on Trio's epoll, which soak.py starts, asks what it has done, and has end.

Where the server is stands in a file of the folder that it is told. Each line of standard input is answered
by one that tells what was done since the last one: "look", "rest" and "go on" are as in server.py.
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import statistics
import struct
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from dialogue import questions, say
from pace import Pace
from wire import (
    BROKEN_DOWNLOAD,
    BROKEN_UPLOAD,
    DONE,
    DOWNLOAD,
    ECHO,
    SEED,
    SLOW_UPLOAD,
    STORED,
    UPLOAD,
    WHERE,
    pieces,
    receive_exactly,
    request,
)
from work import Work
from work_on_streams import Broken, receive, send

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Connect = Callable[[], Awaitable[trio.abc.Stream]]

PING = 64
NO_TIME_TO_LINGER = struct.pack("ii", 1, 0)


class Clients:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.work = Work(SEED, arguments.folder, frozenset())
        self.pace = Pace(arguments.pause, arguments.patience, arguments.stacks)
        self.where: dict[str, Any] = json.loads((arguments.folder / WHERE).read_text())
        self.context = ssl.create_default_context(cadata=self.where["authority"])
        self.latencies: list[float] = []
        self.connections = 0
        self.lost = 0
        """Datagrams of floods that did not come back."""

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pace.watch)
            self.start(nursery)
            say({})
            async with aclosing(questions()) as asked:
                async for question in asked:
                    if question == "go on":
                        self.pace.go_on()
                    elif question == "rest":
                        await self.pace.rest()
                    say(self.look())
            nursery.cancel_scope.cancel()

    def start(self, nursery: trio.Nursery) -> None:
        transports = {"tcp": self.connect_tcp, "tls": self.connect_tls, "unix": self.connect_unix}
        kinds = (self.ping, self.echo, self.upload, self.download, self.store, self.flood, self.read_slowly)
        plays: dict[str, Callable[[], Awaitable[object]]] = {
            f"{kind.__name__} {name}": partial(self.over, connect, kind)
            for name, connect in transports.items()
            for kind in kinds
        }
        for name, connect in transports.items():
            plays[f"come and go {name}"] = partial(self.come_and_go, connect)
            plays[f"break off {name}"] = partial(self.break_off, connect)
        plays["rubbish"] = self.send_rubbish
        plays["datagrams"] = self.ask_by_datagrams
        plays["flood of datagrams"] = self.flood_with_datagrams
        for name, play in plays.items():
            nursery.start_soon(self.pace.repeat, name, play, name=name)

    def look(self) -> dict[str, Any]:
        latencies, self.latencies = self.latencies, []
        return {
            "requests": dict(self.pace.rounds),
            "connections": self.connections,
            "received and checked": self.work.checked,
            "p50": statistics.median(latencies) if latencies else None,
            "p99": statistics.quantiles(latencies, n=100)[98] if len(latencies) > 1 else None,
            "lost datagrams": self.lost,
        }

    # Ways to the server

    async def connect_tcp(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.where["tcp"])

    async def connect_tls(self) -> trio.SSLStream[trio.SocketStream]:
        stream = await trio.open_tcp_stream("127.0.0.1", self.where["tls"])
        return trio.SSLStream(stream, self.context, server_hostname="localhost")

    async def connect_unix(self) -> trio.SocketStream:
        return await trio.open_unix_socket(self.where["unix"])

    # What is done over each

    async def over(self, connect: Connect, kind: Callable[[trio.abc.Stream], Awaitable[None]]) -> None:
        self.connections += 1
        async with await connect() as stream:
            await kind(stream)

    async def ping(self, stream: trio.abc.Stream) -> None:
        message = self.work.expected(0, PING)
        for _ in range(20):
            began = trio.current_time()
            await stream.send_all(request(ECHO, PING) + message)
            answer = await receive_exactly(stream, PING)
            self.latencies.append(trio.current_time() - began)
            assert len(answer) == PING, "the end instead of an answer"
            self.work.check(answer, 0)

    async def echo(self, stream: trio.abc.Stream) -> None:
        size = 60_000
        await stream.send_all(request(ECHO, size))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, self.work, stream, size)
            await send(self.work, stream, size)

    async def upload(self, stream: trio.abc.Stream) -> None:
        await stream.send_all(request(UPLOAD, 100_000))
        await send(self.work, stream, 100_000)
        assert await receive_exactly(stream, len(DONE)) == DONE

    async def download(self, stream: trio.abc.Stream) -> None:
        await stream.send_all(request(DOWNLOAD, 100_000))
        await receive(self.work, stream, 100_000)

    async def store(self, stream: trio.abc.Stream) -> None:
        await stream.send_all(request(STORED, 100_000))
        await send(self.work, stream, 100_000)
        await receive(self.work, stream, 100_000)

    async def flood(self, stream: trio.abc.Stream) -> None:
        """At once, more than the server takes in its time."""
        size = 200_000
        await stream.send_all(request(SLOW_UPLOAD, size) + self.work.expected(0, size))
        assert await receive_exactly(stream, len(DONE)) == DONE

    async def read_slowly(self, stream: trio.abc.Stream) -> None:
        await stream.send_all(request(DOWNLOAD, 1_000_000))
        async for _ in pieces(self.work, stream, 1_000_000, 50_000):
            await trio.sleep(0.02)

    # What comes and goes

    async def come_and_go(self, connect: Connect) -> None:
        for _ in range(10):
            await self.over(connect, self.echo_one)

    async def echo_one(self, stream: trio.abc.Stream) -> None:
        await stream.send_all(request(ECHO, 1) + self.work.expected(0, 1))
        assert await receive_exactly(stream, 1) == self.work.expected(0, 1)

    async def break_off(self, connect: Connect) -> None:
        """In the middle: closed, reset, or cut off in a handshake. Between them is one who waits, so that
        they cannot come faster than the server takes them."""
        for kind in (BROKEN_UPLOAD, BROKEN_DOWNLOAD):
            self.connections += 1
            stream = await connect()
            below = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
            assert isinstance(below, trio.SocketStream)
            if self.work.choices.random() < 0.5:
                below.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_TIME_TO_LINGER)
            with trio.move_on_after(self.work.choices.choice((0, 0.001, 0.02))):
                await stream.send_all(request(kind, 10_000_000))
                if kind == BROKEN_UPLOAD:
                    await stream.send_all(self.work.expected(0, 200_000))
                else:
                    await receive_exactly(stream, self.work.size(100_000))
            await trio.aclose_forcefully(stream)
            await self.over(connect, self.echo_one)

    async def send_rubbish(self) -> None:
        """Where TLS is expected."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.where["tls"])
        async with stream:
            try:
                await stream.send_all(self.work.expected(0, 1000))
                while await stream.receive_some():
                    pass
            except Broken:
                pass

    # Datagrams

    async def ask_by_datagrams(self) -> None:
        """One at a time is on its way, so that none is dropped."""
        with trio.socket.socket(type=socket.SOCK_DGRAM) as sock:
            await sock.connect(("127.0.0.1", self.where["udp"]))
            for number in range(50):
                datagram = self.work.expected(number, 1 + number * 20)
                await sock.send(datagram)
                answer = await sock.recv(2000)
                assert len(answer) == len(datagram)
                self.work.check(answer, number)

    async def flood_with_datagrams(self) -> None:
        """As many as the kernel takes, some of which it may drop; what comes back is as it was."""
        with trio.socket.socket(type=socket.SOCK_DGRAM) as sock:
            await sock.connect(("127.0.0.1", self.where["flooded"]))
            for number in range(300):
                await sock.send(number.to_bytes(2, "big") + self.work.expected(number, 1000))
            answers = 0
            with trio.move_on_after(0.3):
                while answers < 300:
                    answer = await sock.recv(2000)
                    assert len(answer) == 1002
                    self.work.check(answer[2:], int.from_bytes(answer[:2], "big"))
                    answers += 1
            self.lost += 300 - answers


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stacks", type=Path, required=True)
    parser.add_argument("--pause", type=float, required=True)
    parser.add_argument("--patience", type=float, required=True)
    trio.run(Clients(parser.parse_args()).run)


if __name__ == "__main__":
    main()
