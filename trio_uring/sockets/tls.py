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

from ..loop.checkpoints import pass_cancel_point, yield_shielded
from ..loop.trio_internals import Replaced, SSLState, context
from .lookup import connection_of, sockets_of_run
from .streams import take_ahead

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..loop.run import Run

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
_SSLStream: Final = trio.SSLStream


class Tls:
    """What we know of an SSLStream beside what it knows itself."""

    __slots__ = ("decrypted", "error", "is_drained", "is_usual", "run", "runner", "transport")
    run: Run
    runner: object
    """Of the run that used the stream last."""
    transport: object
    """What it was over then."""

    def __init__(self) -> None:
        self.is_usual = False
        """The handshake is over, and nothing is kept for the next call."""
        self.is_drained = False
        """The last that was done with the SSLObject and what comes in was a read that has left nothing:
        the next one is bound to fail until more comes."""
        self.decrypted: list[bytes] = []
        """What could not be returned yet."""
        self.error: OSError | None = None
        """OpenSSL's, which the next call is to raise: an SSLError nearly always."""

    def keep(self, error: OSError) -> None:
        """Its traceback would refer back to the stream."""
        self.error = error.with_traceback(None)
        self.is_usual = False


def tls_of(stream: Any) -> Tls | None:
    """Returns the stream's, for the run that calls. None: the stream is Trio's there."""
    own = stream.__dict__
    run = run_for(own["transport_stream"])
    if run is None:
        return None
    tls: Tls | None = own.get("_uring_tls")
    if tls is None:
        tls = own["_uring_tls"] = Tls()
    tls.runner, tls.run, tls.transport = context.runner, run, own["transport_stream"]
    return tls


def run_for(transport: object) -> Run | None:
    """Returns the run that calls, if ``transport`` is a stream that works by completions in it, and if
    SSLStreams over such are to be ours."""
    if type(transport) is not trio.SocketStream:
        return None
    sockets = sockets_of_run()
    if sockets is None or not sockets.tls or connection_of(transport.socket) is None:
        return None
    return sockets.run


def _usual(stream: Any, own: dict[str, Any], detector: Any) -> Tls | None:
    """Returns the stream's, if the call may go the short way. None: it is for Trio's own method."""
    tls = tls_of(stream)
    if tls is None or own["_state"] is not _OK or detector._held:
        return None
    # Somebody else's ``_retry`` would not tell us what it has done with the SSLObject.
    tls.is_usual = (
        tls.error is None and not tls.decrypted and own["_handshook"].done and trio.SSLStream._retry is retry
    )
    return tls if tls.is_usual else None


@enable_ki_protection
async def receive_some(self: Any, max_bytes: int | None = None) -> bytes:
    own = self.__dict__
    incoming, outgoing = own["_incoming"], own["_outgoing"]
    detector, transport = own["_outer_recv_conflict_detector"], own["transport_stream"]
    tls: Tls | None = own.get("_uring_tls")
    task = getattr(context, "task", None)
    if (
        tls is None
        or task is None
        or not tls.is_usual
        or tls.runner is not task._runner
        or tls.transport is not transport
        or own["_state"] is not _OK
        or detector._held
        or _SSLStream._retry is not retry
    ):
        tls = _usual(self, own, detector)
    most = max(own["_estimated_receive_size"], incoming.pending) if max_bytes is None else max_bytes
    if tls is None or type(most) is not int or most <= 0:
        return await ORIGINAL["receive_some"](self, max_bytes)  # type: ignore[no-any-return]
    lock = own["_inner_recv_lock"]
    detector._held = True
    try:
        waited = tls.is_drained and not incoming.pending
        if not waited and pass_cancel_point(task):
            await checkpoint_if_cancelled()
        found = None if waited else _decrypt(own, tls, most)
        while found is None:
            if outgoing.pending or lock._owner is not None:
                await _move_forward(own, tls)
            else:  # the same, in one frame
                lock._owner = task
                try:
                    _feed(own, tls, await transport.receive_some(), most)
                finally:
                    if lock._lot._parked:
                        _release_to_next(lock)
                    else:
                        lock._owner = None
            waited = True
            found = _decrypt(own, tls, most)
        if outgoing.pending or not waited:
            await _end_receive(own, tls, found, waited=waited)
    finally:
        detector._held = False
    if found or tls.error is None:
        return found
    return await ORIGINAL["receive_some"](self, max_bytes)  # type: ignore[no-any-return]


async def _end_receive(own: dict[str, Any], tls: Tls, found: bytes, *, waited: bool) -> None:
    """Sends what the records have OpenSSL answer; what was ``found`` in them outlives that. Yields if the
    receive has not ``waited``."""
    if tls.error is None and own["_outgoing"].pending:
        tls.decrypted.append(found)
        tls.is_usual = False
        await _send_out(own, own["_outgoing"].read())
        tls.decrypted.clear()
    elif not waited and not (tls.run.budget and tls.run.spend()):
        await yield_shielded()


def _decrypt(own: dict[str, Any], tls: Tls, most: int) -> bytes | None:
    """Up to ``most`` bytes of the records that are there; empty at the end, or after an error. None: no
    record is whole."""
    size = most if most < _RECORD else _RECORD
    ssl_object = own["_ssl_object"]
    try:
        data: bytes = ssl_object.read(size)
    except _WantReadError:
        tls.is_drained = True
        return None
    except OSError as error:
        tls.keep(error)
        return b""
    if own["_incoming"].pending and data and len(data) < most:
        return _with_more(own, tls, data, most)
    tls.is_drained = 0 < len(data) < size or (bool(data) and not ssl_object.pending())
    return data


def _with_more(own: dict[str, Any], tls: Tls, data: bytes, most: int) -> bytes:
    """The data of one record and of those behind it."""
    parts = tls.decrypted
    parts.append(data)
    tls.is_usual = False
    left = most - len(data)
    incoming, ssl_object = own["_incoming"], own["_ssl_object"]
    while data and left and incoming.pending:
        try:
            data = ssl_object.read(left if left < _RECORD else _RECORD)
        except (_WantReadError, MemoryError):
            break
        except OSError as error:
            tls.keep(error)
            break
        parts.append(data)
        left -= len(data)
    tls.is_drained = bool(data) and not ssl_object.pending()
    joined = b"".join(parts)
    parts.clear()
    tls.is_usual = tls.error is None
    return joined


def _feed(own: dict[str, Any], tls: Tls, data: bytes, most: int) -> None:
    """Gives OpenSSL what has come, or the end; of what was read ahead behind it as much as ``most`` bytes of
    data may take."""
    tls.is_drained = False
    incoming, size = own["_incoming"], len(data)
    if data:
        incoming.write(data)
    else:
        incoming.write_eof()
    own["_inner_recv_count"] += 1
    if size > own["_estimated_receive_size"]:  # noqa: PLR1730  # not so often
        own["_estimated_receive_size"] = size
    while size >= _RECORD and (wanted := most + _OVERHEAD - incoming.pending) > 0:
        more = take_ahead(own["transport_stream"], wanted)
        if not more:
            break
        incoming.write(more)


async def _move_forward(own: dict[str, Any], tls: Tls) -> None:
    """What OpenSSL needs for what it could not do: it is sent what OpenSSL has made, or else OpenSSL is given
    what comes."""
    made = own["_outgoing"].read()
    await (_send_out(own, made) if made else _take_in(own, tls))


@enable_ki_protection
async def _take_in(own: dict[str, Any], tls: Tls) -> None:
    """Has OpenSSL get what comes next, by this task or by another that is about it."""
    lock, count = own["_inner_recv_lock"], own["_inner_recv_count"]
    was_free = await _acquire(lock)
    try:
        if count == own["_inner_recv_count"]:
            _feed(own, tls, await own["transport_stream"].receive_some(), 0)
    finally:
        _release(lock, was_free=was_free)


@enable_ki_protection
async def send_all(self: Any, data: bytes | bytearray | memoryview) -> None:
    own = self.__dict__
    detector, transport = own["_outer_send_conflict_detector"], own["transport_stream"]
    tls: Tls | None = own.get("_uring_tls")
    task = getattr(context, "task", None)
    if (
        tls is None
        or task is None
        or not tls.is_usual
        or tls.runner is not task._runner
        or tls.transport is not transport
        or own["_state"] is not _OK
        or detector._held
    ):
        tls = _usual(self, own, detector)
    if tls is None or not data:
        await ORIGINAL["send_all"](self, data)
        return
    lock, ssl_object = own["_inner_send_lock"], own["_ssl_object"]
    detector._held = True
    try:
        if pass_cancel_point(task):
            await checkpoint_if_cancelled()
        try:
            ssl_object.write(data)
        except _WantReadError:  # in the middle of a renegotiation
            await self._retry(ssl_object.write, data)
            return
        except _ERRORS as error:
            own["_state"] = _BROKEN
            raise trio.BrokenResourceError from error
        made = own["_outgoing"].read()
        if lock._owner is not None or own["_delayed_outgoing"] is not None:
            await _send_out(own, made)
            return
        lock._owner = task  # the same, in one frame
        try:
            await transport.send_all(made)
        except:
            own["_state"] = _BROKEN
            raise
        finally:
            if lock._lot._parked:
                _release_to_next(lock)
            else:
                lock._owner = None
    finally:
        detector._held = False


@enable_ki_protection
async def _send_out(own: dict[str, Any], made: bytes) -> None:
    """Sends what OpenSSL has made, behind all that it has made before."""
    lock = own["_inner_send_lock"]
    was_free = await _acquire(lock)
    try:
        if own["_delayed_outgoing"] is not None:
            made = own["_delayed_outgoing"] + made
            own["_delayed_outgoing"] = None
        await own["transport_stream"].send_all(made)
    except:  # nobody knows how much of it was sent
        own["_state"] = _BROKEN
        raise
    finally:
        _release(lock, was_free=was_free)


async def _acquire(lock: Any) -> bool:
    """Whether it was free. Trio does not know of an owner whom it would have to replace if he ended."""
    if lock._owner is None:
        lock._owner = context.task
        return True
    await lock.acquire()
    return False


def _release(lock: Any, *, was_free: bool) -> None:
    if not was_free:
        lock.release()
    elif lock._lot._parked:
        _release_to_next(lock)
    else:
        lock._owner = None


def _release_to_next(lock: Any) -> None:
    """One that was free, which somebody waits for by now."""
    add_parking_lot_breaker(lock._owner, lock._lot)
    lock.release()


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
        if not isinstance(kept.error, _ERRORS):
            error, kept.error = kept.error, None
            raise error
        self._state = _BROKEN
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
            self._state = _BROKEN
            raise trio.BrokenResourceError from error
        data = self._outgoing.read()
        if is_handshake and not wants and _has_tickets(self._ssl_object):
            self._delayed_outgoing = data
        elif data or wants:
            await (_send_out(vars(self), data) if data else _take_in(vars(self), tls))
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
