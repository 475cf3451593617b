"""Trio on io_uring as a guest of asyncio, both in one thread.

Trio serves an echo, asyncio prints who has connected:
    python guest_in_asyncio.py 127.0.0.1 8000
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import outcome
import trio

import trio_uring

T = TypeVar("T")


async def run_trio(async_fn: Callable[..., Awaitable[T]], *args: object) -> T:
    """What ``async_fn(*args)`` returns or raises as a Trio program; a cancellation is handed on to it."""
    loop, scope = asyncio.get_running_loop(), trio.CancelScope()
    ended: asyncio.Future[outcome.Outcome[T]] = loop.create_future()

    async def main() -> T:
        with scope:
            return await async_fn(*args)
        raise asyncio.CancelledError

    trio_uring.start_guest_run(
        main,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        run_sync_soon_not_threadsafe=loop.call_soon,
        done_callback=ended.set_result,
        host_uses_signal_set_wakeup_fd=True,
    )
    token = trio.lowlevel.current_trio_token()
    while not ended.done():
        try:
            await asyncio.wait([ended])  # which does not cancel the future, as `await ended` would
        except asyncio.CancelledError:
            if not ended.done():
                token.run_sync_soon(scope.cancel)
    return ended.result().unwrap()


async def serve(host: str, port: int, connected: asyncio.Queue[str]) -> None:
    async def echo(stream: trio.SocketStream) -> None:
        with suppress(OSError, trio.BrokenResourceError, asyncio.QueueFull), trio.move_on_after(3600):
            connected.put_nowait("{}:{}".format(*stream.socket.getpeername()))
            async for data in stream:
                await stream.send_all(data)

    print(trio.lowlevel.current_statistics().io_statistics.backend, flush=True)
    await trio.serve_tcp(echo, port, host=host)


async def tell(connected: asyncio.Queue[str]) -> None:
    while True:
        print(await connected.get(), flush=True)


async def main(host: str, port: int) -> None:
    connected: asyncio.Queue[str] = asyncio.Queue(1000)
    serving = asyncio.create_task(run_trio(serve, host, port, connected))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    telling = asyncio.create_task(tell(connected))
    with suppress(asyncio.CancelledError):  # by a signal
        await serving
    telling.cancel()


if __name__ == "__main__":
    if len(sys.argv) != 3 or not sys.argv[2].isdecimal():
        sys.exit(__doc__)
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
