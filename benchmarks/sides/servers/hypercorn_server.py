"""Hypercorn with an ASGI application that answers what the http kind of our own servers does.

    python -m sides.servers.hypercorn_server --runtime RUNTIME

Its settings are its own, but for the backlog and for how long it keeps an idle connection,
which under strace, where one may wait for its turn, would be too short; and it writes only
warnings. What only the other side needs is not imported, since a server's memory is measured.
"""

from __future__ import annotations

import argparse
from functools import partial

from hypercorn.config import Config
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPResponseStartEvent, Scope

from sides.runtimes import TRIO, run_asyncio, run_trio
from sides.servers.start import BACKLOG, bound_socket, port, raise_open_files

RUNTIMES = (*TRIO, "asyncio", "uvloop")
BODY = b"Hello world\n"


async def application(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    start: HTTPResponseStartEvent = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(BODY))],
        "trailers": False,
    }
    await send(start)
    await send({"type": "http.response.body", "body": BODY, "more_body": False})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runtime", choices=RUNTIMES, required=True)
    runtime = parser.parse_args().runtime
    raise_open_files()
    bound = bound_socket("http")
    number = port(bound)
    config = Config()
    config.bind = [f"fd://{bound.detach()}"]
    config.backlog = BACKLOG
    config.keep_alive_timeout = 600
    config.loglevel = "WARNING"
    if runtime in TRIO:
        from hypercorn.trio import serve as serve_trio

        from sides.servers.trio_control import serve_on_trio

        on_trio = partial(serve_trio, application, config, mode="asgi")
        run_trio(runtime, partial(serve_on_trio, number, on_trio))
    else:
        from hypercorn.asyncio import serve as serve_asyncio

        from sides.servers.asyncio_control import serve_on_asyncio

        on_asyncio = partial(serve_asyncio, application, config, mode="asgi")
        run_asyncio(runtime, partial(serve_on_asyncio, number, on_asyncio))


if __name__ == "__main__":
    main()
