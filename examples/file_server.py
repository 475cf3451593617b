"""A static file server: GET and HEAD of HTTP/1.1, and `trio_uring.send_file`, which copies nothing.

    python -m trio_uring file_server.py FOLDER 127.0.0.1 8000

Serves nothing outside FOLDER, wherever links lead. SIGTERM and Ctrl-C give it 10 seconds to finish.
"""

import signal
import sys
from contextlib import suppress
from functools import partial
from mimetypes import guess_type
from urllib.parse import unquote, urlsplit

import h11
import trio

from trio_uring import Path, send_file

NEXT_REQUEST, WHOLE_ANSWER, GRACE = 5, 600, 10  # seconds


async def serve(folder: Path, accepting: trio.CancelScope, stream: trio.SocketStream) -> None:
    http = h11.Connection(h11.SERVER)
    with suppress(OSError, trio.BrokenResourceError, trio.TooSlowError, h11.ProtocolError):
        async with stream:  # the client may go, be too slow or speak no HTTP; the file may not be readable
            while not accepting.cancel_called:
                with trio.fail_after(NEXT_REQUEST):
                    while (request := http.next_event()) is h11.NEED_DATA:
                        http.receive_data(await stream.receive_some())
                if not isinstance(request, h11.Request):
                    break
                with trio.fail_after(WHOLE_ANSWER):
                    await answer(await find(folder, request), request.method, http, stream)
                http.next_event()  # the end of the request
                http.start_next_cycle()


async def find(folder: Path, request: h11.Request) -> Path | None:
    with suppress(OSError, ValueError):  # which can be no name of a file
        name = unquote(urlsplit(request.target).path.decode())
        index = "index.html" if name.endswith("/") else ""
        path = await (folder / (name + index).lstrip("/")).resolve()
        return path if path.is_relative_to(folder) and await path.is_file() else None
    return None


async def answer(path: Path | None, method: bytes, http: h11.Connection, stream: trio.SocketStream) -> None:
    status = 404 if path is None else 200 if method in (b"GET", b"HEAD") else 405
    size = (await path.stat()).st_size if path and status == 200 else 0
    kind = guess_type(path or "")[0] or "application/octet-stream"
    headers = [("content-length", str(size)), ("content-type", kind)]
    await stream.send_all(http.send(h11.Response(status_code=status, headers=headers)) or b"")
    if path and size and method == b"GET":  # h11 counts what is sent, by the length of anything that has one
        async with await path.open("rb") as file:
            http.send_with_data_passthrough(h11.Data(data=range(size)))  # type: ignore[arg-type]
            if await send_file(stream, file, 0, size) < size:
                raise trio.BrokenResourceError("the file has become shorter")
    await stream.send_all(http.send(h11.EndOfMessage()) or b"")


async def main(name: str, host: str, port: int) -> None:
    folder = await Path(name).resolve()
    if not await folder.is_dir():
        sys.exit(f"{name} is no folder")
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as clients, trio.open_nursery() as accepting:
            handler = partial(serve, folder, accepting.cancel_scope)
            await accepting.start(partial(trio.serve_tcp, handler, port, host=host, handler_nursery=clients))
            print(f"http://{host}:{port}/", flush=True)
            await anext(signals)
            accepting.cancel_scope.cancel()
            clients.cancel_scope.deadline = trio.current_time() + GRACE


if __name__ == "__main__":
    if len(sys.argv) != 4 or not sys.argv[3].isdecimal():
        sys.exit(__doc__)
    trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
