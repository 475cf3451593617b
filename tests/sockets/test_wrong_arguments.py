"""What a call on a Trio socket raises that its arguments do not fit, after how many steps, and
what it leaves behind: the same as on epoll, whatever state the socket is in. And arguments of
unusual types that do fit.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from equivalence import EPOLL, URING, Backend, every_backend
from pairs import arm, pair_with_data, peer_socket, reset, tcp_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from trio.lowlevel import Task

DATA = b"0123456789"
HUGE = 1 << 100
"""More than any C type holds."""
STRIDED = memoryview(bytearray(10))[::2]
NOBODY = ("127.0.0.1", 9)
PEEK = socket.MSG_PEEK


@attrs.frozen(repr=False)
class Wrong:
    """A call."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __repr__(self) -> str:
        kwargs = tuple(f"{name}={value!r}" for name, value in self.kwargs.items())
        return f"{self.name}({', '.join((*map(repr, self.args), *kwargs))})"


def wrong(*names: str) -> Callable[..., list[Wrong]]:
    return lambda *args, **kwargs: [Wrong(name, args, kwargs) for name in names]


def wrong_calls() -> Iterator[list[Wrong]]:
    call = wrong("recv", "recvfrom", "recvmsg")
    yield from (call(*args) for args in ((), ("x",), (None,), (1.5,), (-1,), (HUGE,), (5, "x"), (5, HUGE)))
    yield from (call(bufsize=5), call(5, flags=0), call(5, bad=1), call(5, 0, 0, 0))
    call = wrong("recv", "recvfrom")
    yield from (call(5, None), call(5, 1.5), call("x", PEEK), call(-1, PEEK), call(5, 0, 0))
    call = wrong("recvmsg")
    yield from (call(5, -1), call(5, 0, "x"), call(5, 0, HUGE))

    call = wrong("recv_into", "recvfrom_into", "send", "sendmsg", "recvmsg_into")
    yield from (call(), call(5), call(None), call("text"), call(STRIDED), call(bad=1))
    call = wrong("recv_into", "recvfrom_into")
    yield from (call(b"read only"), call(5, 0, PEEK), call(buffer=5), call(bytearray(5), bad=1))
    yield from (call(bytearray(5), size) for size in (6, -1, "x", None, 1.5, HUGE))
    yield from (call(bytearray(5), 5, flags) for flags in ("x", None, 1.5, HUGE))
    yield call(bytearray(5), 5, 0, 0)
    call = wrong("recvmsg_into")
    yield from (call([5]), call(["text"]), call([b"read only"]), call([STRIDED]), call(iter([5])))
    yield from (call([bytearray(5)], size) for size in ("x", -1, HUGE))
    yield from (call([bytearray(5)], 0, flags) for flags in ("x", HUGE))
    yield from (call([bytearray(5)], 0, 0, 0), call(buffers=[]))

    call = wrong("send")
    yield from (call(b"x", "x"), call(b"x", None), call(b"x", HUGE), call(b"x", 0, 0))
    yield from (call(data=b"x"), call(b"x", flags=0))
    call = wrong("sendto")
    yield from (call(), call(b"x"), call(5, NOBODY), call("text", NOBODY), call(b"x", 0, NOBODY, 0))
    yield from (call(b"x", flags, NOBODY) for flags in ("x", HUGE))
    yield from (call(b"x", address) for address in (None, 5, b"127", [*NOBODY], NOBODY[:1]))
    yield from (call(b"x", ("127.0.0.1", port)) for port in ("x", HUGE, 70_000))
    yield from (call(b"x", ("a\0b", 9)), call(b"x", (9, 9)), call(b"x", address=NOBODY))
    call = wrong("sendmsg")
    yield from (call([5]), call(["text"]), call([b"x"], 5), call([b"x"], [5]), call([b"x"], [(1, 2)]))
    yield from (call([b"x"], [("a", 2, b"")]), call([b"x"], (), "x"), call([b"x"], (), HUGE))
    yield from (call([b"x"], (), 0, address) for address in (5, NOBODY[:1], ("127.0.0.1", HUGE)))
    yield from (call([b"x"], (), 0, None, 0), call(buffers=[b""]))

    yield wrong("fileno", "is_readable", "detach", "dup", "accept", "__exit__", "getsockopt", "connect")(1)
    yield wrong("accept", "connect", "dup")(bad=1)
    call = wrong("getsockopt")
    yield from (call(), call("x", 1), call(1, "x"), call(HUGE, 1), call(level=1), call(1.0, 4.0))
    yield from (call(socket.SOL_SOCKET, socket.SO_ERROR, size) for size in ("x", -1, 5000))
    call = wrong("connect")
    yield from (call(), call(None), call(NOBODY[:1]), call(("127.0.0.1", HUGE)), call(1, 2))
    yield from (wrong("__exit__")(), wrong("__exit__")(None, None, None, None))


CALLS = [call for calls in wrong_calls() for call in calls]


class Steps(trio.abc.Instrument):
    def __init__(self, task: Task) -> None:
        self.task = task
        self.count = 0

    def after_task_step(self, task: Task) -> None:
        self.count += task is self.task


async def shown(call: Callable[[], Any], *, cancelled: bool = False) -> tuple[object, ...]:
    """How a call ends, and after how many steps of its task."""
    steps = Steps(trio.lowlevel.current_task())
    trio.lowlevel.add_instrument(steps)
    how: tuple[object, ...] = ("cancelled",)
    with trio.CancelScope() as scope:
        if cancelled:
            scope.cancel()
        try:
            result = call()
            how = "returned", await result if hasattr(result, "__await__") else result
        except Exception as error:
            how = type(error), str(error)
    trio.lowlevel.remove_instrument(steps)
    return *how, steps.count


async def fresh() -> tuple[socket.socket, Any]:
    peer, stream = await tcp_pair()
    peer_socket(peer).send(DATA)
    return peer_socket(peer), stream.socket


async def armed() -> tuple[socket.socket, Any]:
    peer, stream = await tcp_pair()
    await arm(stream, peer_socket(peer))
    peer_socket(peer).send(DATA)
    return peer_socket(peer), stream.socket


async def with_data() -> tuple[socket.socket, Any]:
    peer, stream = await pair_with_data(DATA)
    return peer_socket(peer), stream.socket


async def datagrams() -> tuple[socket.socket, Any]:
    peer, receiver = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
    receiver.bind(("127.0.0.1", 0))
    peer.connect(receiver.getsockname())
    peer.send(DATA)
    return peer, trio.socket.from_stdlib_socket(receiver)


async def closed() -> tuple[socket.socket, Any]:
    peer, sock = await fresh()
    sock.close()
    return peer, sock


@pytest.mark.parametrize("make", [fresh, armed, with_data, datagrams, closed])
def test_wrong_arguments_are_refused_as_on_epoll(
    make: Callable[[], Awaitable[tuple[socket.socket, Any]]],
) -> None:
    async def main() -> dict[str, object]:
        seen: dict[str, object] = {}
        peer, sock = await make()
        for call in CALLS:
            for cancelled in (False, True):
                if sock._sock.fileno() < 0 and make is not closed:  # a cancelled connect has closed it
                    peer.close()
                    peer, sock = await make()
                args = tuple(iter([5]) if hasattr(arg, "__next__") else arg for arg in call.args)
                method = getattr(sock, call.name)
                seen[f"{call}, cancelled={cancelled}"] = await shown(
                    lambda method=method, args=args, call=call: method(*args, **call.kwargs),
                    cancelled=cancelled,
                )
        if make is not closed:  # nothing was lost
            seen["afterwards"] = await sock.recv(100)
        peer.close()
        sock.close()
        return seen

    assert URING.run(main) == EPOLL.run(main)


class Five:
    """An integer to the standard library, and no int."""

    def __index__(self) -> int:
        return 5


@every_backend
@pytest.mark.parametrize(
    "call",
    [
        lambda sock, _: sock.recv(Five()),
        lambda sock, _: sock.recv(5, False),
        lambda sock, buffer: sock.recv_into(buffer, Five()),
        lambda sock, buffer: sock.recv_into(nbytes=Five(), buffer=buffer),
        lambda sock, _: sock.recvfrom(Five()),
        lambda sock, buffer: sock.recvfrom_into(buffer, flags=False, nbytes=Five()),
        lambda sock, _: sock.recvmsg(Five(), Five()),
        lambda sock, buffer: sock.recvmsg_into([buffer[:5]], False),
    ],
)
def test_an_integer_of_any_type_takes_what_comes_first(
    backend: Backend, call: Callable[[Any, memoryview], Awaitable[Any]]
) -> None:
    async def main() -> None:
        buffer = bytearray(20)
        peer, sock = await with_data()
        peer.send(b"later")
        received = await call(sock, memoryview(buffer))
        first = received[0] if isinstance(received, tuple) else received
        assert (bytes(buffer[:first]) if isinstance(first, int) else first) == DATA[:5]
        assert await sock.recv(5) == DATA[5:]
        peer.close()
        sock.close()

    backend.run(main)


@every_backend
def test_more_than_a_kernel_takes_at_once_may_be_asked_for(backend: Backend) -> None:
    async def main() -> None:
        peer, sock = await fresh()
        assert await sock.recv(1 << 33) == DATA
        peer.close()
        sock.close()

    backend.run(main)


@every_backend
def test_an_iterator_of_buffers_that_fails_takes_nothing(backend: Backend) -> None:
    def buffers() -> Iterator[bytearray]:
        yield bytearray(5)
        raise TypeError("of the program")

    async def main() -> None:
        peer, sock = await with_data()
        assert await shown(lambda: sock.recvmsg_into(buffers()), cancelled=True) == ("cancelled", 2)
        assert (await shown(lambda: sock.recvmsg_into(buffers())))[::2] == (TypeError, 1)
        assert await sock.recv(100) == DATA
        peer.close()
        sock.close()

    backend.run(main)


def test_a_send_that_fails_yields_as_on_epoll() -> None:
    async def main() -> tuple[object, ...]:
        peer, stream = await tcp_pair()
        reset(peer)
        await stream.socket.wait_writable()
        with stream.socket as sock:
            return await shown(lambda: sock.send(b"x")), await shown(lambda: sock.send(b"x"))

    assert URING.run(main) == EPOLL.run(main)
