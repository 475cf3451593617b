"""What Trio's own methods do while ours are in their place: somebody has wrapped one of them, or kept it
from before, and calls it.

Such a call would go past what was read ahead, and before what other tasks have sent. All methods of
Trio's sockets that move data end in ``_nonblocking_helper``, which is told what to call of the standard
library's socket. While runs are on io_uring that helper has our function of the same name do it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..loop.trio_internals import Replaced, SocketType
from . import receiving
from .connecting import accept_below
from .lookup import ORIGINAL, sockets_of_run
from .sending import send, send_as_it_is

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def _sendto(trio_socket: Any, *args: Any) -> Awaitable[int]:
    return send_as_it_is(trio_socket, "sendto", *args)


def _sendmsg(trio_socket: Any, *args: Any) -> Awaitable[int]:
    return send_as_it_is(trio_socket, "sendmsg", *args)


_OURS: Final[dict[str, Callable[..., Awaitable[Any]]]] = {
    "accept": accept_below,
    "recv": receiving.recv,
    "recv_into": receiving.recv_into,
    "recvfrom": receiving.recvfrom,
    "recvfrom_into": receiving.recvfrom_into,
    "recvmsg": receiving.recvmsg,
    "recvmsg_into": receiving.recvmsg_into,
    "send": send,
    "sendmsg": _sendmsg,
    "sendto": _sendto,
}


async def nonblocking_helper(self: Any, wait_fn: Any, fn: Any, *args: Any, **kwargs: Any) -> Any:
    """Stands in for the helper of that name of Trio's sockets."""
    ours = _OURS.get(getattr(fn, "__name__", ""))
    if ours is None or (sockets_of_run() is None and not hasattr(self, "_uring")):
        return await ORIGINAL["_nonblocking_helper"](self, wait_fn, fn, *args, **kwargs)
    return await ours(self, *args, **kwargs)


REPLACEMENTS: Final = (
    Replaced(SocketType, {"_nonblocking_helper": nonblocking_helper}, ORIGINAL, vital=True),
)
