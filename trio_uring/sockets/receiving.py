"""The receives of Trio's sockets: these functions stand in for Trio's while runs are on io_uring.

In a run that is on epoll, or without completions, each does what Trio's does.

| call | how |
| --- | --- |
| recv, recv_into of a stream socket, without flags | by completion |
| the same with flags; recvfrom, recvmsg and their like | what was read ahead, else at once (attempts.py) |
| any of another socket | at once |

- What was read ahead (connection.py) comes first by every call.
- They take any arguments. Trio leaves it to the standard library to refuse some, after a checkpoint.
  So arguments that we do not understand go to the standard library as they are, and nothing that was
  read ahead is lost.
"""

from __future__ import annotations

import functools
import operator
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    enable_ki_protection,
    wait_readable,
)

from .._tasks import begin_attempt
from ..loop.operation import MOST
from ..loop.trio_internals import Replaced, SocketType
from .attempts import at_once, attempt
from .below import below
from .lookup import ORIGINAL, by_readiness, connection_of, existing_connection, sockets_of_run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from .connection import Connection

_Arguments: TypeAlias = tuple[int, int, tuple[memoryview, ...]]
"""The length, the flags and the buffers that a call asks for."""
_INT: Final = -(1 << 31), (1 << 31) - 1
_NOT_IN_THE_STREAM: Final = socket.MSG_OOB | socket.MSG_ERRQUEUE
"""With these flags a receive asks for something else than the data."""


def recv(self: Any, *args: Any, **kwargs: Any) -> Awaitable[bytes]:
    if hasattr(self, "_uring_at_once"):
        return _recv(self, *args, **kwargs)
    if len(args) == 1 and not kwargs and type(args[0]) is int and 0 < args[0] <= MOST:
        connection = connection_of(self)
        if connection is not None:
            return connection.receive(args[0], self)
    return _recv_or_recv_into(self, "recv", args, kwargs)


def recv_into(self: Any, *args: Any, **kwargs: Any) -> Awaitable[int]:
    if hasattr(self, "_uring_at_once"):
        return _recv_into(self, *args, **kwargs)
    if len(args) == 1 and not kwargs and type(args[0]) is bytearray and args[0]:
        connection = connection_of(self)
        if connection is not None:
            return _complete_into(self, connection, args[0])
    return _recv_or_recv_into(self, "recv_into", args, kwargs)


@enable_ki_protection
async def _complete_into(self: Any, connection: Connection, buffer: bytearray) -> int:
    with memoryview(buffer) as view:  # keeps the buffer from being resized meanwhile
        data = await connection.receive(min(len(view), MOST), self)
        view[: len(data)] = data
    return len(data)


def _recv_or_recv_into(
    trio_socket: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Awaitable[Any]:
    if connection_of(trio_socket) is None and existing_connection(trio_socket) is None:
        return _receive(trio_socket, name, args, kwargs)
    return _receive_in_order(trio_socket, name, args, kwargs, completes=True)


def _receive_message(
    trio_socket: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Awaitable[Any]:
    if existing_connection(trio_socket) is None:
        return _receive(trio_socket, name, args, kwargs)
    if name == "recvmsg_into":
        return _recvmsg_into(trio_socket, args, kwargs)
    return _receive_in_order(trio_socket, name, args, kwargs)


_recv: Final = at_once("recv", begin_attempt, wait_readable, _recv_or_recv_into)
_recv_into: Final = at_once("recv_into", begin_attempt, wait_readable, _recv_or_recv_into)
recvfrom: Final = at_once("recvfrom", begin_attempt, wait_readable, _receive_message)
recvfrom_into: Final = at_once("recvfrom_into", begin_attempt, wait_readable, _receive_message)
recvmsg: Final = at_once("recvmsg", begin_attempt, wait_readable, _receive_message)
recvmsg_into: Final = at_once("recvmsg_into", begin_attempt, wait_readable, _receive_message)


@enable_ki_protection
async def _recvmsg_into(self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if args and isinstance(args[0], Iterator):  # it can be read only once, and two of us have to
        await checkpoint_if_cancelled()
        try:
            args = list(args[0]), *args[1:]
        except BaseException:
            await cancel_shielded_checkpoint()
            raise
    return await _receive_in_order(self, "recvmsg_into", args, kwargs)


@enable_ki_protection
async def _receive_in_order(
    trio_socket: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, completes: bool = False
) -> Any:
    """Receives by completion if the call ``completes``; else takes what was read ahead, or else receives at
    once."""
    asked = _understood(name, args, kwargs)
    if asked is None:
        return await _receive(trio_socket, name, args, kwargs)
    length, flags, views = asked  # a view keeps its buffer from being resized
    try:
        connection = connection_of(trio_socket) if completes and not flags and length else None
        if connection is not None:
            data: bytes | None = await connection.receive(min(length, MOST), trio_socket)
        else:
            data = await _read_ahead(trio_socket, length, flags)
        if data is not None:
            return _answer(name, data, views)
    finally:
        for view in views:
            view.release()
    return await _receive(trio_socket, name, args, kwargs)


def _receive(trio_socket: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
    """Receives without looking at what was read ahead."""
    sockets = sockets_of_run()
    if sockets is None:
        return by_readiness(trio_socket, name, *args, **kwargs)
    call = below(name)
    if kwargs:
        call = functools.partial(call, **kwargs)
    return attempt(sockets.run, trio_socket._sock, wait_readable, call, *args)


async def _read_ahead(trio_socket: Any, length: int, flags: int) -> bytes | None:
    """Returns what was read ahead, for a call that would receive behind it otherwise. None if nothing was."""
    connection = existing_connection(trio_socket)
    if connection is None:
        return None
    if flags & socket.MSG_OOB:  # a multishot would go past the urgent mark, and lose the byte
        connection.take_nothing_ahead()
    connection.pause_multishot()
    if not connection.readable or flags & _NOT_IN_THE_STREAM:
        return None
    await checkpoint_if_cancelled()
    try:
        if not connection.bytes_ahead:
            return connection.take_end()
        return connection.peek(length) if flags & socket.MSG_PEEK else connection.take(length)
    finally:
        await cancel_shielded_checkpoint()


def _understood(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Arguments | None:
    """Reads the arguments of a call as the standard library does. None if it refuses them: then it has to
    say so itself."""
    try:
        return _ARGUMENTS[name](*args, **kwargs)
    except (TypeError, ValueError, BufferError):
        return None


def _of_size(size: Any, flags: Any = 0, /) -> _Arguments:
    return _within(size, 0, sys.maxsize), _within(flags, *_INT), ()


def _of_buffer(buffer: Any, nbytes: Any = 0, flags: Any = 0) -> _Arguments:
    view = memoryview(buffer)
    length = _within(nbytes, 0, _room(view)) or view.nbytes
    return length, _within(flags, *_INT), (view,)


def _of_message(size: Any, ancbufsize: Any = 0, flags: Any = 0, /) -> _Arguments:
    _within(ancbufsize, 0, _INT[1])
    return _of_size(size, flags)


def _of_buffers(buffers: Any, ancbufsize: Any = 0, flags: Any = 0, /) -> _Arguments:
    _within(ancbufsize, 0, _INT[1])
    views = tuple(memoryview(buffer) for buffer in buffers)
    return sum(map(_room, views)), _within(flags, *_INT), views


_ARGUMENTS: Final[dict[str, Callable[..., _Arguments]]] = {
    "recv": _of_size,
    "recv_into": _of_buffer,
    "recvfrom": _of_size,
    "recvfrom_into": _of_buffer,
    "recvmsg": _of_message,
    "recvmsg_into": _of_buffers,
}


def _within(value: Any, least: int, most: int) -> int:
    number = operator.index(value)
    if not least <= number <= most:
        raise ValueError(number)
    return number


def _room(view: memoryview) -> int:
    if view.readonly or not view.c_contiguous:
        raise BufferError
    return view.nbytes


def _answer(name: str, data: bytes, views: Iterable[memoryview]) -> Any:
    """Makes what the call of this name returns from the ``data`` that it has received."""
    received = _fill(views, data) if name.endswith("_into") else data
    if name.startswith("recvmsg"):
        return received, [], 0, None
    return (received, None) if name.startswith("recvfrom") else received


def _fill(views: Iterable[memoryview], data: bytes) -> int:
    at = 0
    for view in views:
        with view.cast("B") as memory:
            part = data[at : at + len(memory)]
            memory[: len(part)] = part
            at += len(part)
    return at


REPLACEMENTS: Final = (
    Replaced(
        SocketType,
        {
            "recv": recv,
            "recv_into": recv_into,
            "recvfrom": recvfrom,
            "recvfrom_into": recvfrom_into,
            "recvmsg": recvmsg,
            "recvmsg_into": recvmsg_into,
        },
        ORIGINAL,
    ),
)
