"""Hypercorn with an ASGI application that answers what the http kind of our own servers does.

    python -m sides.servers.hypercorn_server --runtime RUNTIME [--certificate FILE]

Its settings are its own, but for the backlog, for how many requests it takes of one connection, and for
how long it keeps an idle one, which under strace, where one may wait for its turn, would be too short; and
it writes only warnings. With a certificate it serves over TLS, HTTP/1.1 or HTTP/2 as the client says.
What only the other side needs is not imported, since a server's memory is measured.
"""

from __future__ import annotations

import argparse
from functools import partial

from hypercorn.config import Config
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPResponseStartEvent, Scope

from sides.runtimes import ON_ASYNCIO, TRIO, run_asyncio, run_trio
from sides.servers.http import BODY
from sides.servers.start import BACKLOG, bound_socket, port, raise_open_files, refuse_unsupported


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
    parser.add_argument("--runtime", choices=[*TRIO, *ON_ASYNCIO], required=True)
    parser.add_argument("--certificate", metavar="FILE")
    options = parser.parse_args()
    runtime = options.runtime
    refuse_unsupported(runtime, "hypercorn-tls" if options.certificate else "hypercorn")
    raise_open_files()
    bound = bound_socket("http")
    number = port(bound)
    config = Config()
    config.bind = [f"fd://{bound.detach()}"]
    config.backlog = BACKLOG
    config.keep_alive_timeout = 600
    config.keep_alive_max_requests = 1 << 30
    config.certfile = config.keyfile = options.certificate
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
