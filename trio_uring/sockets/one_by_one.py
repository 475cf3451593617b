"""What `Datagrams` calls where the core cannot be loaded: recvmsg and sendmsg of the standard library, for
one datagram after the other. Results and errors are those of `receive_many` and `send_many` in _tasks.pyi."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_CLOSE_ON_EXEC: Final = socket.MSG_CMSG_CLOEXEC
DatagramT = TypeVar("DatagramT")


def receive_one(
    sock: socket.socket, kind: Callable[..., DatagramT], size: int, ancillary_size: int
) -> list[DatagramT]:
    data, ancillary, flags, address = sock.recvmsg(size, ancillary_size, _CLOSE_ON_EXEC)
    return [kind(data, address, ancillary, flags & ~_CLOSE_ON_EXEC)]


def send_each(
    sock: socket.socket, family: int, messages: tuple[Any, ...], start: int
) -> tuple[int, Exception | None]:
    sent = 0
    try:
        for message in messages[start:]:
            _send(sock, family, message)
            sent += 1
    except BlockingIOError:
        if not sent:
            raise
    except Exception as error:
        if not sent:
            raise
        return sent, error
    return sent, None


def _send(sock: socket.socket, family: int, message: Any) -> None:
    if not isinstance(message, tuple):
        raise TypeError(f"a datagram to be sent has to be a tuple, not {type(message)!r}")
    data, address, ancillary = _parts(*message)
    if not isinstance(ancillary, Sequence):  # an iterator would have none left for the next attempt
        raise TypeError(f"ancillary data have to be a sequence, not {type(ancillary)!r}")
    to = () if address is None else (_numeric(family, address),)
    sock.sendmsg([data], ancillary, 0, *to)


def _parts(data: Any, address: Any = None, ancillary: Any = ()) -> tuple[Any, Any, Any]:
    return data, address, ancillary


def _numeric(family: int, address: Any) -> Any:
    """Returns the address, for which the standard library has to look up nothing."""
    try:
        if family == socket.AF_UNIX:
            return os.fspath(address) if isinstance(address, os.PathLike) else os.fsencode(address)
        socket.inet_pton(family, address[0])
    except (TypeError, ValueError, IndexError, OSError):
        raise ValueError(f"{address!r} is no address of this socket's family that needs no look-up") from None
    return address
