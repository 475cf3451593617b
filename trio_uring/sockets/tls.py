"""`trio.SSLStream` over a stream that works by completions: what its methods are replaced by while
runs are on io_uring.

A message takes Trio's two checkpoints and an exception more than it needs: a lock that is free is
taken with a checkpoint, and OpenSSL is asked for data before any have come. Then it gives one record,
16 KiB, a call. Here

- a lock that is free is taken without a checkpoint; one that is not, as by Trio, in its order;
- OpenSSL is not asked where it is known to have nothing (`Tls.is_drained`);
- one receive returns the data of as many records as have come and were asked for.

So each call has the one checkpoint of the stream below, or one of its own if it need not wait.

What comes after the first record of a receive was not asked for yet: an error is kept for the next
call of the stream, whichever that is, and nothing more is decrypted; the end is told by OpenSSL as
often as it is asked. What was decrypted is kept until it can be returned.

A handshake, `unwrap` and `aclose` are Trio's own, which call ``_retry``, and so does all that is
rare: a stream that is not ready, not whole or busy, a renegotiation, arguments that have to be
refused. All of it works on the same attributes of the stream. What is not ours, as a stream over
something else than `trio.SocketStream`, in a run that is on epoll, or without the feature, is
Trio's own from the beginning.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final

import trio
from trio.lowlevel import add_parking_lot_breaker, checkpoint_if_cancelled, enable_ki_protection

from ..loop.sleep import is_cancelled, yield_shielded
from ..loop.trio_internals import Replaced, SSLState, context
from .sockets import connection_of
from .streams import take_ahead

if TYPE_CHECKING:
    from collections.abc import Callable

    from .connections import Connections

ORIGINAL: Final[dict[str, Any]] = {}
_RECORD: Final = 16384
"""Bytes: what one record has at most, and so what OpenSSL returns at most. It is given memory for all
that it is asked for."""
_OVERHEAD: Final = 256
"""Bytes that a record may take beside its data, and more."""
_OK: Final = getattr(SSLState, "OK", None)
_BROKEN: Final = getattr(SSLState, "BROKEN", None)
_WantReadError: Final = ssl.SSLWantReadError
_ERRORS: Final = (ssl.SSLError, ssl.CertificateError)
# SSLStream's own is a method of Python's.
_set: Final[Callable[[object, str, object], None]] = object.__setattr__


class Tls:
    """What we know of an SSLStream beside what it knows itself."""

    __slots__ = ("decrypted", "error", "is_drained", "is_handshaken", "run", "runner")

    def __init__(self) -> None:
        self.runner: object = None
        self.run: Connections
        """Of the run that used the stream last."""
        self.is_handshaken = False
        self.is_drained = False
        """The last that was done with the SSLObject and what comes in was a read that has left nothing:
        the next one is bound to fail until more comes."""
        self.decrypted: list[bytes] = []
        """What could not be returned yet."""
        self.error: ssl.SSLError | None = None
        """Met after data that were returned."""

    def keep(self, error: ssl.SSLError) -> None:
        """For the next call. Its traceback would refer back to the stream."""
        self.error = error.with_traceback(None)


def tls_of(stream: Any) -> Tls | None:
    """None: the stream is Trio's, in the run that calls."""
    runner = getattr(context, "runner", None)
    transport = stream.transport_stream
    tls: Tls | None = vars(stream).get("_uring_tls")
    if type(transport) is not trio.SocketStream:
        return None
    if tls is not None and tls.runner is runner:
        return tls
    connection = connection_of(transport.socket)
    if connection is None or not connection.run.tls:
        return None
    if tls is None:
        tls = Tls()
        _set(stream, "_uring_tls", tls)
    tls.runner = runner
    tls.run = connection.run
    return tls


@enable_ki_protection
async def receive_some(self: Any, max_bytes: int | None = None) -> bytes:
    tls = tls_of(self)
    incoming = self._incoming
    most = max(self._estimated_receive_size, incoming.pending) if max_bytes is None else max_bytes
    detector = self._outer_recv_conflict_detector
    if not (
        tls is not None
        and self._state is _OK
        and not detector._held
        and type(most) is int
        and most > 0
        and (tls.is_handshaken or _is_handshaken(self, tls))
        and tls.error is None
        and not tls.decrypted
    ):
        data: bytes = await ORIGINAL["receive_some"](self, max_bytes)
        return data
    detector._held = True
    try:
        found = await _receive(self, tls, most)
    finally:
        detector._held = False
    return found if tls.error is None or found else await ORIGINAL["receive_some"](self, max_bytes)


def _is_handshaken(stream: Any, tls: Tls) -> bool:
    tls.is_handshaken = stream._handshook.done and type(stream)._retry is retry
    return tls.is_handshaken


async def _receive(stream: Any, tls: Tls, most: int) -> bytes:
    """Up to ``most`` bytes; empty at the end, and after an error, which is kept."""
    found = None
    waited = tls.is_drained and not stream._incoming.pending
    if not waited:
        if is_cancelled(context.task):
            await checkpoint_if_cancelled()
        found = _decrypt(stream, tls, most)
    outgoing = stream._outgoing
    while found is None:
        if outgoing.pending:
            await _send_out(stream, outgoing.read())
        else:
            await _take_in(stream, tls, most)
        waited = True
        found = _decrypt(stream, tls, most)
    if tls.error is not None and not found:
        return found
    if tls.error is None and outgoing.pending:
        tls.decrypted.append(found)
        await _send_out(stream, outgoing.read())
        tls.decrypted.clear()
    elif not waited and not (tls.run.budget and tls.run.may_go_on()):
        await yield_shielded()
    return found


def _decrypt(stream: Any, tls: Tls, most: int) -> bytes | None:
    """Up to ``most`` bytes of the records that are there; empty at the end, or after an error. None: no
    record is whole."""
    size = most if most < _RECORD else _RECORD
    try:
        data: bytes = stream._ssl_object.read(size)
    except _WantReadError:
        tls.is_drained = True
        return None
    except _ERRORS as error:
        tls.keep(error)
        return b""
    incoming = stream._incoming
    if data and incoming.pending and len(data) < most:
        return _with_more(stream, tls, data, most)
    tls.is_drained = bool(data) and not incoming.pending and not stream._ssl_object.pending()
    return data


def _with_more(stream: Any, tls: Tls, data: bytes, most: int) -> bytes:
    """The data of one record and of those behind it."""
    parts = tls.decrypted
    parts.append(data)
    left = most - len(data)
    incoming, read = stream._incoming, stream._ssl_object.read
    while data and left and incoming.pending:
        try:
            data = read(min(left, _RECORD))
        except _WantReadError:
            break
        except _ERRORS as error:
            tls.keep(error)
            break
        parts.append(data)
        left -= len(data)
    tls.is_drained = bool(data) and not incoming.pending and not stream._ssl_object.pending()
    joined = b"".join(parts)
    parts.clear()
    return joined


@enable_ki_protection
async def _take_in(stream: Any, tls: Tls, most: int) -> None:
    """Gives OpenSSL what comes next, or the end; or waits until another task has done so. ``most``: what
    the caller wants of it."""
    lock = stream._inner_recv_lock
    count = stream._inner_recv_count
    is_free = lock._owner is None
    if is_free:
        lock._owner = context.task
    else:
        await lock.acquire()
    try:
        if count != stream._inner_recv_count:
            return
        transport, incoming = stream.transport_stream, stream._incoming
        data = await transport.receive_some()
        tls.is_drained = False
        _set(stream, "_inner_recv_count", count + 1)
        if not data:
            incoming.write_eof()
            return
        incoming.write(data)
        size = len(data)
        if size > stream._estimated_receive_size:
            _set(stream, "_estimated_receive_size", size)
        # What a record takes beside its data is more than nothing, so all of ``most`` may need more.
        while size >= _RECORD and (wanted := most + _OVERHEAD - incoming.pending) > 0:
            more = take_ahead(transport, wanted)
            if not more:
                break
            incoming.write(more)
    finally:
        _release(lock, was_free=is_free)


@enable_ki_protection
async def send_all(self: Any, data: bytes | bytearray | memoryview) -> None:
    tls = tls_of(self)
    detector = self._outer_send_conflict_detector
    if not (
        tls is not None
        and self._state is _OK
        and not detector._held
        and (tls.is_handshaken or _is_handshaken(self, tls))
        and tls.error is None
        and data
    ):
        await ORIGINAL["send_all"](self, data)
        return
    detector._held = True
    try:
        if is_cancelled(context.task):
            await checkpoint_if_cancelled()
        try:
            self._ssl_object.write(data)
        except _WantReadError:  # in the middle of a renegotiation
            await self._retry(self._ssl_object.write, data)
            return
        except _ERRORS as error:
            _set(self, "_state", _BROKEN)
            raise trio.BrokenResourceError from error
        await _send_out(self, self._outgoing.read())
    finally:
        detector._held = False


@enable_ki_protection
async def _send_out(stream: Any, data: bytes) -> None:
    """Sends what OpenSSL has made, which comes after all that it has made before."""
    lock = stream._inner_send_lock
    is_free = lock._owner is None
    if is_free:
        lock._owner = context.task
    else:
        await lock.acquire()
    try:
        if stream._delayed_outgoing is not None:
            data = stream._delayed_outgoing + data
            _set(stream, "_delayed_outgoing", None)
        await stream.transport_stream.send_all(data)
    except:
        # Nobody knows how much of it was sent.
        _set(stream, "_state", _BROKEN)
        raise
    finally:
        _release(lock, was_free=is_free)


def _release(lock: Any, *, was_free: bool) -> None:
    """One that was free was taken past Trio, which asks for the owner only if somebody waits."""
    if not was_free:
        lock.release()
    elif lock._lot:
        add_parking_lot_breaker(lock._owner, lock._lot)
        lock.release()
    else:
        lock._owner = None


async def retry(
    self: Any,
    fn: Callable[..., Any],
    *args: Any,
    ignore_want_read: bool = False,
    is_handshake: bool = False,
) -> Any:
    """``_retry``: calls a method of the SSLObject until it need not wait, and sends and receives what it
    needs for that. It may be interrupted wherever Trio's may."""
    kept: Tls | None = vars(self).get("_uring_tls")
    if kept is not None and kept.decrypted and fn == self._ssl_object.read:
        return await _take_decrypted(kept, *args)
    if kept is not None and kept.error is not None:
        await checkpoint_if_cancelled()
        _set(self, "_state", _BROKEN)
        raise trio.BrokenResourceError from kept.error
    tls = tls_of(self)
    if tls is None:
        return await ORIGINAL["_retry"](
            self, fn, *args, ignore_want_read=ignore_want_read, is_handshake=is_handshake
        )
    await checkpoint_if_cancelled()
    tls.is_drained = False
    answer = None
    waited = False
    wants = True
    while wants:
        try:
            answer = fn(*args)
            wants = False
        except _WantReadError:
            wants = not ignore_want_read
        except _ERRORS as error:
            _set(self, "_state", _BROKEN)
            raise trio.BrokenResourceError from error
        data = self._outgoing.read()
        if is_handshake and not wants and _has_tickets(self._ssl_object):
            _set(self, "_delayed_outgoing", data)
        elif data or wants:
            await (_send_out(self, data) if data else _take_in(self, tls, 0))
            waited = True
    if not waited:
        await yield_shielded()
    return answer


def _has_tickets(ssl_object: ssl.SSLObject) -> bool:
    """Whether its handshake has ended with tickets of the session. The client may not expect them yet, so
    they are sent with the first data."""
    return ssl_object.server_side and ssl_object.version() == "TLSv1.3"


async def _take_decrypted(kept: Tls, most: int) -> bytes:
    await checkpoint_if_cancelled()
    data = b"".join(kept.decrypted)
    kept.decrypted[:] = [data[most:]] if len(data) > most else []
    await yield_shielded()
    return data[:most]


@enable_ki_protection
async def wait_send_all_might_not_block(self: Any) -> None:
    detector, lock = self._outer_send_conflict_detector, self._inner_send_lock
    if tls_of(self) is None or self._state is not _OK or detector._held or lock._owner is not None:
        await ORIGINAL["wait_send_all_might_not_block"](self)
        return
    detector._held = True
    lock._owner = context.task
    try:
        await self.transport_stream.wait_send_all_might_not_block()
    finally:
        _release(lock, was_free=True)
        detector._held = False


REPLACEMENTS: Final = (
    Replaced(
        trio.SSLStream,
        {
            "receive_some": receive_some,
            "send_all": send_all,
            "wait_send_all_might_not_block": wait_send_all_might_not_block,
            "_retry": retry,
        },
        ORIGINAL,
    ),
)
