"""`trio.SocketStream` by completions: these functions stand in for its methods while runs are on io_uring.

In a run that is on epoll, and for a socket without a connection (lookup.py), each calls Trio's own.

- `receive_some` takes what was read ahead, or sleeps until the kernel has received.
- `send_all` submits the caller's memory in one operation, which reaches the kernel with the tick's one
  system call. The kernel sends all of it, however often it has to wait for room. With a
  `RingOptions.checkpoint_budget`, and while few tasks run, `send_all` tries the socket at once.
  It does not use zero-copy: through the loopback interface, the only one that was measured, the
  kernel copies all the same, and a send of 256 KiB to 4 MiB took twice as long (Linux 6.18).
- `aclose` does what Trio's does, with a cheaper checkpoint.
- `trio.aclose_forcefully`, with which each handler of a server ends, calls that `aclose` without the
  cancelled scope that Trio makes for it: that one does not wait anyway. An SSLStream that is closed
  already, as the handlers of servers over TLS leave it, has nothing to close: the call is a checkpoint.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final, NoReturn

import trio
from trio.lowlevel import (
    Abort,
    checkpoint_if_cancelled,
    enable_ki_protection,
    wait_task_rescheduled,
    wait_writable,
)

from .._tasks import FEW_EVENTS, learn_methods, start_receive, start_send
from ..loop.checkpoints import pass_cancel_point, sleep, sleep_for_data, yield_shielded
from ..loop.operation import MOST
from ..loop.trio_internals import Replaced, SocketStream, SSLState, SSLStream, context, is_trios_own
from ..ring.native import ffi
from .below import TAKEN
from .handing_over import fileno
from .lookup import connection_of, is_ours, sockets_of_run
from .receiving import recv
from .sending import send

if TYPE_CHECKING:
    import socket

    from .connection import Connection
    from .registry import RunSockets
    from .sender import Sender

_stdlib_send: Final = TAKEN["send"]
_from_buffer = ffi.from_buffer
_cast = ffi.cast
ORIGINAL: Final[dict[str, Any]] = {}
_RECEIVE_SIZE: Final = 65536
_CLOSED: Final = (errno.EBADF, errno.ENOTSOCK)
_TLS_CLOSED: Final = getattr(SSLState, "CLOSED", None)
learn_methods(recv, send)


@enable_ki_protection
async def receive_some(self: trio.SocketStream, max_bytes: int | None = None) -> bytes:
    connection = start_receive(self, _RECEIVE_SIZE if max_bytes is None else max_bytes)
    if connection is None:
        return await _receive(self, max_bytes)
    data = await sleep_for_data(connection.message)
    return _take_end(connection) if data is None else data


def _take_end(connection: Connection) -> bytes:
    try:
        return connection.take_end()
    except OSError as error:
        _fail(error)


async def _receive(stream: trio.SocketStream, max_bytes: int | None) -> bytes:
    """Receives where `start_receive` has left it to Python: no multishot is pending, something was read
    ahead, or another task receives."""
    length = _RECEIVE_SIZE if max_bytes is None else max_bytes
    trio_socket = stream.socket
    is_plain = type(length) is int and 0 < length <= MOST and is_ours(trio_socket.recv, recv)
    connection = connection_of(trio_socket) if is_plain else None
    if connection is None:
        data: bytes = await ORIGINAL["receive_some"](stream, max_bytes)
        return data
    if connection.bytes_ahead and not pass_cancel_point(context.task):
        taken = connection.take(length)
        if not (connection.run.budget and connection.run.spend()):
            await yield_shielded()
        return taken
    try:
        return await connection.receive(length, trio_socket)
    except OSError as error:
        _fail(error)


def take_ahead(stream: trio.SocketStream, length: int) -> bytes:
    """Up to ``length`` bytes that were read ahead, without a checkpoint: for a task that has just received
    from the stream. Empty if there are none, or if somebody has wrapped what receives."""
    if not (is_ours(stream.receive_some, receive_some) and is_ours(stream.socket.recv, recv)):
        return b""
    connection = connection_of(stream.socket)
    return connection.take(length) if connection is not None and connection.bytes_ahead else b""


@enable_ki_protection
async def send_all(self: trio.SocketStream, data: bytes | bytearray | memoryview) -> None:
    connection = start_send(self, data)
    if connection is None:
        await _send_all(self, data)
        return
    detector = self._send_conflict_detector
    trio_socket: Any = self.socket
    sender: Any = connection.sender
    try:
        await sleep(sender.message)
        if sender.result == len(data):
            sender.finish()
        else:
            assert type(data) is bytes
            await _send_rest(trio_socket._sock, connection, sender, data, sender.result)
    finally:
        detector._held = False


async def _send_all(stream: trio.SocketStream, data: bytes | bytearray | memoryview) -> None:
    """Sends where `start_send` has left it to Python: the connection has to be made, or one submission of
    bytes is not all."""
    trio_socket: Any = stream.socket
    is_plain = is_ours(trio_socket.send, send) and is_ours(trio_socket.fileno, fileno)
    connection = connection_of(trio_socket) if is_plain else None
    if (
        connection is None
        or connection.fd in connection.run.writers
        or (connection.sender is not None and connection.sender.task is not None)
        or trio_socket._did_shutdown_SHUT_WR
        or (type(data) is not bytes and not _has_bytes(data))
    ):
        await ORIGINAL["send_all"](stream, data)
        return
    with stream._send_conflict_detector:
        if type(data) is bytes:
            await _send_memory(trio_socket._sock, connection, data)
        else:
            with memoryview(data) as view, view.cast("B") as memory:
                await _send_memory(trio_socket._sock, connection, memory)


def _has_bytes(data: object) -> bool:
    """Whether ``data`` are memory that can be sent as it is. Anything else is for Trio to refuse."""
    try:
        with memoryview(data) as view:  # type: ignore[arg-type]
            return view.c_contiguous and view.ndim == 1
    except TypeError:
        return False


async def _send_memory(sock: socket.socket, connection: Connection, data: bytes | memoryview) -> None:
    """Sends all of ``data``, for a task that holds the stream's conflict detector."""
    run = connection.run
    if not data:
        await _send_nothing(sock, connection)
        return
    at_once = not connection.has_sent or (run.budget and run.events_of_tick <= FEW_EVENTS)
    connection.has_sent = True
    if not (at_once and await _send_at_once(sock, connection, data)):
        await _send_rest(sock, connection, connection.sender or connection.new_sender(), data, 0)


async def _send_nothing(sock: socket.socket, connection: Connection) -> None:
    """Does what Trio's `send_all` does for no data, which would ask for the descriptor and so end the
    reading ahead."""
    if sock.fileno() == -1:
        raise trio.ClosedResourceError("socket was already closed")
    if not (connection.run.budget and connection.run.spend()):
        await yield_shielded()
    if pass_cancel_point(context.task):
        await checkpoint_if_cancelled()


async def _send_at_once(sock: socket.socket, connection: Connection, data: bytes | memoryview) -> bool:
    """Sends what there is room for now, and then the rest. False if there was no room."""
    if pass_cancel_point(context.task):
        await checkpoint_if_cancelled()
    if connection.part_sender is not None:
        connection.submit_sends()
    try:
        sent = _stdlib_send(sock, data)
    except BlockingIOError:
        return False
    except OSError as met:
        _fail(connection.take_send_error(met))
    if sent < len(data):
        await _send_rest(sock, connection, connection.sender or connection.new_sender(), data, sent)
    elif not (connection.run.budget and connection.run.spend()):
        await yield_shielded()
    return True


async def _send_rest(
    sock: socket.socket, connection: Connection, sender: Sender, data: bytes | memoryview, result: int
) -> None:
    """Sends what is left of ``data`` after a first send with this ``result``."""
    # The object that `from_buffer` makes does not live on: up to CPython 3.12 the garbage collector crashes
    # on a memoryview in a cycle while there is such an object of it. ``data``, which is held, keeps the
    # memory where it is.
    address = _cast("char *", _from_buffer(data))
    length = len(data)
    sent = 0
    while True:
        try:
            sent += sender.progress(connection, result)
        except OSError as error:
            _fail(error)
        if result == -errno.EAGAIN:
            await wait_writable(sock)
        sender.submit(connection, address + sent, length - sent, data, whole=True)
        await sleep(sender.message)
        result = sender.result
        if sent + result == length:  # even if it was cancelled or closed meanwhile
            sender.finish()
            return


def _fail(error: OSError) -> NoReturn:
    """Raises what Trio's streams raise for an error of their socket."""
    if error.errno in _CLOSED:
        raise trio.ClosedResourceError("this socket was already closed") from None
    raise trio.BrokenResourceError(f"socket connection broken: {error}") from error


async def wait_send_all_might_not_block(self: trio.SocketStream) -> None:
    if not is_ours(self.socket.fileno, fileno) or connection_of(self.socket) is None:
        await ORIGINAL["wait_send_all_might_not_block"](self)
        return
    with self._send_conflict_detector:
        try:
            await self.socket.wait_writable()
        except OSError as error:
            _fail(error)


async def aclose(self: trio.SocketStream) -> None:
    sockets = sockets_of_run()
    if sockets is None:
        await ORIGINAL["aclose"](self)
        return
    self.socket.close()
    await _pass_checkpoint(sockets)


async def _pass_checkpoint(sockets: RunSockets) -> None:
    """Is a checkpoint, for a call that has nothing to wait for."""
    task = context.task
    if task._cancel_status.effectively_cancelled:
        # `trio.lowlevel.checkpoint` would yield first, and make a scope to raise in.
        await wait_task_rescheduled(_raise_at_once)
    if not (sockets.run.budget and sockets.run.spend()):
        await yield_shielded()
    if pass_cancel_point(task):
        await checkpoint_if_cancelled()


def _raise_at_once(_: object) -> Abort:
    return Abort.SUCCEEDED


async def aclose_forcefully(resource: trio.abc.AsyncResource) -> None:
    sockets = sockets_of_run()
    if sockets is not None and is_ours(getattr(resource, "aclose", None), aclose):
        stream: Any = resource
        stream.socket.close()  # as `aclose` does, less a frame
        await _pass_checkpoint(sockets)
    elif sockets is not None and sockets.tls and _is_closed_tls(resource):
        await _pass_checkpoint(sockets)
    else:
        await ORIGINAL["aclose_forcefully"](resource)


def _is_closed_tls(resource: Any) -> bool:
    """Whether it is an SSLStream that is closed, and whose ``aclose`` is Trio's own."""
    if type(resource) is not SSLStream or resource._state is not _TLS_CLOSED:
        return False
    return "aclose" not in resource.__dict__ and is_trios_own(vars(SSLStream).get("aclose"))


REPLACEMENTS: Final = (
    Replaced(trio, {"aclose_forcefully": aclose_forcefully}, ORIGINAL),
    Replaced(
        SocketStream,
        {
            "receive_some": receive_some,
            "send_all": send_all,
            "wait_send_all_might_not_block": wait_send_all_might_not_block,
            "aclose": aclose,
        },
        ORIGINAL,
    ),
)
