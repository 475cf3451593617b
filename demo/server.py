"""An HTTP server on Trio: hypercorn serves the files of a folder and an echo WebSocket.

A plain Trio program, which knows nothing of trio-uring. Usage: server.py FOLDER.
Prints its address; ends when its standard input does, so that it never outlives
the program that started it.
"""

from __future__ import annotations

import json
import sys

import attrs
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope, WebsocketScope


class Application:
    """``/files/NAME``, ``/statistics`` (what this Trio run says of its I/O), WebSocket ``/echo``."""

    def __init__(self, folder: trio.Path) -> None:
        self.folder = folder

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "http":
            await self.respond(scope, send)
        elif scope["type"] == "websocket":
            await self.echo(scope, receive, send)
        else:
            await self.live(receive, send)

    async def respond(self, scope: HTTPScope, send: ASGISendCallable) -> None:
        status, body = await self.find(scope["path"])
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers, "trailers": False})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def find(self, path: str) -> tuple[int, bytes]:
        if path == "/statistics":
            statistics = trio.lowlevel.current_statistics().io_statistics
            return 200, json.dumps(attrs.asdict(statistics)).encode()
        name = path.removeprefix("/files/")
        if name != path and "/" not in name and await (self.folder / name).is_file():
            return 200, await (self.folder / name).read_bytes()
        return 404, b"no such file"

    async def echo(self, scope: WebsocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert (await receive())["type"] == "websocket.connect"
        if scope["path"] != "/echo":
            await send({"type": "websocket.close", "code": 1008, "reason": "no such endpoint"})
            return
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": event["bytes"], "text": event["text"]})

    async def live(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


async def standard_input_ends() -> None:
    async with trio.lowlevel.FdStream(sys.stdin.fileno()) as stream:
        while await stream.receive_some():
            pass


async def main(folder: str) -> None:
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.loglevel = "WARNING"
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(serve, Application(trio.Path(folder)), config)
        print(address, flush=True)
        await standard_input_ends()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
