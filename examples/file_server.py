"""A static file server: GET and HEAD of HTTP/1.1, and `trio_uring.send_file`, which copies nothing.

    python -m trio_uring file_server.py FOLDER 127.0.0.1 8000

Serves what is in FOLDER, not what links lead to outside; where an address ends with a slash, index.html
of that folder. SIGTERM and Ctrl-C give it 10 seconds to finish.
"""

import os
import signal
import sys
from contextlib import suppress
from functools import partial
from mimetypes import guess_type
from urllib.parse import unquote, urlsplit

import h11
import trio

import trio_uring

NEXT_REQUEST, WHOLE_ANSWER, GRACE = 5, 600, 10  # seconds


async def serve(folder: trio_uring.Path, accepting: trio.CancelScope, stream: trio.SocketStream) -> None:
    http = h11.Connection(h11.SERVER)
    # The client has gone, is too slow or speaks no HTTP; or the file cannot be read.
    with suppress(OSError, trio.BrokenResourceError, trio.TooSlowError, h11.ProtocolError):
        async with stream:
            while not accepting.cancel_called:
                with trio.fail_after(NEXT_REQUEST):
                    while (request := http.next_event()) is h11.NEED_DATA:
                        http.receive_data(await stream.receive_some())
                if not isinstance(request, h11.Request):
                    break
                with trio.fail_after(WHOLE_ANSWER):
                    await answer(await find(folder, request), request, http, stream)
                http.next_event()  # the end of the request
                http.start_next_cycle()


async def find(folder: trio_uring.Path, request: h11.Request) -> trio_uring.Path | None:
    try:
        name = unquote(urlsplit(request.target).path.decode())
        if name.endswith("/"):
            name += "index.html"
        path = await (folder / name.lstrip("/")).resolve()
        return path if path.is_relative_to(folder) and await path.is_file() else None
    except (OSError, ValueError):
        return None


async def answer(
    path: trio_uring.Path | None, request: h11.Request, http: h11.Connection, stream: trio.SocketStream
) -> None:
    async def send_head(status: int, size: int, kind: str = "text/plain") -> None:
        headers = [("content-length", str(size)), ("content-type", kind)]
        await stream.send_all(http.send(h11.Response(status_code=status, headers=headers)) or b"")

    if path is None or request.method not in (b"GET", b"HEAD"):
        await send_head(404 if path is None else 405, 0)
    else:
        async with await path.open("rb") as file:
            size = (await path.stat()).st_size
            await send_head(200, size, guess_type(path.name)[0] or "application/octet-stream")
            if request.method == b"GET":  # h11 counts what is sent, by the length of anything that has one
                http.send_with_data_passthrough(h11.Data(data=range(size)))  # type: ignore[arg-type]
                if await trio_uring.send_file(stream, file, 0, size) < size:
                    raise trio.BrokenResourceError("the file has become shorter")
    await stream.send_all(http.send(h11.EndOfMessage()) or b"")


async def main(name: str, host: str, port: int) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as clients, trio.open_nursery() as accepting:
            handler = partial(serve, await trio_uring.Path(name).resolve(strict=True), accepting.cancel_scope)
            await accepting.start(partial(trio.serve_tcp, handler, port, host=host, handler_nursery=clients))
            print(f"http://{host}:{port}/", flush=True)
            await anext(signals)
            accepting.cancel_scope.cancel()
            clients.cancel_scope.deadline = trio.current_time() + GRACE


if __name__ == "__main__":
    match sys.argv[1:]:
        case name, host, port if port.isdecimal():
            if not os.path.isdir(name):
                sys.exit(f"{name} is no folder")
            trio.run(main, name, host, int(port))
        case _:
            sys.exit(__doc__)
