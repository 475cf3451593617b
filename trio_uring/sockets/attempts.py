"""Socket calls that are made at once, and wait by readiness if they would block: all calls of datagram
sockets, and those of stream sockets that are not made by completion.

A datagram that is there costs one system call, and the tick after it none. Two kinds of completion were
measured against this. One receive in the ring for each datagram takes twice the time where a datagram
is there, and makes no difference where none is. Multishot receives into provided buffers are no faster
in a flood of queries: what the kernel saves is spent on finding sender and bounds in Python. They would
also cut what is larger than a buffer, and take datagrams away from others that read the socket. So
nothing is read ahead here, and a call that is cancelled has not happened.

Results, errors, checkpoints and cancellation are those of Trio's own methods, which do the same in more
steps. A call that does not wait spends one of the run's ``checkpoint_budget``; one that fails always
yields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from trio.lowlevel import checkpoint_if_cancelled

from .._tasks import spend
from ..loop.checkpoints import pass_cancel_point, yield_shielded
from ..loop.trio_internals import context
from .below import TAKEN, below

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from ..loop.run import Run

    _Begin: TypeAlias = Callable[[object, tuple[Any, ...]], Run | None]
    _Wait: TypeAlias = Callable[[socket.socket], Awaitable[None]]
    _Otherwise: TypeAlias = Callable[[Any, str, tuple[Any, ...], dict[str, Any]], Awaitable[Any]]


def at_once(name: str, begin: _Begin, wait: _Wait, otherwise: _Otherwise) -> Callable[..., Awaitable[Any]]:
    """Makes a method for Trio's sockets that does what the standard library's method ``name`` does, as
    `attempt` does it, with fewer frames. ``begin``, a function of C, makes the cancel point. It leaves a call
    to Python if the socket may have a connection, or the run is on epoll: then the method returns what
    ``otherwise`` does with the socket, the name and the arguments."""
    taken = TAKEN.get(name)

    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = None if kwargs else begin(self, args)
        if run is None:
            return await otherwise(self, name, args, kwargs)
        call = taken or below(name)
        try:
            result = call(self._sock, *args)
        except BlockingIOError:
            pass
        except BaseException:
            await yield_shielded()
            raise
        else:
            if not (run.budget and spend(run, None)):
                await yield_shielded()
            return result
        return await _call_when_ready(self._sock, wait, call, args)

    return method


async def attempt(run: Run, sock: socket.socket, wait: _Wait, call: Callable[..., Any], *args: Any) -> Any:
    """Returns or raises what ``call`` does, a method of the standard library's sockets. If that would block,
    it is called again when ``wait`` has returned. This is a checkpoint."""
    if pass_cancel_point(context.task):
        await checkpoint_if_cancelled()
    try:
        result = call(sock, *args)
    except BlockingIOError:
        pass
    except BaseException:
        await yield_shielded()
        raise
    else:
        if not (run.budget and spend(run, None)):
            await yield_shielded()
        return result
    return await _call_when_ready(sock, wait, call, args)


async def _call_when_ready(
    sock: socket.socket, wait: _Wait, call: Callable[..., Any], args: tuple[Any, ...]
) -> Any:
    while True:
        await wait(sock)
        try:
            return call(sock, *args)
        except BlockingIOError:
            pass
