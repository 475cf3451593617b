"""Tries an installed trio-uring: the doctor, then hypercorn's two workers, a file and TLS.

``python smoke.py`` in an environment with trio-uring, hypercorn[trio] and trustme. It fails if
trio-uring is one of a checkout, if liburing is not inside the core, if io_uring is not used, or if
an answer is wrong.

hypercorn is an unmodified Trio program, and its workers are processes that it starts: so this
proves the start file of the wheel as well.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
import trustme

import trio_uring

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HERE = Path(__file__).resolve()
PATIENCE = 60
WORKERS = 2


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """What hypercorn serves: this file, as trio-uring reads it, and which worker read it how."""
    while scope["type"] == "lifespan":
        asked = (await receive())["type"]
        await send({"type": f"{asked}.complete"})
        if asked == "lifespan.shutdown":
            return
    async with await trio_uring.open_file(HERE) as file:
        text = await file.read()
    backend = trio.lowlevel.current_statistics().io_statistics.backend
    answer = json.dumps({"worker": os.getpid(), "backend": backend, "file": text}).encode()
    headers = [(b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def main() -> None:
    found = examine()
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        authority = trustme.CA()
        certificate = str(Path(folder, "certificate"))
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        context = ssl.create_default_context()
        authority.configure_trust(context)
        hypercorn = ["-m", "trio_uring", "-m", "hypercorn", "-k", "trio", "--graceful-timeout", "0"]
        bound = ["--bind", f"fd://{listener.fileno()}", "--certfile", certificate, "--keyfile", certificate]
        server = subprocess.Popen(
            [sys.executable, *hypercorn, "--workers", str(WORKERS), *bound, "smoke:app"],
            cwd=HERE.parent,
            pass_fds=(listener.fileno(),),
            start_new_session=True,
        )
        try:
            asked = trio_uring.run(ask_all, listener.getsockname()[1], context)
            server.send_signal(signal.SIGTERM)
            status = server.wait(PATIENCE)
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
    assert status == 0, f"hypercorn ended with {status}"
    print(
        f"{found['trio_uring']} on CPython {found['python']}: {WORKERS} workers on io_uring gave a file "
        f"over TLS, in {asked} requests; liburing {found['liburing_loaded']} inside"
    )


def examine() -> dict[str, Any]:
    """What the doctor says, which has to be that all is well."""
    assert "site-packages" in trio_uring.__file__, f"this is not installed: {trio_uring.__file__}"
    done = subprocess.run(
        [sys.executable, "-m", "trio_uring", "doctor", "--json"],
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        check=False,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, f"{found['reason']}. {found['remedy']}"
    assert found["usable"]
    assert found["liburing_inside"], found["liburing_path"]
    assert found["start_file"], "the wheel has no start file"
    return found


async def ask_all(port: int, context: ssl.SSLContext) -> int:
    """Asks until each worker has answered; returns how often that took."""
    workers: set[int] = set()
    asked = 0
    with trio.fail_after(PATIENCE):
        while len(workers) < WORKERS:
            answer = await ask(port, context)
            assert answer["backend"] == "io_uring", answer["backend"]
            assert answer["file"] == await trio_uring.Path(HERE).read_text()
            workers.add(answer["worker"])
            asked += 1
    return asked


async def ask(port: int, context: ssl.SSLContext) -> dict[str, Any]:
    stream = await trio.open_ssl_over_tcp_stream(
        "127.0.0.1", port, ssl_context=context, https_compatible=True
    )
    async with stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join([part async for part in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    return dict(json.loads(body))


if __name__ == "__main__":
    main()
