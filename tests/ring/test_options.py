"""`RingOptions` and the environment: what is allowed, what is said of the rest, and that
a run does without what is switched off."""

from __future__ import annotations

import copy
import itertools
import pickle
import socket
from typing import Any

import pytest
import trio
from old_kernels import KERNELS, lacked

import trio_uring
from trio_uring.ring.features import FEATURES, SETUP_FLAGS, SWITCHES
from trio_uring.ring.native import ffi, lib
from trio_uring.ring.opening import open_ring

WRONG: list[tuple[str, Any, type[Exception], list[str]]] = [
    ("entries", 0, ValueError, ["0", "1 to 32768"]),
    ("entries", -1, ValueError, ["-1", "1 to 32768"]),
    ("entries", 32769, ValueError, ["32769", "1 to 32768"]),
    ("entries", "8", TypeError, ["'8'", "int"]),
    ("entries", 8.0, TypeError, ["8.0", "int"]),
    ("entries", None, TypeError, ["None", "int"]),
    ("entries", True, TypeError, ["True", "int"]),
    ("cq_entries", 1, ValueError, ["1", "at least entries ("]),
    ("cq_entries", 0, ValueError, ["0", "65536"]),
    ("cq_entries", 65537, ValueError, ["65537", "65536"]),
    ("cq_entries", b"1024", TypeError, ["b'1024'", "int"]),
    ("cq_entries", False, TypeError, ["False", "int"]),
    ("fallback", "kqueue", ValueError, ["'kqueue'", "'error'", "'epoll'"]),
    ("fallback", "", ValueError, ["''", "'error'", "'epoll'"]),
    ("fallback", None, (TypeError, ValueError), ["None", "'error'", "'epoll'"]),
    ("fallback", ["epoll"], (TypeError, ValueError), ["['epoll']", "'error'", "'epoll'"]),
    ("checkpoint_budget", -1, ValueError, ["-1", "at least 0"]),
    ("checkpoint_budget", 1.5, TypeError, ["1.5", "int"]),
    ("checkpoint_budget", True, TypeError, ["True", "int"]),
    ("accept_ahead", -1, ValueError, ["-1", "at least 0", "connections"]),
    ("accept_ahead", True, TypeError, ["True", "int"]),
    ("features", ["no_iowait"], TypeError, ["['no_iowait']", "mapping"]),
    ("features", "no_iowait", TypeError, ["'no_iowait'", "mapping"]),
    ("features", None, TypeError, ["None", "mapping"]),
    ("features", {"sqpoll": False}, ValueError, ["'sqpoll'", "single_issuer", "no_iowait"]),
    ("features", {7: False}, ValueError, ["7", "single_issuer", "no_iowait"]),
    ("features", {"no_iowait": True}, ValueError, ["'no_iowait'", "True", "False"]),
    ("features", {"no_iowait": 0}, (TypeError, ValueError), ["'no_iowait'", "0", "False"]),
    ("features", {"ext_arg": False}, ValueError, ["'ext_arg'", "needs it"]),
]


@pytest.mark.parametrize(("option", "value", "error", "said"), WRONG)
def test_a_wrong_option_is_refused_when_it_is_made(
    option: str, value: object, error: type[Exception], said: list[str]
) -> None:
    with pytest.raises(error) as raised:
        trio_uring.RingOptions(**{option: value})  # type: ignore[arg-type]
    for words in ["RingOptions", option, *said]:
        assert words in str(raised.value)


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="sq_entries"):
        trio_uring.RingOptions(sq_entries=8)  # type: ignore[call-arg]


def test_options_are_keyword_only() -> None:
    with pytest.raises(TypeError, match="positional"):
        trio_uring.RingOptions(8)  # type: ignore[call-arg,misc]


def test_options_are_frozen_and_do_not_see_a_later_change_of_the_mapping() -> None:
    features = {"no_iowait": False}
    options = trio_uring.RingOptions(features=features)
    with pytest.raises(AttributeError):
        options.entries = 8  # type: ignore[misc]
    features["no_sqarray"] = False
    assert dict(options.features) == {"no_iowait": False}
    with pytest.raises(TypeError):
        options.features["no_sqarray"] = False  # type: ignore[index]


def test_equal_options_have_equal_hashes() -> None:
    one = trio_uring.RingOptions(features={"no_iowait": False, "no_sqarray": False})
    other = trio_uring.RingOptions(features={"no_sqarray": False, "no_iowait": False})
    assert one == other
    assert hash(one) == hash(other)
    assert one != trio_uring.RingOptions()


def test_options_can_be_copied_and_sent_to_another_process() -> None:
    options = trio_uring.RingOptions(entries=8, features={"no_iowait": False})
    assert pickle.loads(pickle.dumps(options)) == options
    assert copy.deepcopy(options) == options


@pytest.mark.parametrize("wrong", [{}, 8, "epoll", trio_uring.RingOptions])
def test_a_ring_that_is_no_ring_options_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"ring has to be a trio_uring\.RingOptions"):
        trio_uring.run(trio.sleep, 0, ring=wrong)
    with pytest.raises(TypeError, match=r"ring has to be a trio_uring\.RingOptions"):
        trio_uring.install(wrong)


def flags_of_a_run(ring: trio_uring.RingOptions | None = None) -> tuple[str, ...]:
    async def main() -> tuple[str, ...]:
        statistics = trio.lowlevel.current_statistics().io_statistics
        assert isinstance(statistics, trio_uring.UringStatistics)
        return statistics.flags

    return trio_uring.run(main, ring=ring)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TRIO_URING_FALLBACK", "EPOLL"),
        ("TRIO_URING_FALLBACK", "kqueue"),
        ("TRIO_URING_DISABLE", "sqpoll"),
        ("TRIO_URING_DISABLE", "no_iowait,everything"),
        ("TRIO_URING_DISABLE", "ext_arg"),
    ],
)
def test_a_wrong_environment_variable_is_a_value_error_before_the_run(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    for start in (lambda: trio_uring.run(trio.sleep, 0), trio_uring.install):
        with pytest.raises(ValueError, match=variable) as raised:
            start()
        assert repr(value.rpartition(",")[2]) in str(raised.value)


@pytest.mark.parametrize("value", ["", "no_iowait", "no_iowait,no_sqarray", " no_sqarray , no_iowait,"])
def test_trio_uring_disable_adds_to_what_the_options_switch_off(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.delenv("TRIO_URING_DISABLE", raising=False)
    before = flags_of_a_run(trio_uring.RingOptions(features={"r_disabled": False}))
    monkeypatch.setenv("TRIO_URING_DISABLE", value)
    flags = flags_of_a_run(trio_uring.RingOptions(features={"r_disabled": False}))
    assert flags == tuple(name for name in before if name not in value)
    assert "r_disabled" not in flags


def test_between_two_of_the_old_kernels_one_has_brought_something() -> None:
    """So nothing that can be switched off came between two of them without a run that tells which."""
    missing = [*map(lacked, KERNELS), ()]
    for older, newer in itertools.pairwise(missing):
        brought = set(older) - set(newer)
        assert len({row.since for row in (*SETUP_FLAGS, *FEATURES) if row.name in brought}) == 1


@pytest.mark.parametrize(
    "off",
    [*([name] for name in SWITCHES), [], *map(lacked, KERNELS), SWITCHES],
    ids=lambda names: "+".join(names) or "nothing",
)
def test_a_run_works_without_what_is_switched_off(off: tuple[str, ...]) -> None:
    ring = trio_uring.RingOptions(entries=8, cq_entries=16, features=dict.fromkeys(off, False))
    assert not set(flags_of_a_run(ring)) & set(off)
    trio_uring.run(workload, ring=ring)


def test_the_core_does_without_what_is_switched_off() -> None:
    """Of the feature mask it looks at ``cqe_skip`` alone."""
    masks = []
    for off in ({}, {"cqe_skip": False}):
        ring = open_ring(trio_uring.RingOptions(features=off))
        statistics = ffi.new("tu_statistics *")
        lib.tu_read_statistics(ring.core, statistics)
        ring.release()
        masks.append(statistics.features)
    assert masks[1] == masks[0] & ~(1 << 11)


async def workload() -> None:
    with trio.fail_after(60):
        await sockets_talk()
        await threads_call_back()
        await waits_are_cancelled()
        await many_wait_on_a_small_ring()


async def sockets_talk() -> None:
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener[0].socket.getsockname()[1]
    sent = bytes(range(256)) * 4096
    received = bytearray()

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(sent)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listener)
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            async for chunk in client:
                received += chunk
        nursery.cancel_scope.cancel()
    assert received == sent


async def threads_call_back() -> None:
    called: list[int] = []
    for number in range(20):
        await trio.to_thread.run_sync(trio.from_thread.run_sync, called.append, number)
    assert called == list(range(20))


async def waits_are_cancelled() -> None:
    left, right = socket.socketpair()
    with left, right:
        for _ in range(50):
            with trio.move_on_after(0.001) as scope:
                await trio.lowlevel.wait_readable(left)
            assert scope.cancelled_caught
        right.send(b"x")
        await trio.lowlevel.wait_readable(left)


async def many_wait_on_a_small_ring() -> None:
    pairs = [socket.socketpair() for _ in range(250)]
    woken: set[int] = set()

    async def wait(sock: socket.socket) -> None:
        await trio.lowlevel.wait_readable(sock)
        woken.add(sock.fileno())

    try:
        async with trio.open_nursery() as nursery:
            for left, right in pairs:
                nursery.start_soon(wait, left)
                nursery.start_soon(wait, right)
            await trio.testing.wait_all_tasks_blocked()
            statistics = trio.lowlevel.current_statistics().io_statistics
            assert statistics.tasks_waiting_read == 501
            for left, right in pairs:
                left.send(b"x")
                right.send(b"x")
        assert woken == {sock.fileno() for pair in pairs for sock in pair}
    finally:
        for left, right in pairs:
            left.close()
            right.close()
