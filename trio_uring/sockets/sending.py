"""The sends of Trio's sockets: these functions stand in for Trio's while runs are on io_uring.

In a run that is on epoll, or without completions, each does what Trio's does.

| call | how |
| --- | --- |
| send of a stream socket | by a submission (sender.py) if the tick has brought many events, else at once |
| send of others; sendto, sendmsg | at once (attempts.py); by Trio's own, if a name has to be looked up |

Where it can, a function returns the coroutine of another one: a coroutine function would add a frame.
They take any arguments, since Trio leaves it to the standard library to refuse some, after a checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection, wait_writable

from .._tasks import FEW_EVENTS, begin_attempt, begin_sendmsg, begin_sendto, is_resolved
from ..loop.checkpoints import pass_cancel_point, sleep, yield_shielded
from ..loop.trio_internals import Replaced, SocketType, context
from .attempts import at_once, attempt
from .below import TAKEN, below
from .lookup import ORIGINAL, by_readiness, connection_of, existing_connection, sockets_of_run

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .connection import Connection
    from .sender import Sender


_stdlib_send: Final = TAKEN["send"]


def send(self: Any, *args: Any, **kwargs: Any) -> Awaitable[int]:
    if hasattr(self, "_uring_at_once"):
        return _send(self, *args, **kwargs)
    connection = None if kwargs else connection_of(self)
    if connection is None:
        return _send_otherwise(self, "send", args, kwargs)
    return _send_part(self, connection, *args)


@enable_ki_protection
async def _send_part(self: Any, connection: Connection, *args: Any) -> int:
    """Sends what there is room for now."""
    if pass_cancel_point(context.task):
        await checkpoint_if_cancelled()
    # The connection may have been closed between the call and the first step of this coroutine.
    many = connection.run.events_of_tick > FEW_EVENTS and not connection.closed
    if many and len(args) == 1 and type(args[0]) is bytes and args[0]:
        sender = connection.part_sender or connection.new_part_sender()
        if sender.task is None:
            return await _send_with_others(self, connection, sender, args[0])
    connection.submit_sends()
    try:
        sent: int = _stdlib_send(self._sock, *args)
    except BlockingIOError:
        await wait_writable(self._sock)
        return await by_readiness(self, "send", *args)  # type: ignore[no-any-return]
    except BrokenPipeError as met:
        await yield_shielded()
        raise connection.take_send_error(met) from None
    except BaseException:
        await yield_shielded()
        raise
    if not (connection.run.budget and connection.run.spend()):
        await yield_shielded()
    return sent


async def _send_with_others(self: Any, connection: Connection, sender: Sender, data: bytes) -> int:
    """Does the same by a submission, which goes to the kernel with those of other tasks."""
    sender.submit(connection, data, len(data), data, whole=False)
    await sleep(sender.message)
    result = sender.result
    if result >= 0:
        sender.finish()
        return result
    sender.progress(connection, result)
    await wait_writable(self._sock)
    return await by_readiness(self, "send", data)  # type: ignore[no-any-return]


def sendmsg(
    self: Any, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None, /
) -> Awaitable[int]:
    return _sendmsg(self, buffers, ancdata, flags, address)


def _send_otherwise(
    trio_socket: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Awaitable[int]:
    if kwargs:  # which the standard library refuses
        return by_readiness(trio_socket, name, *args, **kwargs)
    return send_as_it_is(trio_socket, name, *args)


def _send_to(trio_socket: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[int]:
    is_plain = (name == "sendmsg" and args[-1] is None) or (args and is_resolved(trio_socket, args[-1]))
    if kwargs or not is_plain:
        return ORIGINAL[name](trio_socket, *args, **kwargs)  # type: ignore[no-any-return]
    return send_as_it_is(trio_socket, name, *args)


_send: Final = at_once("send", begin_attempt, wait_writable, _send_otherwise)
sendto: Final = at_once("sendto", begin_sendto, wait_writable, _send_to)
_sendmsg: Final = at_once("sendmsg", begin_sendmsg, wait_writable, _send_to)


def send_as_it_is(trio_socket: Any, name: str, *args: Any) -> Awaitable[int]:
    """Calls the standard library's method ``name``, with an address that needs no look-up, if any."""
    sockets = sockets_of_run()
    if sockets is None:
        return by_readiness(trio_socket, name, *args)
    connection = existing_connection(trio_socket)
    if connection is not None:
        connection.submit_sends()
    return attempt(sockets.run, trio_socket._sock, wait_writable, below(name), *args)


REPLACEMENTS: Final = (Replaced(SocketType, {"send": send, "sendto": sendto, "sendmsg": sendmsg}, ORIGINAL),)
