"""`Datagrams`: many datagrams by one call, the same in every run."""

from __future__ import annotations

import array
import fcntl
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
from datagram_pairs import FAMILIES, trio_pair
from equivalence import (
    URING,
    Backend,
    descriptors_so_far,
    every_backend,
    needs_completions,
    open_descriptors,
)
from socket_calls import disturbed
from steps import Steps
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_uring import Datagram, Datagrams, RingOptions
from trio_uring.sockets import datagrams

if TYPE_CHECKING:
    from collections.abc import Callable


SO_TIMESTAMP = 29  # which the module socket does not have before Python 3.14


@every_backend
@pytest.mark.parametrize("family", FAMILIES)
def test_all_that_is_there_comes_in_order_with_its_sender(backend: Backend, family: str) -> None:
    async def main() -> None:
        first, second = trio_pair(family)
        connected = family in ("udp connected", "unix")
        to = None if connected else second.getsockname()
        async with Datagrams(first) as sender, Datagrams(second, count=4) as receiver:
            await sender.send([(b"%d" % number, to) for number in range(6)] + [(bytearray(), to)])
            assert sender.sent == 7
            found = await receiver.receive(1) + await receiver.receive()
            assert [len(found), len(await receiver.receive())] == [5, 2]
            sent_by = None if family == "unix" else first.getsockname()
            assert found == [(b"%d" % number, sent_by, [], 0) for number in range(5)]
            assert {type(each) for each in found} == {Datagram}
            if sent_by:
                await receiver.send([(b"back", found[0].address)])
                assert (await sender.receive())[0].data == b"back"

    backend.run(main)


@every_backend
def test_unix_addresses_are_told_and_taken_as_by_sockets(backend: Backend, tmp_path: Any) -> None:
    async def main() -> None:
        abstract = b"\0trio-uring %d" % os.getpid()
        for name in (
            str(tmp_path / "a socket"),
            tmp_path / "a path",
            abstract,
            abstract.decode() + "as text",
        ):
            sender = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            receiver = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            await receiver.bind(name)
            async with Datagrams(sender) as sending, Datagrams(receiver) as receiving:
                await sending.send([(b"from nobody", name)])
                await receiver.sendto(b"from itself", name)
                found = await receiving.receive()
                await receiver.sendto(b"from itself", name)
                assert [found[1].address, found[0].address] == [(await receiver.recvfrom(20))[1], None]

    backend.run(main)


@every_backend
def test_what_is_longer_is_cut_and_says_so(backend: Backend) -> None:
    async def main() -> None:
        first, second = trio_pair("unix")
        async with Datagrams(first) as sender, Datagrams(second, size=5, ancillary_size=20) as receiver:
            await sender.send([(b"12345", None), (b"1234567", None), (b"1", None)])
            found = [(each.data, each.flags) for each in await receiver.receive()]
            assert found == [(b"12345", 0), (b"12345", socket.MSG_TRUNC), (b"1", 0)]

    backend.run(main)


@every_backend
def test_ancillary_data_are_kept(backend: Backend) -> None:
    async def main() -> None:
        before = descriptors_so_far()
        first, second = trio_pair("unix")
        read_end, write_end = os.pipe()
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [read_end]))
        space = socket.CMSG_SPACE(4)
        async with Datagrams(first) as sender, Datagrams(second, ancillary_size=space) as receiver:
            await sender.send([(b"without", None), (b"with", None, [rights]), (b"without", None, [])])
            found = await receiver.receive()
        assert [each.data for each in found] == [b"without", b"with", b"without"]
        assert [each.flags for each in found] == [0, 0, 0]
        assert [found[0].ancdata, found[2].ancdata] == [[], []]
        ((level, kind, data),) = found[1].ancdata
        (received,) = array.array("i", data)
        assert (level, kind) == rights[:2]
        assert fcntl.fcntl(received, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        os.write(write_end, b"1")
        assert os.read(received, 1) == b"1"
        for each in (received, read_end, write_end):
            os.close(each)
        assert open_descriptors() == before

    backend.run(main)


@every_backend
@pytest.mark.parametrize("family", ["udp", "udp 6"])
@pytest.mark.parametrize("gro", [False, True])
def test_segments_arrive_as_datagrams_of_their_own(backend: Backend, family: str, gro: bool) -> None:
    data = b"".join(bytes([number]) * 1000 for number in range(20)) + b"the last"

    async def main() -> None:
        first, second = trio_pair(family)
        async with Datagrams(first) as sender, Datagrams(second, gro=gro) as receiver:
            await sender.send_segments(data, 1000, second.getsockname())
            assert sender.sent == 1
            found = await receiver.receive()
            assert [len(each.data) for each in found] == [1000] * 20 + [8]
            assert b"".join(each.data for each in found) == data
            assert {(each.address, each.flags, *each.ancdata) for each in found} == {(first.getsockname(), 0)}
            with pytest.raises(OSError, match="Invalid argument"):
                await sender.send_segments(bytes(2000), 1, second.getsockname())
            assert sender.sent == 0

    backend.run(main)


@every_backend
def test_time_stamps_that_nobody_has_room_for_keep_no_datagrams_together(backend: Backend) -> None:
    async def main() -> None:
        first, second = trio_pair("udp")
        second.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
        async with Datagrams(first) as sender, Datagrams(second, gro=True) as receiver:
            await sender.send_segments(bytes(1_000), 100, second.getsockname())
            assert [len(datagram.data) for datagram in await receiver.receive()] == [100] * 10

    backend.run(main)


@every_backend
def test_who_waits_gets_what_comes(backend: Backend) -> None:
    async def main() -> None:
        first, second = trio_pair("unix")
        async with Datagrams(second) as receiver, trio.open_nursery() as nursery:
            found: list[Datagram] = []

            async def receive() -> None:
                found.extend(await receiver.receive())

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await receiver.receive()
            await first.send(b"it")
            await wait_all_tasks_blocked()
            assert [each.data for each in found] == [b"it"]
        first.close()

    backend.run(main)


@every_backend
def test_cancelled_receives_lose_nothing(backend: Backend) -> None:
    count = 300

    async def main() -> None:
        first, second = trio_pair("unix")
        received: list[bytes] = []

        async def send() -> None:
            for number in range(count):
                await first.send(b"%d" % number)

        async with Datagrams(second, count=3) as receiver, trio.open_nursery() as nursery:
            nursery.start_soon(send)
            number = 0
            while len(received) < count:
                number += 1
                found = await disturbed(receiver.receive, number % 4)
                received += [each.data for each in found or []]
        assert received == [b"%d" % number for number in range(count)]
        first.close()

    backend.run(main)


@every_backend
def test_a_batch_waits_for_room_and_goes_out_whole(backend: Backend) -> None:
    """More than one system call takes, and more than the peer's queue."""
    count = 500

    async def main() -> None:
        first, second = trio_pair("unix")
        async with Datagrams(first) as sender, Datagrams(second, count=7) as receiver:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sender.send, [(b"%d" % number, None) for number in range(count)])
                received: list[bytes] = []
                while len(received) < count:
                    received += [each.data for each in await receiver.receive()]
            assert received == [b"%d" % number for number in range(count)]
            assert sender.sent == count

    backend.run(main)


@every_backend
def test_a_batch_that_is_cancelled_tells_how_many_were_sent(backend: Backend) -> None:
    async def main() -> None:
        first, second = trio_pair("unix")
        async with Datagrams(first) as sender, Datagrams(second, count=1000, size=9) as receiver:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sender.send, [(b"%d" % number, None) for number in range(1000)])
                await wait_all_tasks_blocked()
                sent = sender.sent
                with pytest.raises(trio.BusyResourceError, match="another task is sending"):
                    await sender.send([(b"never", None)])
                assert 0 < sent == sender.sent < 1000
                nursery.cancel_scope.cancel()
            found = await receiver.receive()
            assert [each.data for each in found] == [b"%d" % number for number in range(sender.sent)]
            with trio.CancelScope() as scope:
                scope.cancel()
                await sender.send([(b"never", None)])
            assert sender.sent == 0
            assert not second.is_readable()

    backend.run(main)


@every_backend
@pytest.mark.parametrize("before", [0, 1, 64, 70])
@pytest.mark.parametrize(
    "wrong",
    [(bytes(70_000), None), (b"x", ("localhost", 9)), (b"x", 5), b"x", ("x", None), (b"x", None, iter([]))],
)
def test_what_comes_before_the_wrong_one_is_sent(backend: Backend, before: int, wrong: Any) -> None:
    async def main() -> None:
        first, second = trio_pair("udp connected")
        async with Datagrams(first) as sender, Datagrams(second, count=200) as receiver:
            batch: list[Any] = [(b"x", None)] * before + [wrong, (b"behind it", None)]
            with assert_checkpoints(), pytest.raises((OSError, ValueError, TypeError)):
                await sender.send(batch)
            assert sender.sent == before
            await sender.send([(b"the end", None)])
            found = await receiver.receive()
            assert [each.data for each in found] == [b"x"] * before + [b"the end"]

    backend.run(main)


@every_backend
@pytest.mark.parametrize("before", [0, 3, 70])
def test_an_interrupt_while_an_address_is_read_is_raised(backend: Backend, before: int) -> None:
    class Name:
        interrupts = 1

        def __fspath__(self) -> str:
            self.interrupts -= 1
            if self.interrupts == 0:
                raise KeyboardInterrupt
            return "/nowhere"

    async def main() -> None:
        first, second = trio_pair("unix")
        async with Datagrams(first) as sender, Datagrams(second, count=200) as receiver:
            with pytest.raises(KeyboardInterrupt):
                await sender.send([(b"x", None)] * before + [(b"to a name", Name())])
            await sender.send([(b"the end", None)])
            assert len(await receiver.receive()) == before - before % 64 + 1

    backend.run(main)


@every_backend
def test_ancillary_data_that_change_meanwhile_are_sent_as_they_were(backend: Backend) -> None:
    class Level:
        def __index__(self) -> int:
            items.clear()
            return socket.SOL_SOCKET

    items: list[Any] = []

    async def main() -> None:
        first, second = trio_pair("unix")
        items.append((Level(), socket.SCM_RIGHTS, array.array("i", [first.fileno()])))
        async with Datagrams(first) as sender, Datagrams(second, ancillary_size=20) as receiver:
            await sender.send([(b"x", None, items)])
            ((_, _, data),) = (await receiver.receive())[0].ancdata
            os.close(array.array("i", data)[0])

    backend.run(main)


@every_backend
def test_an_interrupt_behind_the_system_call_loses_nothing(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("receive_many", "send_many"):
        monkeypatch.setattr(datagrams, name, interrupted_at_the_end(getattr(datagrams, name)))

    async def main() -> None:
        first, second = trio_pair("unix")
        async with Datagrams(first) as sender, Datagrams(second) as receiver:
            await sender.send([(b"1", None), (b"2", None)])
            assert sender.sent == 2
            with pytest.raises(KeyboardInterrupt):
                await trio.lowlevel.checkpoint()
            assert len(await receiver.receive()) == 2
            with pytest.raises(KeyboardInterrupt):
                await trio.lowlevel.checkpoint()

    backend.run(main)


def interrupted_at_the_end(call: Callable[..., Any]) -> Callable[..., Any]:
    def calling(*arguments: Any) -> Any:
        answer = call(*arguments)
        signal.raise_signal(signal.SIGINT)
        return answer

    return calling


@every_backend
def test_a_refusal_is_told(backend: Backend) -> None:
    async def main() -> None:
        first, second = trio_pair("udp connected")
        second.close()
        async with Datagrams(first) as datagrams:
            await datagrams.send([(b"x", None)])
            with pytest.raises(ConnectionRefusedError):
                await datagrams.send([(b"x", None)])
            await datagrams.send([(b"x", None)])
            with pytest.raises(ConnectionRefusedError):
                await datagrams.receive()

    backend.run(main)


@every_backend
def test_every_call_is_a_checkpoint(backend: Backend) -> None:
    async def main() -> None:
        first, second = trio_pair("udp connected")
        sender, receiver = Datagrams(first), Datagrams(second)
        calls: list[Callable[[], Any]] = [
            lambda: sender.send([(b"x", None)]),
            lambda: sender.send([]),
            receiver.receive,
            sender.aclose,
            sender.aclose,
        ]
        for call in calls:
            with assert_checkpoints():
                await call()
        for call in (lambda: sender.send([(b"x", None)]), sender.receive):
            with assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
                await call()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receiver.aclose)
            with pytest.raises(trio.ClosedResourceError):
                await receiver.receive()

    backend.run(main)


@needs_completions
@pytest.mark.usefixtures("still_clock")
def test_with_a_budget_a_call_that_need_not_wait_does_not_yield() -> None:
    async def main() -> None:
        first, second = trio_pair("udp connected")
        async with Datagrams(first) as sender, Datagrams(second) as receiver:
            await trio.lowlevel.checkpoint()
            steps = Steps()
            trio.lowlevel.add_instrument(steps)
            await sender.send([(b"x", None)])
            await receiver.receive()
            assert len(steps.calls) == 1

    Backend("budget", RingOptions(checkpoint_budget=5)).run(main)


def test_wrong_arguments_are_refused() -> None:
    async def main() -> None:
        first, second = trio_pair("udp")
        with trio.socket.socket() as stream, pytest.raises(ValueError, match="no socket for datagrams"):
            Datagrams(stream)
        standard: Any = first._sock
        with pytest.raises(TypeError, match=r"socket of trio\.socket"):
            Datagrams(standard)
        wrong: list[dict[str, Any]] = [{"count": 0}, {"count": 1025}, {"size": -1}, {"size": 65_536}]
        wrong += [{"ancillary_size": -1}, {"ancillary_size": 65_537}, {"size": 9, "gro": True}]
        for arguments in wrong:
            with pytest.raises(ValueError, match="has to be"):
                Datagrams(first, **arguments)
        datagrams = Datagrams(first, count=3)
        for count in (0, 4):
            with pytest.raises(ValueError, match="1 to 3"):
                await datagrams.receive(count)
        for size in (0, 65_536):
            with pytest.raises(ValueError, match="1 to 65535"):
                await datagrams.send_segments(b"x", size)
        first.close()
        second.close()

    URING.run(main)
