"""A server on Trio with a greedy connection, and beside it a task that wants to run now and then.

    python -m sides.servers.greedy_server --runtime RUNTIME --kind greedy

The handler echoes in small pieces, and its client sends so much at a time that the next
piece is there already and there is room for the reply: none of its calls has to wait. The
other task sleeps again and again, and keeps how late it ran. How long it sleeps is
exponentially distributed, so that it samples all moments of the handler alike.
"""

from __future__ import annotations

import random
import socket
from functools import partial

import trio

from measure.percentiles import percentiles
from sides.runtimes import TRIO, run_trio
from sides.servers.start import arguments, bound_socket, port, raise_open_files
from sides.servers.trio_control import serve_on_trio

PIECE = 64
SLEEP = 0.3e-3
"""Seconds, on average."""


class Bystander:
    def __init__(self) -> None:
        self.late: list[float] = []

    async def run(self) -> None:
        while True:
            moment = trio.current_time() + random.expovariate(1 / SLEEP)
            await trio.sleep_until(moment)
            self.late.append(trio.current_time() - moment)

    def count(self) -> dict[str, object]:
        return {"late": percentiles(self.late)}


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
        partial(serve_on_trio, port(bound), partial(serve, bound, bystander), bystander.count),
    )


if __name__ == "__main__":
    main()
