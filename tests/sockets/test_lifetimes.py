"""How a connection ends: closed, collected, left by its run, forked; and its number comes back.

An idle connection has a receive pending, which holds its file open: whatever ends it has
to end that too, at once.
"""

from __future__ import annotations

import errno
import gc
import os
import queue
import signal
import socket
import sys
import threading
import weakref
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any

import pytest
import trio
from child_process import output_of
from equivalence import (
    PATIENCE,
    URING,
    Backend,
    descriptors_so_far,
    every_backend,
    every_ring,
    io_statistics,
    needs_completions,
    open_descriptors,
)
from pairs import (
    arm,
    armed_pair,
    fails_with,
    pair_with_data,
    peer_socket,
    reset,
    result_of,
    sees_end,
    tcp_pair,
)
from trio.testing import wait_all_tasks_blocked

import trio_uring
from trio_uring import RingOptions
from trio_uring.loop.manager import UringManager
from trio_uring.loop.trio_internals import SocketType
from trio_uring.sockets.connection import Connection
from trio_uring.sockets.receive_buffers import ReceiveBuffers
from trio_uring.sockets.run_socket import RunSocket
from trio_uring.sockets.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import outcome

pytestmark = pytest.mark.usefixtures("no_hanging")


async def close(stream: trio.SocketStream) -> None:
    stream.socket.close()


async def leave(stream: trio.SocketStream) -> None:
    with stream.socket:
        pass


@needs_completions
@every_ring
def test_an_idle_connection_has_a_receive_pending_and_its_tasks_none(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        assert io_statistics().operations_in_flight >= 1
        assert io_statistics().tasks_waiting_read <= 1  # Trio's own
        async with peer, stream:
            pass
        while io_statistics().operations_in_flight > 2:  # the interrupt's and the signals'
            await trio.lowlevel.checkpoint()

    backend.run(main)


@every_backend
@pytest.mark.parametrize("end", [close, leave, trio.SocketStream.aclose])
def test_the_peer_sees_the_end_when_the_call_returns(
    backend: Backend, end: Callable[[trio.SocketStream], Awaitable[None]]
) -> None:
    async def main() -> bool:
        peer, stream = await armed_pair()
        await end(stream)
        async with peer:
            return sees_end(peer)

    assert backend.run(main)


@every_backend
def test_the_peer_sees_the_end_of_a_connection_that_was_cancelled_and_closed(backend: Backend) -> None:
    async def main() -> bool:
        peer, stream = await armed_pair()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.receive_some)
                nursery.start_soon(stream.send_all, bytes(20_000_000))
                await wait_all_tasks_blocked()
                scope.cancel()
        stream.socket.close()
        async with peer:
            while await peer.receive_some():
                pass
            return True

    assert backend.run(main)


@every_backend
def test_data_that_nobody_read_makes_closing_a_reset_or_an_end(backend: Backend) -> None:
    """On epoll a reset; what was read ahead the kernel believes read."""

    async def main() -> bytes:
        peer, stream = await pair_with_data(b"unread")
        await stream.aclose()
        async with peer:
            try:
                return await peer.receive_some()
            except trio.BrokenResourceError:
                return b""

    assert backend.run(main) == b""


@every_backend
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "on another thread"])
def test_a_connection_that_is_collected_sends_its_end(backend: Backend, elsewhere: bool) -> None:
    async def main() -> bytes:
        peer, stream = await armed_pair()
        held = [stream]
        del stream
        if elsewhere:
            threading.Thread(target=held.clear).start()
        else:
            held.clear()
        async with peer:
            return bytes(await peer.receive_some())

    assert backend.run(main) == b""


@every_backend
def test_a_connection_that_is_collected_is_warned_of(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with peer:
            with pytest.warns(ResourceWarning, match="unclosed"):
                del stream

    backend.run(main)


CALLS: dict[str, Callable[[trio.SocketStream], Awaitable[Any]]] = {
    "recv": lambda stream: stream.socket.recv(100),
    "recv_into": lambda stream: stream.socket.recv_into(bytearray(100)),
    "recvfrom": lambda stream: stream.socket.recvfrom(100),
    "recvmsg": lambda stream: stream.socket.recvmsg(100),
    "receive_some": lambda stream: stream.receive_some(100),
    "__anext__": lambda stream: stream.__anext__(),
}


@every_backend
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("armed", [False, True], ids=["first", "armed"])
def test_a_call_keeps_the_socket_that_nobody_else_has(backend: Backend, call: str, armed: bool) -> None:
    async def main() -> None:
        peer, stream = await (armed_pair() if armed else tcp_pair())
        calls = [CALLS[call](stream)]
        del stream
        gc.collect()
        results = []

        async def receive() -> None:
            results.append(await calls.pop())

        async with peer, trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            gc.collect()
            await peer.send_all(b"data")
        (result,) = results
        assert (result[0] if isinstance(result, tuple) else result) in (b"data", 4)

    with pytest.warns(ResourceWarning):  # when it goes, with the call
        backend.run(main)


@every_backend
def test_a_closed_connection_is_freed_without_the_garbage_collector(backend: Backend) -> None:
    async def main() -> list[object]:
        peer, stream = await armed_pair()
        with trio.CancelScope() as scope:  # one that was sending, too
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, bytes(20_000_000))
                await wait_all_tasks_blocked()
                scope.cancel()
        await stream.aclose()
        await peer.aclose()
        alive = [weakref.ref(stream), weakref.ref(stream.socket), weakref.ref(peer_socket(stream))]
        del stream, peer, nursery
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        return [reference() for reference in alive] + connections()

    gc.collect()
    gc.disable()
    try:
        assert set(backend.run(main)) == {None}
    finally:
        gc.enable()


def connections() -> list[object]:
    return [thing for thing in gc.get_objects() if type(thing) in (Connection, Sender)]


async def cancelled(call: Callable[[], Awaitable[object]]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def accepts(_peer: trio.SocketStream, _stream: trio.SocketStream) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        await cancelled(listener.accept)
        await cancelled(listener.socket.accept)


async def sends_to_nobody(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
    reset(peer)
    for _ in range(2):
        await result_of(lambda: stream.socket.send(b"x"))


FAILURES: dict[str, Callable[[trio.SocketStream, trio.SocketStream], Awaitable[None]]] = {
    "receives": lambda _, stream: cancelled(stream.receive_some),
    "receives for the first time": lambda peer, _: cancelled(peer.receive_some),
    "sends": lambda _, stream: cancelled(lambda: stream.send_all(bytes(20_000_000))),
    "accepts": accepts,
    "sends to nobody": sends_to_nobody,
}


@every_backend
@pytest.mark.parametrize("failure", FAILURES)
def test_a_call_that_fails_leaves_nothing_to_the_garbage_collector(backend: Backend, failure: str) -> None:
    async def main() -> int:
        async def connect_and_fail() -> None:
            peer, stream = await armed_pair()
            await FAILURES[failure](peer, stream)
            await peer.aclose()
            await stream.aclose()

        await connect_and_fail()
        gc.collect()
        gc.disable()
        for _ in range(5):
            await connect_and_fail()
        return gc.collect()

    try:
        assert backend.run(main) == 0
    finally:
        gc.enable()


@every_backend
def test_a_number_that_comes_back_is_another_connection(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await pair_with_data(b"of the first")
        number = stream.socket.fileno()
        stream.socket.close()
        for _ in range(10):
            left, right = socket.socketpair()
            if number in (left.fileno(), right.fileno()):
                break
        ours, theirs = (left, right) if left.fileno() == number else (right, left)
        assert ours.fileno() == number
        other = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        theirs.setblocking(True)
        await arm(other, theirs)
        await other.aclose()
        theirs.close()
        await peer.aclose()

    backend.run(main)


@every_backend
def test_tasks_that_wait_are_told_that_another_has_closed(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_with, trio.ClosedResourceError, stream.receive_some)
            nursery.start_soon(fails_with, trio.ClosedResourceError, stream.send_all, bytes(20_000_000))
            await wait_all_tasks_blocked()
            await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        await peer.aclose()

    backend.run(main)


@every_backend
@pytest.mark.parametrize("pair", [tcp_pair, armed_pair], ids=["first receive", "later receive"])
def test_a_task_that_was_cancelled_before_the_close_is_told_of_that(backend: Backend, pair: Any) -> None:
    async def main() -> None:
        peer, stream = await pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_some)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            stream.socket.close()
        assert sees_end(peer)
        await peer.aclose()
        for _ in range(3):
            await trio.lowlevel.checkpoint()

    backend.run(main)


@every_backend
def test_a_reset_ends_what_waits(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(fails_with, trio.BrokenResourceError, stream.receive_some)
            await wait_all_tasks_blocked()
            reset(peer)

    backend.run(main)


@every_backend
@pytest.mark.parametrize("ticks", [0, 5])
def test_a_reset_that_nobody_was_told_of_is_the_error_of_the_socket(backend: Backend, ticks: int) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        reset(peer)
        for _ in range(ticks):
            await trio.lowlevel.checkpoint()
        while (error := stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) == 0:
            await trio.lowlevel.checkpoint()
        assert error == errno.ECONNRESET
        assert stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert await stream.receive_some() == b""
        await stream.aclose()

    backend.run(main)


@pytest.mark.parametrize("length", [1, 2, 4, 8])
@every_backend
def test_the_error_of_the_socket_is_told_as_bytes_too(backend: Backend, length: int) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        reset(peer)
        for _ in range(1000):
            await trio.lowlevel.checkpoint()
            if any(error := stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR, length)):
                break
        assert error == errno.ECONNRESET.to_bytes(4, sys.byteorder)[:length]
        assert await stream.receive_some() == b""
        await stream.aclose()

    backend.run(main)


@every_backend
def test_what_comes_after_the_receiving_side_was_shut_down_is_received(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with peer, stream:
            stream.socket.shutdown(socket.SHUT_RD)
            for data in (b"late", b"later"):
                for _ in range(5):
                    await trio.lowlevel.checkpoint()
                await peer.send_all(data)
                assert await stream.receive_some() == data
            assert await stream.receive_some() == b""

    backend.run(main)


@every_backend
def test_what_comes_after_both_sides_were_shut_down_is_a_reset(backend: Backend) -> None:
    async def main() -> None:
        peer, stream = await armed_pair()
        async with peer, stream:
            stream.socket.shutdown(socket.SHUT_RDWR)
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            await peer.send_all(b"late")
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()

    backend.run(main)


@every_backend
def test_a_run_leaves_no_descriptor_behind(backend: Backend) -> None:
    before = descriptors_so_far()
    for stream in backend.run(armed_pair):
        peer_socket(stream).close()
    assert open_descriptors() == before


async def pair_in_use() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Until the run ends, one task sends to ``peer`` and one receives from ``stream``."""
    peer, stream = await armed_pair()
    trio.lowlevel.spawn_system_task(stream.receive_some)
    trio.lowlevel.spawn_system_task(peer.send_all, bytes(20_000_000))
    await wait_all_tasks_blocked()
    return peer, stream


class Crash(BaseException):
    """Trio takes it for no error of its own, and neither does a program."""


@every_backend
@pytest.mark.parametrize("error", [None, KeyError, Crash, KeyboardInterrupt])
def test_a_run_that_ends_lets_go_of_what_its_tasks_wait_for(
    backend: Backend, error: type[BaseException] | None
) -> None:
    kept: list[trio.SocketStream] = []

    async def main() -> None:
        kept.extend(await pair_in_use())
        if error:
            raise error

    if error:
        with pytest.raises(error):
            backend.run(main)
    else:
        backend.run(main)
    peer, stream = (peer_socket(stream) for stream in kept)
    with stream:
        stream.send(b"still there")
        assert peer.recv(100) == b"still there"
        peer.close()
        stream.setblocking(True)
        while stream.recv(1 << 20):
            pass


@every_backend
def test_a_crashed_run_lets_go_of_its_connections(backend: Backend) -> None:
    kept: list[trio.SocketStream] = []

    async def main() -> None:
        kept.extend(await pair_in_use())
        trio.lowlevel.spawn_system_task(fail)

    async def fail() -> None:
        raise ValueError("a system task may not")

    async def main_that_waits() -> None:
        await main()
        await trio.sleep_forever()

    with pytest.raises(trio.TrioInternalError):
        backend.run(main_that_waits)
    peer, stream = (peer_socket(stream) for stream in kept)
    with peer, stream:
        stream.send(b"still there")
        assert peer.recv(100) == b"still there"


@every_backend
def test_a_connection_can_be_used_and_closed_in_a_later_run(backend: Backend) -> None:
    async def first() -> tuple[trio.SocketStream, trio.SocketStream]:
        return await armed_pair()

    async def second() -> None:
        for letter in (b"1", b"2", b"3"):
            await peer.send_all(letter)
            assert await stream.receive_some() == letter
        assert stream.socket.fileno() >= 0
        assert not stream.socket.is_readable()
        with stream.socket:
            pass
        assert sees_end(peer)
        await peer.aclose()

    peer, stream = backend.run(first)
    with trio_uring.installed():
        assert stream.socket.fileno() >= 0
        backend.run(second)


@pytest.mark.parametrize("ending", ["__exit__", "detach", "fileno", "is_readable", "dup"])
def test_what_a_run_has_left_behind_is_still_a_socket(ending: str) -> None:
    """Nothing of the first run is entered again, for all that it had a receive pending."""

    async def second() -> None:
        if ending == "__exit__":
            stream.socket.__exit__(None, None, None)
        elif ending == "detach":
            socket.close(stream.socket.detach())
        else:
            result = getattr(stream.socket, ending)()
            if ending == "dup":
                result.close()
            stream.socket.close()
        assert sees_end(peer)
        await peer.aclose()

    peer, stream = URING.run(armed_pair)
    URING.run(second)


@every_backend
def test_ctrl_c_leaves_a_connection_that_goes_on(backend: Backend) -> None:
    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        peer, stream = await armed_pair()
        async with peer, stream:
            for _ in range(2):
                token.run_sync_soon(signal.raise_signal, signal.SIGINT)
                with pytest.raises(KeyboardInterrupt):
                    await stream.receive_some()
                await peer.send_all(b"after")
                assert await stream.receive_some() == b"after"
            token.run_sync_soon(signal.raise_signal, signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                await stream.send_all(bytes(20_000_000))

    backend.run(main)


@needs_completions
@every_ring
@pytest.mark.parametrize("hook", ["after_io_wait", "task_scheduled"])
@pytest.mark.parametrize("act", ["cancel", "close", "fileno"])
def test_an_instrument_may_do_it_between_a_tick_and_its_events(backend: Backend, hook: str, act: str) -> None:
    """Of two connections that have data the first event's task is told; that is where."""

    async def main() -> None:
        pairs = [await armed_pair() for _ in range(4)]
        received = [b""] * len(pairs)
        scope = trio.CancelScope()

        class Instrument(trio.abc.Instrument):
            done = False

            def act(self, _: object) -> None:
                if self.done:
                    return
                self.done = True
                if act == "cancel":
                    scope.cancel()
                for _, stream in pairs:
                    if act == "close":
                        stream.socket.close()
                    elif act == "fileno":
                        stream.socket.fileno()

        setattr(Instrument, hook, Instrument.act)

        async def receive(number: int) -> None:
            stream = pairs[number][1]
            with suppress(trio.ClosedResourceError):
                received[number] += await stream.receive_some()

        with scope:
            async with trio.open_nursery() as nursery:
                for number in range(len(pairs)):
                    nursery.start_soon(receive, number)
                await wait_all_tasks_blocked()
                for peer, _ in pairs:
                    peer_socket(peer).send(b"x")
                trio.lowlevel.add_instrument(instrument := Instrument())
        trio.lowlevel.remove_instrument(instrument)
        for number, (peer, stream) in enumerate(pairs):
            if act == "close":
                assert sees_end(peer)
                continue
            peer_socket(peer).send(b"y")
            await peer.aclose()
            async for data in stream:
                received[number] += data
            assert received[number] == b"xy"

    backend.run(main)


def test_the_host_of_a_guest_run_may_ask_for_a_descriptor() -> None:
    """On the owner's thread, but in no task: what comes to other connections is not lost."""
    calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    done: list[outcome.Outcome[list[bytes]]] = []

    async def main() -> list[bytes]:
        peer, stream = await armed_pair()
        other_peer, other = await armed_pair()
        received: list[bytes] = []

        async def receive() -> None:
            received.append(bytes(await other.receive_some()))

        def in_host() -> None:
            peer_socket(other_peer).send(b"x")
            assert stream.socket.fileno() >= 0

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await wait_all_tasks_blocked()
                calls.put(in_host)
        for one in (peer, stream, other_peer, other):
            await one.aclose()
        return received

    trio_uring.start_guest_run(main, run_sync_soon_threadsafe=calls.put, done_callback=done.append)
    while not done:
        calls.get(timeout=PATIENCE)()
    assert done[0].unwrap() == [b"x"]


@every_ring
def test_another_thread_may_ask_for_a_descriptor(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never enters the ring, which it may not."""
    entries: list[int] = []
    reap = UringManager.reap

    def recording(manager: UringManager) -> None:
        entries.append(get_ident())
        reap(manager)

    monkeypatch.setattr(UringManager, "reap", recording)

    async def main() -> None:
        for _ in range(20):
            peer, stream = await armed_pair()
            assert await trio.to_thread.run_sync(stream.socket.fileno) == peer_socket(stream).fileno()
            assert set(entries) <= {get_ident()}
            await peer.send_all(b"x")
            assert await stream.receive_some() == b"x"
            await peer.aclose()
            await stream.aclose()

    backend.run(main)


@needs_completions
def test_without_memory_for_the_buffers_calls_say_so_and_nothing_is_lost() -> None:
    said = output_of(
        """
        import resource, socket, trio, trio_uring

        async def main():
            left, right = socket.socketpair()
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(right))
            left.send(b"x")
            sock = stream.socket
            for method, argument in (
                (stream.receive_some, 1), (sock.recv, 1), (stream.send_all, b"y"), (sock.send, b"y")
            ):
                try:
                    await method(argument)
                except OSError as error:
                    print(error)
            left.close()
            assert right.recv(10) == b"x"
            await stream.aclose()

        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        limit = taken + (1 << 29)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        trio_uring.run(main, ring=trio_uring.RingOptions(buffers=1024, buffer_size=1 << 20))
        """
    )
    assert said == "[Errno 12] No memory for the 1073741824 bytes of RingOptions.buffers\n" * 4


@needs_completions
def test_a_task_whose_data_there_was_no_memory_for_can_be_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error is another task's, which had to process the events of all."""

    def fails(*_: object) -> bytes:
        raise MemoryError

    async def main() -> None:
        peer, stream = await tcp_pair()
        other_peer, other = await armed_pair()
        async with peer, stream, other_peer, other, trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_some)
            await wait_all_tasks_blocked()
            peer_socket(peer).send(b"data")
            with monkeypatch.context() as patched:
                patched.setattr(ReceiveBuffers, "data", fails)
                with pytest.raises(MemoryError):
                    other.socket.fileno()
            nursery.cancel_scope.cancel()

    trio_uring.run(main)


@needs_completions
def test_who_waits_for_a_buffer_has_a_turn_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception is that of a task which had to process the events of all."""
    count = 10

    def fails(_: object) -> None:
        raise KeyError

    async def main() -> None:
        pairs = [await armed_pair() for _ in range(count)]
        other_peer, other = await armed_pair()
        received = []

        async def receive(stream: trio.SocketStream) -> None:
            received.append(await stream.receive_some())

        with trio.move_on_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _, stream in pairs:
                    nursery.start_soon(receive, stream)
                await wait_all_tasks_blocked()
                for peer, _ in pairs:
                    peer_socket(peer).send(b"x")
                with monkeypatch.context() as patched:
                    patched.setattr(RunSocket, "submit_for_waiter", fails)
                    with pytest.raises(KeyError):
                        other.socket.fileno()
                for peer, _ in pairs:
                    peer_socket(peer).send(b"y")
        assert len(received) == count
        for pair in (*pairs, (other_peer, other)):
            for stream in pair:
                await trio.aclose_forcefully(stream)

    trio_uring.run(main, ring=RingOptions(buffers=2))


@needs_completions
def test_what_an_earlier_run_has_read_ahead_is_not_lost_to_an_exception(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[trio.SocketStream] = []

    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    async def first() -> None:
        kept.extend(await pair_with_data(b"data"))

    async def second() -> bytes:
        _, stream = kept
        with monkeypatch.context() as patched:
            patched.setattr(Connection, "inherit", fails)
            with pytest.raises(KeyboardInterrupt):
                await stream.socket.recv(10)
        with trio.fail_after(PATIENCE):
            return await stream.socket.recv(10)

    trio_uring.run(first)
    assert trio_uring.run(second) == b"data"
    for stream in kept:
        peer_socket(stream).close()


@needs_completions
def test_a_socket_that_outlives_its_run_keeps_none_of_its_tasks() -> None:
    tasks: list[weakref.ref[trio.lowlevel.Task]] = []

    async def use(peer: trio.SocketStream, stream: trio.SocketStream) -> None:
        tasks.append(weakref.ref(trio.lowlevel.current_task()))
        await peer.send_all(b"x")
        assert await stream.receive_some() == b"x"

    async def main() -> tuple[trio.SocketStream, trio.SocketStream]:
        pair = await armed_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, *pair)
        return pair

    pair = trio_uring.run(main, ring=RingOptions(checkpoint_budget=4))
    gc.collect()
    assert [task() for task in tasks] == [None]
    for stream in pair:
        peer_socket(stream).close()


@every_backend
def test_closing_a_socket_whose_number_was_closed_below_with_data_unread(backend: Backend) -> None:
    async def main() -> object:
        peer, stream = await pair_with_data(b"data")
        os.close(peer_socket(stream).fileno())
        outcome = await result_of(stream.aclose)
        await peer.aclose()
        return outcome, peer_socket(stream).fileno()

    assert backend.run(main) == (OSError, -1)


def test_a_forked_child_does_not_disturb_the_connections() -> None:
    said = output_of(
        """
        import os, socket, warnings, trio, trio_uring
        warnings.simplefilter("ignore")

        async def main():
            ours, theirs = [], []
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            for _ in range(5):
                theirs.append(await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]))
                ours.append(await listener.accept())
            for _ in range(3):
                for client, stream in zip(theirs, ours):
                    await client.send_all(b"x")
                    assert await stream.receive_some() == b"x"
            pid = os.fork()
            if pid == 0:
                for stream in ours[:2]:
                    stream.socket.fileno()
                    stream.socket.close()
                with ours[2].socket:
                    pass
                os._exit(0 if ours[3].socket.fileno() >= 0 else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            with trio.fail_after(60):
                for client, stream in zip(theirs, ours):
                    await client.send_all(b"y")
                    assert await stream.receive_some() == b"y"
                    await stream.aclose()
                    assert await client.receive_some() == b""
            print("all of them")

        trio_uring.run(main)
        """
    )
    assert said == "all of them\n"


def test_a_forked_child_runs_with_the_connection_that_it_inherited() -> None:
    said = output_of(
        """
        import os, warnings, trio, trio_uring
        warnings.simplefilter("ignore")

        async def first():
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
            stream = await listener.accept()
            for _ in range(3):
                await client.send_all(b"x")
                assert await stream.receive_some() == b"x"
            return client, stream

        async def echo(stream):
            for _ in range(3):
                await stream.send_all(await stream.receive_some())

        async def ask(client):
            with trio.fail_after(60):
                for _ in range(3):
                    await client.send_all(b"x")
                    assert await client.receive_some() == b"x"

        client, stream = trio_uring.run(first)
        pid = os.fork()
        if pid == 0:
            trio_uring.run(echo, stream)
            os._exit(0)
        trio_uring.run(ask, client)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        print("echoed")
        """
    )
    assert said == "echoed\n"


def test_the_methods_are_trios_own_again_when_no_run_is_left() -> None:
    classes = (trio, trio.SocketStream, trio.SocketListener, SocketType)
    before = [dict(vars(cls)) for cls in classes]
    with trio_uring.installed():
        trio_uring.run(armed_pair)
        assert [dict(vars(cls)) for cls in classes] != before
    assert [dict(vars(cls)) for cls in classes] == before
    trio_uring.run(armed_pair)
    assert [dict(vars(cls)) for cls in classes] == before
    with pytest.raises(KeyError):
        trio_uring.run(fail)
    assert [dict(vars(cls)) for cls in classes] == before


async def fail() -> None:
    raise KeyError


@pytest.mark.parametrize("armed", [False, True])
@pytest.mark.parametrize("into", [False, True])
@every_backend
def test_a_receive_that_was_called_before_the_close_and_runs_after_it_takes_nothing(
    backend: Backend, armed: bool, into: bool
) -> None:
    async def main() -> None:
        peer, stream = await tcp_pair()
        if armed:
            await arm(stream, peer_socket(peer))
        receiving: Awaitable[object] = (
            stream.socket.recv_into(bytearray(10)) if into else stream.socket.recv(10)
        )
        stream.socket.close()
        for stranger in socket.socketpair():  # of which one has the same number
            with stranger:
                stranger.setblocking(False)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await receiving
        await peer.aclose()

    backend.run(main)


@pytest.mark.parametrize("armed", [False, True], ids=["new", "armed"])
def test_a_stream_that_is_called_outside_of_a_run_raises_trios_error(armed: bool) -> None:
    async def main() -> trio.SocketStream:
        _, stream = await (armed_pair() if armed else tcp_pair())
        return stream

    with trio_uring.installed():
        stream = trio.run(main)
        for call in (stream.receive_some, stream.__anext__, lambda: stream.send_all(b"x")):
            coroutine: Any = call()
            with pytest.raises(RuntimeError, match="must be called from async context"):
                coroutine.send(None)
    stream.socket._sock.close()  # type: ignore[attr-defined]


@every_backend
@pytest.mark.parametrize("armed", [False, True], ids=["first", "armed"])
@pytest.mark.parametrize("size", [1 << 31, 1 << 32])
def test_more_may_be_asked_for_than_one_receive_brings(backend: Backend, size: int, armed: bool) -> None:
    async def main() -> None:
        peer, stream = await (armed_pair() if armed else tcp_pair())
        async with peer, stream:
            for wait_for_others in (False, True):
                async with trio.open_nursery() as nursery:

                    async def receive() -> None:
                        assert await stream.receive_some(size) == b"x"

                    nursery.start_soon(receive)
                    await wait_all_tasks_blocked()
                    if wait_for_others:  # the receive goes on as one that is no multishot
                        stream.socket.fileno()
                        await wait_all_tasks_blocked()
                    peer_socket(peer).send(b"x")

    backend.run(main)
