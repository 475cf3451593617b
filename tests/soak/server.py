"""The server of a soak: a process that soak.py starts, asks what it holds, and has end.

A line of JSON says where it listens. Then each line of its standard input is answered by one that tells what
it holds: "look" at once, "rest" when the rounds of its own parts have ended, which begin again after "go on".
"end" ends the run, and the next line is answered by which descriptors that has left.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import socket
import ssl
import sys
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
import trustme
from dialogue import questions, say
from holdings import holdings
from judging import left
from pace import Pace
from parts import PARTS, Rounds
from planted import AFTER_REST, PLANTED
from services import Services, answer_datagrams
from wire import SEED
from work import Work

import trio_uring

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

RUNS = {"io_uring": trio_uring.run, "epoll": trio.run}


class Server:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.folder: Path = arguments.folder
        self.pace = Pace(arguments.pause, arguments.patience, arguments.stacks)
        self.rounds = Rounds(self.folder, arguments.seed)
        self.planted: list[str] = arguments.plant
        self.work = Work(SEED, self.folder, frozenset())
        self.work.lossy = "byte" in self.planted
        self.first: dict[str, Any] = {}
        """What it held before the load."""
        self.unraisable: list[str] = []
        sys.unraisablehook = lambda met: self.unraisable.append(f"{met.object!r}: {met.exc_value!r}")

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pace.watch)
            say({"where": await self.listen(nursery)})
            self.start(nursery)
            async with aclosing(questions()) as asked:
                async for question in asked:
                    say(await self.answer(question))
                    if question == "end":
                        break
            nursery.cancel_scope.cancel()

    async def answer(self, question: str) -> dict[str, Any]:
        if question == "go on":
            for name in AFTER_REST.keys() & self.planted:
                AFTER_REST[name]()
            self.pace.go_on()
        elif question == "rest":
            await self.pace.rest()
            return await self.at_rest()
        return self.look()

    async def listen(self, nursery: trio.Nursery) -> dict[str, Any]:
        authority = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)
        serve = Services(self.work).serve
        (tcp,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        (tls,) = await nursery.start(partial(trio.serve_ssl_over_tcp, serve, 0, context, host="127.0.0.1"))
        unix = trio.socket.socket(socket.AF_UNIX)
        path = str(self.folder / "socket")
        await unix.bind(path)
        unix.listen(4096)  # since Trio takes a connect that is refused for one that goes on
        await nursery.start(trio.serve_listeners, serve, [trio.SocketListener(unix)])
        return {
            "tcp": tcp.socket.getsockname()[1],
            "tls": tls.transport_listener.socket.getsockname()[1],
            "unix": path,
            "udp": await datagrams(nursery),
            "flooded": await datagrams(nursery),
            "authority": authority.cert_pem.bytes().decode(),
        }

    def start(self, nursery: trio.Nursery) -> None:
        plays: dict[str, Callable[[], Awaitable[object]]] = {
            part.__name__: partial(self.rounds.play, part) for part in PARTS
        }
        if "hang" in self.planted:
            plays["planted"] = trio.sleep_forever
        for name, play in plays.items():
            nursery.start_soon(self.pace.repeat, name, play, name=name)

    def look(self) -> dict[str, Any]:
        assert not self.unraisable, self.unraisable
        found: dict[str, Any] = holdings()
        found["cpu"] = sum(os.times()[:4])
        found["rounds"] = dict(self.pace.rounds)
        found["checked"] = self.work.checked + self.rounds.checked
        return found

    async def at_rest(self) -> dict[str, Any]:
        """When nobody wants anything any more: what is left of the load has gone, or does not go."""
        found = self.look()
        unchanged = 0
        while unchanged < 10 and (not self.first or left(self.first, found)):
            await trio.sleep(0.1)
            before, found = found, self.look()
            unchanged = 0 if left(found, before) else unchanged + 1
        self.first = self.first or found
        return found


async def datagrams(nursery: trio.Nursery) -> int:
    """The port of a socket that answers."""
    sock = trio.socket.socket(type=socket.SOCK_DGRAM)
    await sock.bind(("127.0.0.1", 0))
    nursery.start_soon(answer_datagrams, sock)
    port: int = sock.getsockname()[1]
    return port


def descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{name}"
        if os.path.lexists(path):
            found[name] = os.readlink(path)
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("backend", choices=RUNS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stacks", type=Path, required=True)
    parser.add_argument("--pause", type=float, required=True)
    parser.add_argument("--patience", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--plant", choices=PLANTED, nargs="*", default=[])
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    signal.signal(signal.SIGUSR1, lambda *_: None)  # for one that comes after its receiver is gone
    before = descriptors()
    server = Server(arguments)
    RUNS[arguments.backend](server.run)
    gc.collect()
    after = descriptors()
    more = {name: target for name, target in after.items() if before.get(name) != target}
    sys.stdin.readline()
    say({"before": len(before), "after": len(after), "left": more})


if __name__ == "__main__":
    main()
