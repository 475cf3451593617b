"""A descriptor that is closed while tasks wait for it, with notice and without: as on epoll,
and the ring holds it no longer than it should."""

from __future__ import annotations

import itertools
import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio
from equivalence import (
    EPOLL,
    Backend,
    entered,
    every_backend,
    every_ring,
    io_statistics,
    python,
)
from trio.lowlevel import notify_closing, wait_readable, wait_writable
from trio.testing import wait_all_tasks_blocked
from waiters import (
    Wait,
    Waiter,
    both_directions,
    drain,
    every_pair,
    fill,
    reader_and_writer,
    sees_end,
    socketpair,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


@every_backend
def test_closing_wakes_both_waiters_and_the_peer_sees_the_end_at_once(backend: Backend) -> None:
    async def main() -> None:
        with socketpair() as (ours, peer):
            sent = fill(ours)
            async with trio.open_nursery() as nursery:
                reader, writer = await reader_and_writer(nursery, ours)
                notify_closing(ours)
                ours.close()
                assert drain(peer) == sent
                assert sees_end(peer)
            assert (reader.outcomes, writer.outcomes) == (["closed"], ["closed"])

    backend.run(main)


def let_go_by_closing(waiter: Waiter, sock: socket.socket) -> None:
    notify_closing(sock)


def let_go_by_cancelling(waiter: Waiter, sock: socket.socket) -> None:
    waiter.scope.cancel()


every_way_to_let_go = pytest.mark.parametrize("let_go", [let_go_by_closing, let_go_by_cancelling])


@every_backend
@every_pair
@every_way_to_let_go
def test_peer_sees_the_end_as_soon_as_the_descriptor_is_closed(
    backend: Backend, make_pair: Callable[..., object], let_go: Callable[[Waiter, socket.socket], None]
) -> None:
    async def main() -> None:
        with make_pair() as (ours, peer):  # type: ignore[attr-defined]
            waiter = Waiter()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waiter.run, wait_readable, ours)
                await wait_all_tasks_blocked()
                let_go(waiter, ours)
                ours.close()
                assert sees_end(peer)
            assert len(waiter.outcomes) == 1

    backend.run(main)


@every_backend
@every_way_to_let_go
def test_port_of_a_closed_listener_is_free_at_once(
    backend: Backend, let_go: Callable[[Waiter, socket.socket], None]
) -> None:
    async def main() -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            address = listener.getsockname()
            waiter = Waiter()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waiter.run, wait_readable, listener)
                await wait_all_tasks_blocked()
                let_go(waiter, listener)
                listener.close()
                with socket.socket() as other:
                    other.bind(address)

    backend.run(main)


@every_ring
def test_nothing_pending_costs_no_system_call(backend: Backend) -> None:
    async def main() -> None:
        with socketpair() as (ours, _):
            await wait_writable(ours)
            before = entered()
            notify_closing(ours)
            notify_closing(12345)
            assert entered() == before

    backend.run(main)


async def act_in_the_tick_of_a_wait(
    wait: Wait,
    fd: int | socket.socket,
    act: Callable[[Waiter], object],
    then: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint,
) -> Waiter:
    """Acts before the kernel knows of the wait; then awaits ``then``, and the end of
    the wait. Trio runs the tasks of a tick in any order: tried until it is the right one."""
    in_order = False

    async def actor() -> None:
        nonlocal in_order
        if waiter.task is not None:
            in_order = True
            act(waiter)

    while not in_order:
        waiter = Waiter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter.run, wait, fd)
            nursery.start_soon(actor)
            await wait_all_tasks_blocked()
            if in_order:
                await then()
            else:
                waiter.scope.cancel()
    return waiter


@every_ring
@both_directions
@every_way_to_let_go
def test_wait_that_ends_in_its_own_tick_costs_no_system_call(
    backend: Backend, wait: Wait, let_go: Callable[[Waiter, socket.socket], None]
) -> None:
    async def main() -> None:
        with socketpair() as (ours, peer):
            fill(ours)
            calls: list[int] = []

            def end(waiter: Waiter) -> None:
                calls.append(entered())
                let_go(waiter, ours)
                calls.append(entered())

            waiter = await act_in_the_tick_of_a_wait(wait, ours, end)
            assert len(waiter.outcomes) == 1
            assert len(calls) == 2
            assert calls[0] == calls[1]
            assert io_statistics().operations_in_flight == 0
            peer.send(b"x")
            await wait_readable(ours)

    backend.run(main)


# Interleavings

ACTIONS = ("event", "cancel", "close")


def orders() -> Iterator[tuple[str, ...]]:
    """Every order of every choice of actions, with and without a tick before each."""
    for size in (1, 2, 3):
        for actions in itertools.permutations(ACTIONS, size):
            for ticks in itertools.product((False, True), repeat=size):
                order: list[str] = []
                for action, tick in zip(actions, ticks, strict=True):
                    order += ["tick", action] if tick else [action]
                yield tuple(order)


async def play(order: tuple[str, ...], wait: Wait) -> list[str]:
    """How a wait ends when these things happen to it in this order. What comes before
    the first tick happens in the tick in which the wait begins."""
    with socketpair() as (ours, peer):
        if wait is wait_writable:
            fill(ours)
        left = list(order)

        def act_until_tick(waiter: Waiter) -> None:
            while left and (action := left.pop(0)) != "tick":
                if action == "cancel":
                    waiter.scope.cancel()
                elif action == "close":
                    notify_closing(ours)
                elif wait is wait_writable:
                    drain(peer)
                else:
                    peer.send(b"x")
            waiters.append(waiter)

        async def go_on() -> None:
            while left:
                act_until_tick(waiters[-1])
                await trio.lowlevel.cancel_shielded_checkpoint()
                await trio.lowlevel.cancel_shielded_checkpoint()

        waiters: list[Waiter] = []
        waiter = await act_in_the_tick_of_a_wait(wait, ours, act_until_tick, go_on)
        return waiter.outcomes


async def play_all() -> dict[object, list[str]]:
    return {
        (order, direction): await play(order, wait)
        for order in orders()
        for direction, wait in (("read", wait_readable), ("write", wait_writable))
    }


@every_ring
def test_every_order_of_event_cancel_and_close_ends_as_on_epoll(backend: Backend) -> None:
    played = backend.run(play_all)
    assert all(len(outcomes) == 1 for outcomes in played.values())
    assert played == EPOLL.run(play_all)


CANCEL_OF_WHAT_IS_DONE = """
import socket, trio, trio_uring
from trio.lowlevel import wait_readable
from trio.testing import wait_all_tasks_blocked

async def main():
    pairs = [socket.socketpair() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for ours, _ in pairs:
            nursery.start_soon(wait_readable, ours)
        await wait_all_tasks_blocked()
        for _, peer in pairs:
            peer.send(b"x")
        nursery.cancel_scope.cancel()
    for _ in range(3):
        await trio.lowlevel.checkpoint()
    print(trio.lowlevel.current_statistics().io_statistics.operations_in_flight)

trio_uring.run(main)
"""


def test_cancel_of_what_has_completed_in_the_same_tick_is_for_nobody() -> None:
    """The first cancel makes the others complete, so that theirs find nothing and say so.
    With glibc told to hand out zeroed memory, as it may: those answers match no slot."""
    zeroed = "glibc.malloc.tcache_count=0:glibc.malloc.perturb=255"
    assert python(CANCEL_OF_WHAT_IS_DONE, environment={"GLIBC_TUNABLES": zeroed}) == "0\n"


# Descriptors that are closed behind our back


@every_ring
@both_directions
def test_number_closed_without_notice_and_given_out_again(backend: Backend, wait: Wait) -> None:
    async def main() -> None:
        with socketpair() as (ours, peer), socketpair() as (other, other_peer):
            fill(ours)
            fill(other)
            fd = os.dup(ours.fileno())
            waiter = Waiter()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waiter.run, wait, fd)
                await wait_all_tasks_blocked()
                os.dup2(other.fileno(), fd)
                with pytest.raises(trio.BusyResourceError):
                    await wait(fd)  # type: ignore[misc]
                waiter.scope.cancel()
            assert waiter.outcomes == ["cancelled"]

            waiter = Waiter()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waiter.run, wait, fd)
                await wait_all_tasks_blocked()
                peer.send(b"x")
                drain(peer)
                await wait_all_tasks_blocked(0.005)
                assert waiter.outcomes == []
                other_peer.send(b"x")
                drain(other_peer)
            assert waiter.outcomes == ["ready"]
            os.close(fd)

    backend.run(main)


@every_ring
def test_number_that_changes_hands_in_the_tick_of_the_wait_polls_the_new_file(
    backend: Backend,
) -> None:
    async def main() -> None:
        with socketpair() as (ours, _), socketpair() as (other, other_peer):
            fd = os.dup(ours.fileno())

            async def send() -> None:
                other_peer.send(b"x")

            waiter = await act_in_the_tick_of_a_wait(
                wait_readable, fd, lambda _: os.dup2(other.fileno(), fd), send
            )
            assert waiter.outcomes == ["ready"]
            os.close(fd)

    backend.run(main)
