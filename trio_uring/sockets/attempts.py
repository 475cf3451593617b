"""Socket calls that are tried at once, and wait by readiness if they would block: those of
datagram sockets, and whatever else has no completion form.

A datagram that is there costs one system call, and the tick after it none. Two forms of
completion were measured against this. A receive in the ring for each datagram takes twice
the time where one is there, and saves nothing that can be seen where none is. Multishot
receives into provided buffers are no faster in a flood of queries: what the kernel saves is
spent on finding sender and bounds in Python. And they would cut what is larger than a buffer,
and take datagrams away from others that read the socket. So nothing is read ahead here, and
a call that is cancelled has not happened.

Results, errors, checkpoints and cancellation are those of Trio's own methods, which do the
same in more steps. A call that does not wait spends the run's ``checkpoint_budget``, and a
failed one yields always.
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

# Numbers, which are compared in less time than enumerations.
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
    """What ``call``, a method of the standard library's sockets, returns or raises. A checkpoint."""
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
    """Whether Trio, too, would send to ``address`` as it stands, without a look-up."""
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
