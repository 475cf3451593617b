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

import socket
from typing import TYPE_CHECKING, Any, Final

from trio.lowlevel import checkpoint_if_cancelled

from ..loop.checkpoints import pass_cancel_point, yield_shielded
from ..loop.trio_internals import context
from .families import family_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..loop.run import Run

# As numbers they are compared in less time than as members of an enumeration.
_UNIX: Final = int(socket.AF_UNIX)
_INET: Final = int(socket.AF_INET)
_INET6: Final = int(socket.AF_INET6)


async def attempt(
    run: Run,
    sock: socket.socket,
    wait: Callable[[socket.socket], Awaitable[None]],
    call: Callable[..., Any],
    *args: Any,
) -> Any:
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
        if not (run.budget and run.spend()):
            await yield_shielded()
        return result
    while True:
        await wait(sock)
        try:
            return call(sock, *args)
        except BlockingIOError:
            pass


def is_resolved(sock: socket.socket, address: object) -> bool:
    """Whether Trio would send to ``address`` as it stands, without looking up a name."""
    family = family_of(sock)
    if type(address) is not tuple:
        return family == _UNIX and type(address) in (str, bytes)
    if not (family == _INET and len(address) == 2) and not (family == _INET6 and 2 <= len(address) <= 4):
        return False
    try:
        socket.inet_pton(family, address[0])
    except (OSError, TypeError, ValueError):
        return False
    return type(address[1]) is int
