"""The same random calls on SSLStreams, on Trio's epoll manager and on io_uring.

The TLS form of test_socket_machine.py: a program is a list of steps, what the stream is called and what
its peer does (tls_peer.py): records whole and in parts, renegotiations and new keys, its end, rubbish,
and its disappearance. Each backend runs it on a connection of its own; where the stream and its peer
stand after each step, and each result and error with its causes, have to be what epoll shows.

How many bytes one receive returns is left to it, and so a receive is repeated until it has those that
it was for.
"""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import EPOLL, Backend
from hypothesis import given
from hypothesis import strategies as st
from random_programs import programs_of
from socket_calls import HUGE, LITTLE, Call, Observation, described, disturbed, expected, pair
from tls_peer import VERSIONS, Peer, context
from trio.testing import wait_all_tasks_blocked

from trio_uring import RingOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SMALL: dict[str, int] = {"buffers": 2, "buffer_size": 1024, "read_ahead": 2048}
RINGS = [
    Backend("defaults", RingOptions()),
    Backend("budget", RingOptions(checkpoint_budget=16)),
    Backend("small buffers, budget", RingOptions(checkpoint_budget=16, **SMALL)),  # type: ignore[arg-type]
]
STALLED = 10
RENEWING = ("renegotiate", "ask_for_new_keys")
Step = tuple[Any, ...]

sizes = st.sampled_from([1, 5, 100, 1024, 16_384, 16_385, 40_000, 100_000])
chunks = st.sampled_from([None, 1, 5, 100, 16_383, 16_384, 16_385, 65_536, 200_000])
moments = st.lists(st.integers(0, 4), max_size=3)
receives = st.tuples(
    st.just("receive"), chunks, st.sampled_from(["some", "all", "all", "more"]), sizes, moments
)
sends = st.tuples(st.just("send_all"), sizes, st.sampled_from([bytes, bytearray, memoryview]))
peer_sends = st.tuples(st.just("peer_does"), st.just("send"), st.lists(sizes, min_size=1, max_size=5))
steps: st.SearchStrategy[Step] = st.one_of(
    *[receives] * 3,
    *[sends] * 2,
    *[peer_sends] * 3,
    st.tuples(st.just("send_huge")),
    st.tuples(st.just("send_cancelled"), sizes),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("peer_does"), st.sampled_from(RENEWING), st.just([])),
    st.tuples(
        st.just("peer_does"),
        st.just("hold"),
        st.lists(st.sampled_from([1, 6, 30, 20_000]), min_size=1, max_size=1),
    ),
    st.tuples(st.just("peer_does"), st.sampled_from(["let_go", "end", "send_rubbish"]), st.just([])),
    st.tuples(st.just("peer_reads"), st.booleans()),
    st.tuples(
        st.sampled_from(["wait_send_all_might_not_block", "do_handshake", "unwrap", "aclose", "forget"])
    ),
    st.tuples(st.just("peer_vanishes"), st.booleans()),
)
programs = st.lists(steps, min_size=1, max_size=20)


@pytest.mark.parametrize("https_compatible", [False, True], ids=["standard", "https"])
@pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_ssl_streams_show_what_they_show_on_epoll(
    version: ssl.TLSVersion, server_side: bool, https_compatible: bool
) -> None:
    @programs_of(25)
    @given(programs)
    def check(program: list[Step]) -> None:
        of = partial(observe, version, server_side, https_compatible, program)
        seen = EPOLL.run(of)
        for backend in RINGS:
            compare(program, seen, backend.run(of), backend)

    check()


def compare(program: list[Step], on_epoll: list[Observation], seen: list[Observation], on: Backend) -> None:
    for index, (wanted, found) in enumerate(zip(on_epoll, seen, strict=True)):
        if wanted != found:
            steps = [*program, *CONCLUSION]
            lines = [f"{step}: {show}" for step, show in zip(steps, on_epoll[: index + 1], strict=False)]
            raise AssertionError(
                "\n".join([f"{on.name}:", *lines, f"expected {wanted}", f"but got  {found}"])
            )


CONCLUSION: list[Step] = [
    ("peer_reads", True),
    ("peer_does", "let_go", []),
    ("receive", 200_000, "all", 1, []),
    ("cancel",),
    ("aclose",),
]


async def observe(
    version: ssl.TLSVersion, server_side: bool, https_compatible: bool, program: list[Step]
) -> list[Observation]:
    seen: list[Observation] = []
    async with trio.open_nursery() as nursery:
        machine = Machine(nursery, version, server_side=server_side, https_compatible=https_compatible)
        await machine.begin()
        for name, *arguments in [*program, *CONCLUSION]:
            shown = await getattr(machine, name)(*arguments)
            seen.append((name, shown, *machine.ended(), *machine.of_peer()))
        machine.close()
    return seen


class Machine:
    """The steps. One that the state does not allow shows nothing, and does nothing."""

    def __init__(
        self, nursery: trio.Nursery, version: ssl.TLSVersion, *, server_side: bool, https_compatible: bool
    ) -> None:
        ours, theirs = pair("tcp")
        self.nursery = nursery
        self.plain = ours
        self.stream = trio.SSLStream(
            ours,
            context(version, server_side=server_side),
            server_hostname=None if server_side else "localhost",
            server_side=server_side,
            https_compatible=https_compatible,
        )
        # A duplicate, since what closes Trio's socket would close it.
        self.peer = Peer(theirs.socket._sock.dup(), version, server_side=not server_side)  # type: ignore[attr-defined]
        theirs.socket.close()
        self.renews = "renegotiate" if version == ssl.TLSVersion.TLSv1_2 else "ask_for_new_keys"
        self.calls: list[Call] = []
        self.sent = 0
        self.received = 0
        self.target = 0
        self.torn = False
        """A send was broken off: what the peer has got of it is left to chance."""
        self.is_renewing = False
        self.is_poisoned = False
        """Rubbish was sent, which whoever sends may hear of before it is received."""
        self.has_ended = False
        """The peer sends no more."""
        self.is_chance = False
        """How much of what the peer has sent arrives."""

    async def begin(self) -> None:
        await self.call("handshake", self.stream.do_handshake)
        assert self.peer.handshaken

    def close(self) -> None:
        self.plain.socket.close()
        self.peer.close()

    # What is shown

    def ended(self) -> Observation:
        calls = self.calls
        self.calls = self.waiting()
        return tuple((call.name, call.observation) for call in calls if call.ended)

    def of_peer(self) -> Observation:
        peer = self.peer
        return () if self.torn or peer.gone else (peer.received, peer.ended)

    def waiting(self, name: str = "") -> list[Call]:
        return [call for call in self.calls if not call.ended and name in call.name]

    async def call(self, name: str, function: Callable[[], Awaitable[Any]]) -> Observation:
        call = Call(name)
        self.calls.append(call)
        self.nursery.start_soon(self._run, call, function)
        await self.settle()
        return call.observation

    async def _run(self, call: Call, function: Callable[[], Awaitable[Any]]) -> None:
        with call.scope:
            try:
                call.observation = (await function(),)
            except trio.Cancelled:
                call.observation = ("cancelled",)
                raise
            except AssertionError:
                raise
            except Exception as error:
                call.observation = ("broken",) if self.torn else described(error)
            finally:
                call.ended = True

    async def settle(self) -> None:
        with trio.move_on_after(STALLED):
            while True:
                await wait_all_tasks_blocked(0.0005)
                if self.peer.pump():
                    continue
                await wait_all_tasks_blocked(0.0005)
                if not self.peer.pump() and not self.is_due():
                    return

    def is_due(self) -> bool:
        """Whether a call waits for what the kernel's timers have to bring."""
        peer = self.peer
        if self.waiting("send") and peer.reads and not peer.gone:
            return True
        return (
            bool(self.waiting("receive")) and not peer.holds() and self.received < min(peer.sent, self.target)
        )

    # Its calls

    async def receive(self, size: int | None, how_much: str, count: int, after: list[int]) -> Observation:
        ahead = self.peer.sent - self.received
        count = {"some": min(count, ahead), "all": ahead, "more": ahead + count}[how_much]
        if size is None and how_much != "all":  # it cannot be told where to stop
            size = 100
        if size is not None and size < 1000 and count > 1000:
            size = 50_000
        if self.waiting() or self.is_renewing or self.peer.gone:
            after = []  # A receive that has met the end is a checkpoint afterwards, which may lose it.
        if self.waiting("receive"):
            count = max(count, 1)
        if not self.waiting("receive"):
            self.target = self.received + count
        if self.is_chance:
            return await self.call("receive", lambda: self._receive_by_chance(size, self.received + count))
        return await self.call("receive", lambda: self._receive(size, self.received + count, after))

    async def _receive_by_chance(self, size: int | None, target: int) -> Observation:
        with suppress(trio.BrokenResourceError):
            await self._receive(size, target, [])
        return ("over",)

    async def _receive(self, size: int | None, target: int, after: list[int]) -> Observation:
        for moment in after:
            shown = await disturbed(lambda: self._receive(size, target, []), moment)
            if shown is not None:
                return shown
        while self.received < target:
            data = await self.stream.receive_some(None if size is None else min(size, target - self.received))
            assert data == expected(self.received, len(data)), (self.received, len(data))
            self.received += len(data)
            if not data:
                return self.received, "end"
        return self.received, ""

    async def send_all(self, size: int, form: Callable[[bytes], Any]) -> Observation:
        if not self._may_send():
            return ()
        return await self.call("send", lambda: self._send(size, form))

    async def send_huge(self) -> Observation:
        if self.peer.reads or not self._may_send():
            return ()
        return await self.call("send", lambda: self._send(2 * HUGE, bytes))

    async def send_cancelled(self, size: int) -> Observation:
        """Before it has begun: nothing happens."""
        if not self._may_send():
            return ()

        async def send() -> Observation:
            with trio.CancelScope() as scope:
                scope.cancel()
                await self.stream.send_all(expected(self.sent, size))
            return (scope.cancelled_caught,)

        return await self.call("sends nothing", send)

    def _may_send(self) -> bool:
        """Not if it may hear of what a receive is to be told; and if the peer does not read, what
        finds room is left to the kernel."""
        return not (self.is_poisoned or self.peer.gone or (not self.peer.reads and self._is_full()))

    def _is_full(self) -> bool:
        return self.sent - self.peer.received > 150_000 and not self.waiting("send")

    async def _send(self, size: int, form: Callable[[bytes], Any]) -> str:
        data = form(expected(self.sent, size))
        self.sent += size
        try:
            await self.stream.send_all(data)
        except trio.BusyResourceError:
            self.sent -= size
            raise
        except BaseException:
            self.torn = True
            raise
        return "sent"

    async def wait_send_all_might_not_block(self) -> Observation:
        if not self._may_send():
            return ()
        return await self.call("wait", self.stream.wait_send_all_might_not_block)

    async def do_handshake(self) -> Observation:
        return await self.call("handshake", self.stream.do_handshake)

    async def cancel(self) -> Observation:
        calls = self.waiting()
        for call in calls:
            call.scope.cancel()
        await self.settle()
        return tuple(sorted(call.name for call in calls))

    async def unwrap(self) -> Observation:
        if self.is_poisoned:
            return ()

        async def unwrap() -> str:
            plain, _ = await self.stream.unwrap()
            assert plain is self.plain
            return "in the clear"

        return await self.call("unwrap", unwrap)

    async def aclose(self) -> Observation:
        self._close()
        return await self.call("aclose", self.stream.aclose)

    async def forget(self) -> Observation:
        self._close()
        return await self.call("aclose", partial(trio.aclose_forcefully, self.stream))

    def _close(self) -> None:
        """The kernel resets a connection that is closed with something unread: how much arrives is chance."""
        unread = self.peer.sent != self.received or self.has_ended or self.is_renewing
        self.torn = self.torn or unread or bool(self.waiting())

    # What the peer does

    async def peer_reads(self, reads: bool) -> Observation:
        self.peer.reads = reads
        await self.settle()
        return ()

    async def peer_does(self, name: str, arguments: list[int]) -> Observation:
        peer = self.peer
        if peer.gone or (self.has_ended and name != "let_go") or name in {*RENEWING} - {self.renews}:
            return ()
        if name in RENEWING and peer.ended:
            return ()
        if name == "send_rubbish" and (self.waiting("send") or self.waiting("unwrap")):
            return ()
        self.is_renewing = self.is_renewing or name in RENEWING
        self.is_poisoned = self.is_poisoned or name == "send_rubbish"
        self.has_ended = self.has_ended or name in ("send_rubbish", "end")
        getattr(peer, name)(*arguments)
        await self.settle()
        return ()

    async def peer_vanishes(self, with_a_reset: bool) -> Observation:
        if self.peer.gone:
            return ()
        if with_a_reset:
            self.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Of what has no room in the sockets, how much arrives is chance.
        self.torn = self.torn or bool(self.waiting("send"))
        self.is_chance = self.peer.holds() or self.peer.sent - self.received > LITTLE
        self.peer.close()
        await self.settle()
        return ()
