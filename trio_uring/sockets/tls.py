"""What replaces methods of `trio.SSLStream` while runs are on io_uring. It is for streams over a stream that
works by completions.

For each message Trio's own methods have two checkpoints and an exception that are not needed. They take a
free lock with a checkpoint, and ask OpenSSL for data before any have come. Then a call returns the data of
one record, 16 KiB at most. Here

- a free lock is taken without a checkpoint. A lock that is held is waited for, in order, as by Trio;
- OpenSSL is not asked when it is known to have nothing (`Tls.is_drained`);
- one receive returns the data of as many records as have come and were asked for.

So each call has the one checkpoint of the stream below, or one of its own if it need not wait. When the
stream below fails at once, Trio's own methods have yielded already, for a lock. Here a call that fails
yields then.

The records behind the first one of a receive were not asked for yet. So an error in them is kept for the
next call on the stream, whichever that is, and nothing more is decrypted. The end of the data need not be
kept: OpenSSL tells it as often as it is asked. What was decrypted is kept until it can be returned.

The handshake, `unwrap` and `aclose` are Trio's own methods, which call ``_retry``. Trio's own methods also
do all that is rare: a stream that is not ready, broken or busy, a renegotiation, arguments that have to be
refused. They and ours work on the same attributes of the stream.

Ctrl-C may interrupt our methods where it may interrupt Trio's: one that is protected would protect what it
calls too, such as a stream of the user's. What moves data (records.py) is protected.

A stream over something else than a `trio.SocketStream` is left to Trio's own methods altogether. So is every
stream in a run on epoll, or without the feature "tls".
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final

import trio
from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from ..loop.checkpoints import pass_cancel_point, yield_shielded
from ..loop.operation import MOST
from ..loop.trio_internals import Replaced, SocketStream, SSLState, SSLStream, context
from .records import (
    BROKEN,
    WantReadError,
    decrypt,
    end_receive,
    fail_receive,
    feed,
    move_forward,
    release_to_next,
    send_out,
    take_in,
    tls_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .records import Tls

ORIGINAL: Final[dict[str, Any]] = {}
"""Trio's own methods, by name."""
_OK: Final = getattr(SSLState, "OK", None)
_ERRORS: Final = (ssl.SSLError, ssl.CertificateError)


@enable_ki_protection
def _usual(stream: Any, own: dict[str, Any], detector: Any) -> Tls | None:
    """Returns the stream's `Tls` if our method may do the call. None if Trio's own method has to."""
    tls = tls_of(stream)
    if tls is None or own["_state"] is not _OK or detector._held:
        return None
    tls.is_drained = False  # Trio's own methods may have read since, in another run or over another stream
    # If somebody else has replaced ``_retry``, his does not tell us what it has done with the SSLObject.
    tls.is_usual = (
        tls.error is None and not tls.decrypted and own["_handshook"].done and SSLStream._retry is retry
    )
    return tls if tls.is_usual else None


async def receive_some(self: Any, max_bytes: int | None = None) -> bytes:
    """Replaces ``receive_some``."""
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
        or SSLStream._retry is not retry
    ):
        tls = _usual(self, own, detector)
    if tls is None or (max_bytes is not None and (type(max_bytes) is not int or not 0 < max_bytes <= MOST)):
        return await ORIGINAL["receive_some"](self, max_bytes)  # type: ignore[no-any-return]
    most = max(own["_estimated_receive_size"], incoming.pending) if max_bytes is None else max_bytes
    lock = own["_inner_recv_lock"]
    found = None
    detector._held = True
    try:
        waited = tls.is_drained and not incoming.pending
        if not waited:
            if pass_cancel_point(task):
                await checkpoint_if_cancelled()
            found = decrypt(own, tls, most)
        while found is None:
            if outgoing.pending or lock._owner is not None:
                await move_forward(own, tls)
            else:  # what `take_in` does, without a frame of its own
                lock._owner = task
                try:
                    feed(own, tls, await transport.receive_some(), most)
                finally:
                    lock._owner = release_to_next(lock) if lock._lot._parked else None
            waited = True
            found = decrypt(own, tls, most)
        if outgoing.pending or not waited:
            await end_receive(own, tls, found, waited=waited)
    except Exception:
        await fail_receive(tls, found)
        raise
    finally:
        detector._held = False
    if found or tls.error is None:
        return found
    return await ORIGINAL["receive_some"](self, max_bytes)  # type: ignore[no-any-return]


async def send_all(self: Any, data: bytes | bytearray | memoryview) -> None:
    """Replaces ``send_all``."""
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
        or SSLStream._retry is not retry
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
        except WantReadError:  # in the middle of a renegotiation
            await self._retry(ssl_object.write, data)
            return
        except _ERRORS as error:
            own["_state"] = BROKEN
            raise trio.BrokenResourceError from error
        if lock._owner is not None or own["_delayed_outgoing"] is not None:
            await send_out(own)
            return
        lock._owner = task  # what `send_out` does, without a frame of its own
        try:
            await transport.send_all(own["_outgoing"].read())
        except Exception:
            own["_state"] = BROKEN
            await yield_shielded()
            raise
        except BaseException:
            own["_state"] = BROKEN
            raise
        finally:
            lock._owner = release_to_next(lock) if lock._lot._parked else None
    finally:
        detector._held = False


def retry(self: Any, fn: Callable[..., Any], *args: Any, **options: bool) -> Coroutine[Any, Any, Any]:
    """Replaces ``_retry``. For a stream that is never ours, this is Trio's own coroutine: each step of a task
    passes through one frame less."""
    own = self.__dict__
    if type(own["transport_stream"]) is SocketStream or "_uring_tls" in own:
        return _retry(self, fn, *args, **options)
    return ORIGINAL["_retry"](self, fn, *args, **options)  # type: ignore[no-any-return]


async def _retry(
    self: Any,
    fn: Callable[..., Any],
    *args: Any,
    ignore_want_read: bool = False,
    is_handshake: bool = False,
) -> Any:
    """Calls a method of the SSLObject until that need not wait, and sends and receives what OpenSSL needs for
    it. Ctrl-C may interrupt it wherever it may interrupt Trio's."""
    kept: Tls | None = vars(self).get("_uring_tls")
    if kept is not None:
        kept.is_drained = False
    if kept is not None and kept.decrypted and fn == self._ssl_object.read:
        return await _take_decrypted(kept, *args)
    if kept is not None and kept.error is not None:
        await checkpoint_if_cancelled()
        if not isinstance(kept.error, _ERRORS):
            error, kept.error = kept.error, None
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame
        self._state = BROKEN
        raise trio.BrokenResourceError from kept.error
    tls = tls_of(self)
    if tls is None:
        return await ORIGINAL["_retry"](
            self, fn, *args, ignore_want_read=ignore_want_read, is_handshake=is_handshake
        )
    await checkpoint_if_cancelled()
    answer = None
    waited = False
    wants = True
    while wants:
        try:
            answer = fn(*args)
            wants = False
        except WantReadError:
            wants = not ignore_want_read
        except _ERRORS as error:
            self._state = BROKEN
            raise trio.BrokenResourceError from error
        if is_handshake and not wants and _has_tickets(self._ssl_object):
            self._delayed_outgoing = self._outgoing.read()
        elif wants or self._outgoing.pending:
            await (send_out(vars(self)) if self._outgoing.pending else take_in(vars(self), tls))
            waited = True
    if not waited:
        await yield_shielded()
    return answer


def _has_tickets(ssl_object: ssl.SSLObject) -> bool:
    """Whether the output of the handshake's last step is session tickets: so it is for a server with TLS 1.3.
    The client may not read them yet, so they are sent with the first data."""
    return ssl_object.server_side and ssl_object.version() == "TLSv1.3"


@enable_ki_protection
async def _take_decrypted(kept: Tls, most: int) -> bytes:
    """Returns up to ``most`` bytes of what was decrypted and could not be returned. This is a checkpoint."""
    await checkpoint_if_cancelled()
    await yield_shielded()
    data = b"".join(kept.decrypted)
    taken = data[:most]
    kept.decrypted[:] = [data[most:]] if len(data) > most else []
    return taken


async def wait_send_all_might_not_block(self: Any) -> None:
    """Replaces ``wait_send_all_might_not_block``."""
    detector, lock = self._outer_send_conflict_detector, self._inner_send_lock
    if tls_of(self) is None or self._state is not _OK or detector._held or lock._owner is not None:
        await ORIGINAL["wait_send_all_might_not_block"](self)
        return
    lock._owner = context.task
    detector._held = True
    try:
        await self.transport_stream.wait_send_all_might_not_block()
    except Exception:
        await yield_shielded()
        raise
    finally:
        detector._held = False
        lock._owner = release_to_next(lock) if lock._lot._parked else None


REPLACEMENTS: Final = (
    Replaced(
        SSLStream,
        {
            "receive_some": receive_some,
            "send_all": send_all,
            "wait_send_all_might_not_block": wait_send_all_might_not_block,
            "_retry": retry,
        },
        ORIGINAL,
    ),
)
