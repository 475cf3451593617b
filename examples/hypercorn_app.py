"""An ASGI application, served by hypercorn on Trio.

    python -m trio_uring -m hypercorn -k trio -b 127.0.0.1:8000 hypercorn_app:app
    curl 127.0.0.1:8000/                              {"host": "127.0.0.1:8000"}
    curl 127.0.0.1:8000/healthz                       io_uring
    curl --data-binary @FILE 127.0.0.1:8000/sha256    the digest of what is sent, of any length

At SIGTERM and Ctrl-C hypercorn lets the requests that it has come to their end, for ``--graceful-timeout``
seconds. With ``-w 4`` it runs four processes.
"""

from __future__ import annotations

import hashlib
import json

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

LONGEST_UPLOAD = 60


async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] == "lifespan":
        await live(receive, send)
    elif scope["type"] == "http":
        with trio.move_on_after(LONGEST_UPLOAD) as limit:
            status, body = await respond(scope, receive)
        if limit.cancelled_caught:
            status, body = 408, b"too slow\n"
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers, "trailers": False})
        await send({"type": "http.response.body", "body": body, "more_body": False})


async def respond(scope: HTTPScope, receive: ASGIReceiveCallable) -> tuple[int, bytes]:
    match scope["method"], scope["path"]:
        case "GET" | "HEAD", "/":
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            return 200, json.dumps({"host": host}).encode() + b"\n"
        case "GET" | "HEAD", "/healthz":
            statistics = trio.lowlevel.current_statistics().io_statistics
            return 200, statistics.backend.encode() + b"\n"
        case "POST", "/sha256":
            digest = hashlib.sha256()
            while (message := await receive())["type"] == "http.request":
                digest.update(message["body"])
                if not message["more_body"]:
                    break
            return 200, digest.hexdigest().encode() + b"\n"
    return 404, b"no such page\n"


async def live(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """What the server asks for as it starts and ends: the place to open a database, and to close it."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
