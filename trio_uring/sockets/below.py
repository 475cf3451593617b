"""The standard library's methods below those of Trio's sockets, where somebody may have put his own.

Trio takes most of these methods when it is imported. Who had replaced one by then is called by Trio, and so
by us: sockets then work by readiness, which has all data pass through these methods. Who replaces one later
is called neither by Trio nor by us. Only `connect`, `sendto` and `sendmsg` Trio looks up in each call.
"""

from __future__ import annotations

import _socket
import socket
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from ..loop.trio_internals import SocketType, is_trios_own

if TYPE_CHECKING:
    from collections.abc import Callable


def _taken(name: str) -> Any:
    """The method that Trio took for its own of this ``name`` when it was imported."""
    method = getattr(SocketType, "_accept" if name == "accept" else name, None)
    while method is not None and not is_trios_own(method):
        method = getattr(method, "__wrapped__", None)
    return getattr(method, "__wrapped__", None) or getattr(socket.socket, name)


TAKEN: Final = {
    name: _taken(name)
    for name in (
        "recv",
        "recv_into",
        "recvfrom",
        "recvfrom_into",
        "recvmsg",
        "recvmsg_into",
        "send",
        "accept",
    )
}


def _is_wrapped(name: str) -> bool:
    method = TAKEN[name]
    if name == "accept":  # it is written in Python
        return type(method) is not FunctionType or method.__globals__ is not vars(socket)
    return method is not getattr(_socket.socket, name)


WRAPPED: Final = tuple(f"socket.socket.{name}" for name in TAKEN if _is_wrapped(name))
"""The names that had somebody else's function when Trio was imported."""


def below(name: str) -> Callable[..., Any]:
    """The standard library's method that Trio's own of this ``name`` calls now."""
    method: Callable[..., Any] = TAKEN.get(name) or getattr(socket.socket, name)
    return method
