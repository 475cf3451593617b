"""A pair of connected streams in one run, and the calls that a program makes on them.

Every call runs in a task of its own. After each step the run settles: all tasks are blocked,
and loopback connections deliver within the call that sends. So it is known which calls have
ended, and what each end has been sent; how many bytes one receive returns is not. A receive
is therefore repeated until the bytes that it was to receive are there, and what it shows is
where the stream stands then.

What an end sends is a part of one endless pattern: whatever is lost, doubled or out of order
is seen when it is received. After a `send_all` that failed, how much has arrived is unknown:
the end is *torn*, sends no more, and its peer shows only how its receives end.
"""

from __future__ import annotations

import random
import select
import socket
import struct
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import attrs
import outcome
import trio
from trio.testing import wait_all_tasks_blocked
from waiters import fill

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

PATTERN = random.Random(5).randbytes(65_521)  # a prime: no size divides it
HUGE = 1 << 20
"""More than the buffers of both sockets and all that is read ahead: it has to be received."""
LITTLE = 30_000
"""Of a huge send, all that may be received without its being certain to go on waiting."""
SOCKET_BUFFER = 65_536
STALLED = 30
ACKNOWLEDGED = 1
"""Seconds in which TCP acknowledges what has come, if it does at all: it may take its time, but a fraction of
this."""
_TCP_INFO_UNACKED = 24
WHAT_COMES = "receive_some()"
"""The one that cannot be told where to stop."""

Observation: TypeAlias = "tuple[object, ...]"


def expected(start: int, size: int) -> bytes:
    start %= len(PATTERN)
    return (PATTERN * (2 + size // len(PATTERN)))[start : start + size]


def described(error: BaseException | None) -> Observation:
    """An exception, as far as a program can tell two of them apart."""
    if error is None:
        return ()
    number = error.errno if isinstance(error, OSError) else None
    return type(error).__name__, number, str(error), *described(error.__cause__)


def broken(error: Exception) -> Observation:
    """A send that the peer broke. The kernel tells of a reset once: whether that is told to who
    sends or to who receives (the other finds EPIPE, or the end) is left to who asks first."""
    return ("BrokenResourceError" if isinstance(error, trio.BrokenResourceError) else "OSError",)


@attrs.define(eq=False)
class Call:
    """A call in a task of its own."""

    name: str
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ended: bool = False
    observation: Observation = ("waits",)


@attrs.define(eq=False)
class End:
    """One end of a connection."""

    stream: trio.SocketStream
    sent: int = 0
    received: int = 0
    target: int = 0
    """What a receive that waits is to reach."""
    torn: bool = False
    closed: bool = False
    deaf: bool = False
    """Shut down for receiving: what comes now resets the connection, which a socket that was told
    of the end before does not show."""
    huge: bool = False
    """Bytes of a huge send may be on their way."""
    calls: list[Call] = attrs.field(factory=list)

    def waiting(self) -> list[Call]:
        return [call for call in self.calls if not call.ended]

    def is_sending(self) -> bool:
        return any(call.name == "send" for call in self.waiting())

    def is_breaking(self) -> bool:
        """Whether a send may have been told of what broke the connection."""
        return self.torn or self.is_sending()

    def may_get_room(self) -> bool:
        """Whether a send that waits may go on by itself: there is room, or an acknowledgement makes some."""
        sock = self.socket._sock
        if not self.is_sending() or sock.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        if poll.poll(0):
            return True
        return sock.family != socket.AF_UNIX and is_unacknowledged(sock)

    @property
    def socket(self) -> Any:
        return self.stream.socket


def is_unacknowledged(sock: socket.socket) -> bool:
    """Whether TCP waits to be told that what it has sent has come."""
    known = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_UNACKED + 4)
    return struct.unpack_from("I", known, _TCP_INFO_UNACKED) != (0,)


async def fill_for_good(sock: socket.socket) -> None:
    """Fills a TCP socket whose peer receives nothing, until no acknowledgement makes room any more."""
    while fill(sock):
        with trio.move_on_after(ACKNOWLEDGED):
            while is_unacknowledged(sock):
                await trio.sleep(0.001)


def pair(family: str) -> tuple[trio.SocketStream, trio.SocketStream]:
    if family == "unix":
        first, second = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
            first = socket.socket()
            first.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
            first.connect(listener.getsockname())
            second, _ = listener.accept()
    for each in (first, second):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
    return tuple(trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in (first, second))  # type: ignore[return-value]


class Pair:
    """The state of a program's run."""

    def __init__(self, family: str, nursery: trio.Nursery) -> None:
        first, second = pair(family)
        self.ends = (End(first), End(second))
        self.nursery = nursery

    async def call(self, end: End, name: str, function: Callable[[], Awaitable[Observation]]) -> Observation:
        """What it shows when the run has settled; ``("waits",)`` if it has not ended by then."""
        call = Call(name)
        end.calls.append(call)
        self.nursery.start_soon(self._run, call, function)
        await self.settle()
        return call.observation

    async def settle(self) -> None:
        """Twice: what the first round of events has set off is an event, too. The acknowledgements
        of a huge send take the kernel's timers, so what has to end is waited for. So is room for more of it:
        else it would come in the midst of a later call."""
        await wait_all_tasks_blocked()
        await wait_all_tasks_blocked(0.0005)
        with trio.move_on_after(STALLED):
            while any(self.is_due(end) for end in self.ends):
                await trio.sleep(0.001)
        with trio.move_on_after(ACKNOWLEDGED):
            while any(end.may_get_room() for end in self.ends):
                await trio.sleep(0.001)
                await wait_all_tasks_blocked()

    def is_due(self, end: End) -> bool:
        """Whether the end waits for what has been sent, or to send what has been received."""
        peer = self.peer(end)
        if any(call.scope.cancel_called for call in end.waiting()):
            return True
        names = {call.name for call in end.waiting()}
        if "receive" in names and not peer.torn:
            return end.received < min(peer.sent, end.target)
        return "send" in names and peer.received >= end.sent

    async def _run(self, call: Call, function: Callable[[], Awaitable[Observation]]) -> None:
        with call.scope:
            try:
                call.observation = await function()
            except trio.Cancelled:
                call.observation = ("cancelled",)
                raise
            except AssertionError:
                raise
            except Exception as error:
                call.observation = described(error)
            finally:
                call.ended = True

    def peer(self, end: End) -> End:
        return self.ends[end is self.ends[0]]

    def close_all(self) -> None:
        for end in self.ends:
            end.stream.socket.close()

    def is_sending(self) -> bool:
        return any(end.is_sending() for end in self.ends)

    # Receiving

    async def receive(self, end: End, method: str, size: int, target: int) -> Observation:
        """Until ``target`` bytes of the stream are received, ``size`` by one call at most."""
        how = ""
        end.target = target
        try:
            while end.received < target and not how:
                data = await RECEIVES[method](end, min(size, target - end.received))
                assert data == expected(end.received, len(data)), (method, size, end.received, len(data))
                end.received += len(data)
                how = "" if data else "end"
        except (trio.ClosedResourceError, trio.BusyResourceError) as error:
            return self.position(end, ended=True), *described(error)
        except (OSError, trio.BrokenResourceError) as error:
            if end.is_breaking():
                return self.position(end, ended=True), "over"
            return self.position(end, ended=True), *described(error)
        if how and end.is_breaking():
            how = "over"
        return self.position(end, ended=bool(how)), how

    def position(self, end: End, *, ended: bool) -> int | None:
        """Where the end's stream stands, unless that is left to chance."""
        peer = self.peer(end)
        return None if peer.torn or (ended and peer.huge) else end.received

    async def receive_disturbed(
        self, end: End, method: str, size: int, target: int, after: list[int]
    ) -> Observation:
        """The same; calls are cancelled after as many steps of the run as ``after`` says."""
        for steps in after:
            observation = await disturbed(lambda: self.receive(end, method, size, target), steps)
            if observation is not None:
                return observation
        return await self.receive(end, method, size, target)

    async def peek(self, end: End, size: int) -> Observation:
        try:
            data = await end.socket.recv(size, socket.MSG_PEEK)
        except (BrokenPipeError, ConnectionResetError):
            if end.is_breaking():
                return (False,)
            raise
        assert data == expected(end.received, len(data)), ("peek", size, end.received, len(data))
        return (bool(data),)

    # Sending

    async def send_all(self, end: End, size: int, form: Callable[[bytes], Any]) -> Observation:
        data = form(expected(end.sent, size))
        end.sent += size
        try:
            await end.stream.send_all(data)
        except trio.BrokenResourceError as error:
            end.torn = True
            return broken(error)
        except trio.BusyResourceError:
            end.sent -= size
            raise
        except BaseException:
            end.torn = True
            raise
        finally:
            if isinstance(data, bytearray):
                data.append(0)  # nothing holds it any longer
        return ("sent",)

    async def send(self, end: End, size: int, after: list[int]) -> Observation:
        """By ``send``, which says how much of it was sent; cancelled as ``after`` says."""
        after = list(after)
        at = end.sent
        end.sent += size
        try:
            while at < end.sent:
                data = expected(at, end.sent - at)
                if after:
                    at += await disturbed(partial(end.socket.send, data), after.pop()) or 0
                else:
                    at += await end.socket.send(data)
        except trio.BusyResourceError:
            assert at == end.sent - size
            end.sent = at
            raise
        except (BrokenPipeError, ConnectionResetError) as error:
            end.torn = True
            return broken(error)
        except BaseException:
            end.torn = True
            raise
        return ("sent",)


async def disturbed(call: Callable[[], Awaitable[T]], steps: int) -> T | None:
    """The result, or None if it was cancelled, after ``steps`` steps of the run.

    With 0 it is cancelled before it begins, or before the kernel has heard of it.
    """
    result: outcome.Outcome[T] | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_after, nursery.cancel_scope, steps)
        try:
            await trio.lowlevel.checkpoint()
            result = outcome.Value(await call())
        except Exception as error:
            result = outcome.Error(error)
        nursery.cancel_scope.cancel()
    return None if result is None else result.unwrap()


async def cancel_after(scope: trio.CancelScope, steps: int) -> None:
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    scope.cancel()


def reset(end: End) -> None:
    with suppress(OSError):  # It is closed.
        end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _receive_some(end: End, size: int) -> bytes:
    return bytes(await end.stream.receive_some(size))


async def _receive_what_comes(end: End, _: int) -> bytes:
    return bytes(await end.stream.receive_some())


async def _recv(end: End, size: int) -> bytes:
    data: bytes = await end.socket.recv(size)
    return data


async def _recv_into(end: End, size: int) -> bytes:
    buffer = bytearray(size + 3)
    count = await end.socket.recv_into(buffer, size)
    assert not any(buffer[count:])
    return bytes(buffer[:count])


async def _recvfrom(end: End, size: int) -> bytes:
    data, _ = await end.socket.recvfrom(size)
    return bytes(data)


async def _recvfrom_into(end: End, size: int) -> bytes:
    buffer = bytearray(size)
    count, _ = await end.socket.recvfrom_into(buffer)
    assert not any(buffer[count:])
    return bytes(buffer[:count])


async def _recvmsg(end: End, size: int) -> bytes:
    data, ancillary, flags, _ = await end.socket.recvmsg(size)
    assert not ancillary
    assert not flags
    return bytes(data)


async def _recvmsg_into(end: End, size: int) -> bytes:
    first, second = bytearray(size // 2), bytearray(size - size // 2)
    count, ancillary, _, _ = await end.socket.recvmsg_into([first, second])
    assert not ancillary
    both = bytes(first + second)
    assert not any(both[count:])
    return both[:count]


RECEIVES: dict[str, Callable[[End, int], Awaitable[bytes]]] = {
    "receive_some": _receive_some,
    WHAT_COMES: _receive_what_comes,
    "recv": _recv,
    "recv_into": _recv_into,
    "recvfrom": _recvfrom,
    "recvfrom_into": _recvfrom_into,
    "recvmsg": _recvmsg,
    "recvmsg_into": _recvmsg_into,
}
