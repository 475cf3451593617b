"""A server on Trio with a greedy connection, and beside it a task that wants to run now and then.

    python -m sides.servers.greedy_server --runtime RUNTIME --kind greedy

The handler echoes in small pieces, and its client sends so much at a time that the next
piece is there already and there is room for the reply: none of its calls has to wait. The
other task is a `Bystander`.
"""

from __future__ import annotations

import socket
from functools import partial

import trio

from sides.runtimes import TRIO, run_trio
from sides.servers.bystander import Bystander
from sides.servers.start import arguments, bound_socket, port, raise_open_files
from sides.servers.trio_control import serve_on_trio

PIECE = 64


def count(bystander: Bystander) -> dict[str, object]:
    return {"late": bystander.late_by()}


async def serve(bound: socket.socket, bystander: Bystander) -> None:
    """One connection, while which lasts the bystander runs."""
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound))
    async with await listener.accept() as stream, trio.open_nursery() as nursery:
        data = await stream.receive_some(PIECE)
        nursery.start_soon(bystander.run)
        while data:
            await stream.send_all(data)
            data = await stream.receive_some(PIECE)
        nursery.cancel_scope.cancel()


def main() -> None:
    options = arguments(TRIO, ["greedy"])
    raise_open_files()
    bound = bound_socket(options.kind)
    bystander = Bystander()
    run_trio(
        options.runtime,
        partial(serve_on_trio, port(bound), partial(serve, bound, bystander), partial(count, bystander)),
    )


if __name__ == "__main__":
    main()
