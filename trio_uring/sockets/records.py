"""How an SSLStream takes in TLS records from the stream below, decrypts them, and sends its own. The methods
of the stream (sockets/tls.py) are made of these functions. Only the task that calls such a method may call
them.

They work on the attributes of Trio's SSLStream, as Trio's own methods do, which other tasks may be in the
middle of. An SSLStream has a ``__getattr__`` and a ``__setattr__`` written in Python, which are slow. So its
``__dict__`` is read and set instead, here called ``own``.

- Records go out in the order in which they were made. So nothing is awaited between a call of the SSLObject
  and asking for the inner send lock, under which its output is sent.
- A record that got lost would make the peer refuse all that come after it. So what OpenSSL has made is read
  where Ctrl-C cannot interrupt, or where that breaks the stream. What is not read goes out with the next.
  As by Trio, a record is lost if a task is cancelled, or interrupted, while it waits for the send lock.
- A task that takes in holds the inner receive lock. A task that finds it held waits until another has taken
  in, and then looks again: ``_inner_recv_count`` shows whether that has happened.
- A lock that is free is taken by setting its owner, without a checkpoint. Trio knows the owner of a lock so
  that it can tell the tasks that wait if the owner ends with the lock. No task ends while it holds a
  lock here. So Trio is told of the owner only when the lock is released to a task that waits.
- What was decrypted stays in `Tls.decrypted` until it can be returned.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final

from trio.lowlevel import add_parking_lot_breaker, enable_ki_protection

from ..loop.checkpoints import yield_shielded
from ..loop.trio_internals import SocketStream, SSLState, context
from .lookup import connection_of, sockets_of_run
from .streams import take_ahead

if TYPE_CHECKING:
    from ..loop.run import Run

RECORD: Final = 16384
"""How many bytes of data one record has at most, and so how many OpenSSL returns at most. It is not asked for
more, since each read makes memory for all that is asked for."""
_OVERHEAD: Final = 256
"""How many bytes a record may take beside its data. No record takes so many."""
BROKEN: Final = getattr(SSLState, "BROKEN", None)
WantReadError: Final = ssl.SSLWantReadError


class Tls:
    """What we know of an SSLStream beside what the stream itself knows."""

    __slots__ = ("decrypted", "error", "is_drained", "is_usual", "run", "runner", "transport")
    run: Run
    runner: object
    """Trio's runner of the run that used the stream last."""
    transport: object
    """The stream below, at that time."""

    def __init__(self) -> None:
        self.is_usual = False
        """Whether the handshake is over, and nothing is kept for the next call."""
        self.is_drained = False
        """Whether the last use of the SSLObject was a read that has left nothing, and nothing came in since.
        Then another read would have to wait."""
        self.decrypted: list[bytes] = []
        """The data that could not be returned yet."""
        self.error: OSError | None = None
        """OpenSSL's error, which the next call has to raise. It is nearly always an SSLError."""

    def keep(self, error: OSError) -> None:
        """Keeps the error for the next call, without its traceback, which would refer back to the stream."""
        self.error = error.with_traceback(None)
        self.is_usual = False

    def keep_data(self, data: bytes) -> None:
        """Keeps data that could not be returned, for want of memory or because of an error."""
        self.is_usual = False
        if not self.decrypted or self.decrypted[-1] is not data:
            self.decrypted.append(data)


def tls_of(stream: Any) -> Tls | None:
    """Returns the stream's `Tls`, for the run that calls. None if the stream is left to Trio's own methods in
    that run."""
    own = stream.__dict__
    run = run_for(own["transport_stream"])
    if run is None:
        return None
    tls: Tls | None = own.get("_uring_tls")
    if tls is None:
        tls = own["_uring_tls"] = Tls()
    tls.runner, tls.run, tls.transport = context.runner, run, own["transport_stream"]
    return tls


def run_for(transport: Any) -> Run | None:
    """Returns the run that calls, if ``transport`` works by completions in it, and if the run has the feature
    "tls". Else None."""
    if type(transport) is not SocketStream:
        return None
    sockets = sockets_of_run()
    if sockets is None or not sockets.tls or connection_of(transport.socket) is None:
        return None
    return sockets.run


@enable_ki_protection
def decrypt(own: dict[str, Any], tls: Tls, most: int) -> bytes | None:
    """Returns up to ``most`` bytes of data of the records that have come. Empty at the end of the data, or if
    there is an error, which is kept in `Tls.error`. None if no record has come whole."""
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
    """Returns ``data``, which is that of one record, with the data of the records behind it."""
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
    except MemoryError:  # raised, since Python's ssl may have lost a record
        tls.keep_data(data)
        raise
    except OSError as error:
        tls.keep(error)
    tls.is_drained = bool(data) and not ssl_object.pending()
    joined = b"".join(parts)
    parts.clear()
    tls.is_usual = tls.error is None
    return joined


@enable_ki_protection
def feed(own: dict[str, Any], tls: Tls, data: bytes, most: int) -> None:
    """Gives OpenSSL the ``data`` that has come from the stream below; empty stands for its end. Then gives it
    of what was read ahead as much as it may need for ``most`` bytes of data."""
    tls.is_drained = False
    incoming, size = own["_incoming"], len(data)
    if data:
        incoming.write(data)
    else:
        incoming.write_eof()
    own["_inner_recv_count"] += 1
    if size > own["_estimated_receive_size"]:  # noqa: PLR1730  # seldom true, and a call of `max` takes longer
        own["_estimated_receive_size"] = size
    while size >= RECORD and (wanted := most + _OVERHEAD - incoming.pending) > 0:
        more = take_ahead(own["transport_stream"], wanted)
        if not more:
            break
        incoming.write(more)


async def move_forward(own: dict[str, Any], tls: Tls) -> None:
    """Does what OpenSSL needs for a read that had to wait: sends what OpenSSL has made, if there is any, or
    else takes in what comes."""
    await (send_out(own) if own["_outgoing"].pending else take_in(own, tls))


@enable_ki_protection
async def take_in(own: dict[str, Any], tls: Tls) -> None:
    """Returns once OpenSSL was given what comes next, by this task, or by another that was about to."""
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


@enable_ki_protection
async def end_receive(own: dict[str, Any], tls: Tls, found: bytes, *, waited: bool) -> None:
    """Sends what OpenSSL answers to the records, and keeps what was ``found`` in them until that is sent. If
    there is nothing to send, yields, unless the receive has ``waited`` or the task has budget left."""
    if tls.error is None and own["_outgoing"].pending:
        tls.decrypted.append(found)
        tls.is_usual = False
        await send_out(own)
        tls.decrypted.clear()
    elif not waited and not (tls.run.budget and tls.run.spend()):
        await yield_shielded()


async def fail_receive(tls: Tls, found: bytes | None) -> None:
    """Keeps what was ``found`` for the next call, and yields: the call that failed may not have yielded."""
    if found:
        tls.keep_data(found)
    await yield_shielded()


@enable_ki_protection
async def send_out(own: dict[str, Any]) -> None:
    """Sends what OpenSSL has made, after all that it has made before."""
    made, lock = own["_outgoing"].read(), own["_inner_send_lock"]
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
    """Takes the lock, and returns whether it was free. Then Trio is not told of the owner. To be released by
    `release`."""
    if lock._owner is None:
        lock._owner = context.task
        return True
    await lock.acquire()
    return False


def release(lock: Any, *, was_free: bool) -> None:
    """Releases a lock. ``was_free`` is what `acquire` returned."""
    if was_free:
        lock._owner = release_to_next(lock) if lock._lot._parked else None
    else:
        lock.release()


@enable_ki_protection
def release_to_next(lock: Any) -> Any:
    """Releases a lock that was free when it was taken, and that tasks wait for by now. Returns the first of
    these, which owns the lock from now on."""
    add_parking_lot_breaker(lock._owner, lock._lot)
    lock.release()
    return lock._owner
