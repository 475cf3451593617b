"""TLS records: what an SSLStream takes in from the stream below, what is decrypted of it, and what is sent
out. sockets/tls.py has the methods of the stream, which are made of these functions.

They work on the attributes of Trio's SSLStream, as its own methods do, which may be called on the same
stream at the same time. An SSLStream has ``__getattr__`` and ``__setattr__`` of Python's, so what is read
and set is its ``__dict__``, here called ``own``.

- Between a call of the SSLObject and the turn to send what that has made nothing is awaited: records go
  out in the order in which they were made. The turn is the inner send lock.
- Who takes in holds the inner receive lock. Who finds it held waits until another has taken in, and then
  looks again; ``_inner_recv_count`` tells.
- A lock that is free is taken by setting its owner, without a checkpoint. Trio is told of the owner only
  if somebody waits for the lock when it is released, since it would have to tell those if the owner ended
  before that; and the functions here end no task in between.
- What was decrypted stands in `Tls.decrypted` until it can be returned.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final

import trio
from trio.lowlevel import add_parking_lot_breaker, enable_ki_protection

from ..loop.checkpoints import yield_shielded
from ..loop.trio_internals import SSLState, context
from .lookup import connection_of, sockets_of_run
from .streams import take_ahead

if TYPE_CHECKING:
    from ..loop.run import Run

RECORD: Final = 16384
"""Bytes: what one record has at most, and so what OpenSSL returns at most. It is given memory for all
that it is asked for."""
_OVERHEAD: Final = 256
"""Bytes that the last record may take beside its data, and more."""
BROKEN: Final = getattr(SSLState, "BROKEN", None)
WantReadError: Final = ssl.SSLWantReadError


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

    def keep_data(self, data: bytes) -> None:
        """What could not be returned, or added to what is kept, for want of memory."""
        self.is_usual = False
        if not self.decrypted or self.decrypted[-1] is not data:
            self.decrypted.append(data)


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


def decrypt(own: dict[str, Any], tls: Tls, most: int) -> bytes | None:
    """Up to ``most`` bytes of the records that are there; empty at the end, or after an error. None: no
    record is whole."""
    size = most if most < RECORD else RECORD
    ssl_object = own["_ssl_object"]
    try:
        data: bytes = ssl_object.read(size)
    except WantReadError:
        tls.is_drained = True
        return None
    except OSError as error:
        tls.keep(error)
        return b""
    try:
        if own["_incoming"].pending and data and len(data) < most:
            return _with_more(own, tls, data, most)
        tls.is_drained = 0 < len(data) < size or (bool(data) and not ssl_object.pending())
    except MemoryError:
        if not tls.decrypted:
            tls.keep_data(data)
        raise
    return data


def _with_more(own: dict[str, Any], tls: Tls, data: bytes, most: int) -> bytes:
    """The data of one record and of those behind it."""
    parts = tls.decrypted
    parts.append(data)
    tls.is_usual = False
    left = most - len(data)
    incoming, ssl_object = own["_incoming"], own["_ssl_object"]
    try:
        while data and left and incoming.pending:
            data = ssl_object.read(left if left < RECORD else RECORD)
            parts.append(data)
            left -= len(data)
    except WantReadError:
        pass
    except MemoryError:
        tls.keep_data(data)
    except OSError as error:
        tls.keep(error)
    tls.is_drained = bool(data) and not ssl_object.pending()
    joined = b"".join(parts)
    parts.clear()
    tls.is_usual = tls.error is None
    return joined


def feed(own: dict[str, Any], tls: Tls, data: bytes, most: int) -> None:
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
    while size >= RECORD and (wanted := most + _OVERHEAD - incoming.pending) > 0:
        more = take_ahead(own["transport_stream"], wanted)
        if not more:
            break
        incoming.write(more)


async def move_forward(own: dict[str, Any], tls: Tls) -> None:
    """What OpenSSL needs for what it could not do: it is sent what OpenSSL has made, or else OpenSSL is given
    what comes."""
    made = own["_outgoing"].read()
    await (send_out(own, made) if made else take_in(own, tls))


@enable_ki_protection
async def take_in(own: dict[str, Any], tls: Tls) -> None:
    """Has OpenSSL get what comes next, by this task or by another that is about it."""
    lock, count = own["_inner_recv_lock"], own["_inner_recv_count"]
    was_free = await acquire(lock)
    try:
        if count == own["_inner_recv_count"]:
            feed(own, tls, await own["transport_stream"].receive_some(), 0)
    except Exception:
        await yield_shielded()
        raise
    finally:
        release(lock, was_free=was_free)


async def end_receive(own: dict[str, Any], tls: Tls, found: bytes, *, waited: bool) -> None:
    """Sends what the records have OpenSSL answer; what was ``found`` in them outlives that. Yields if the
    receive has not ``waited``."""
    if tls.error is None and own["_outgoing"].pending:
        tls.decrypted.append(found)
        tls.is_usual = False
        await send_out(own, own["_outgoing"].read())
        tls.decrypted.clear()
    elif not waited and not (tls.run.budget and tls.run.spend()):
        await yield_shielded()


async def fail_receive(tls: Tls, found: bytes | None) -> None:
    """Keeps what was ``found``, and yields: what has failed may not have."""
    if found:
        tls.keep_data(found)
    await yield_shielded()


@enable_ki_protection
async def send_out(own: dict[str, Any], made: bytes) -> None:
    """Sends what OpenSSL has made, behind all that it has made before."""
    lock = own["_inner_send_lock"]
    was_free = await acquire(lock)
    try:
        if own["_delayed_outgoing"] is not None:
            made = own["_delayed_outgoing"] + made
            own["_delayed_outgoing"] = None
        await own["transport_stream"].send_all(made)
    except Exception:  # nobody knows how much of it was sent
        own["_state"] = BROKEN
        await yield_shielded()
        raise
    except BaseException:
        own["_state"] = BROKEN
        raise
    finally:
        release(lock, was_free=was_free)


async def acquire(lock: Any) -> bool:
    """Whether it was free. Trio does not know of an owner whom it would have to replace if he ended."""
    if lock._owner is None:
        lock._owner = context.task
        return True
    await lock.acquire()
    return False


def release(lock: Any, *, was_free: bool) -> None:
    if not was_free:
        lock.release()
    elif lock._lot._parked:
        release_to_next(lock)
    else:
        lock._owner = None


def release_to_next(lock: Any) -> Any:
    """One that was free, which somebody waits for by now. Returns that task, which owns it from now on."""
    add_parking_lot_breaker(lock._owner, lock._lot)
    lock.release()
    return lock._owner
