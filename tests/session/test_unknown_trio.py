"""A Trio whose internals are not as we know them: one clear error, on `run`, or epoll after one
warning, if that was asked for."""

from __future__ import annotations

import pytest
import trio
from child_process import output_of

CHANGES = {
    "setup_runner is missing": "del trio_run.setup_runner",
    "TheIOManager is missing": "del trio_run.TheIOManager",
    "EntryQueue is missing": "del trio_run.EntryQueue",
    "Runner is missing": "del trio_run.Runner",
    "setup_runner has the parameters clock, instruments": (
        "trio_run.setup_runner = lambda clock, instruments: None"
    ),
    "setup_runner is not a function": "trio_run.setup_runner = 7",
    "Runner.reschedule is missing": "del trio_run.Runner.reschedule",
    "Runner.io_manager is missing": "remove_field('Runner', 'io_manager')",
    "Runner.entry_queue is missing": "remove_field('Runner', 'entry_queue')",
    "Runner.is_guest is missing": "remove_field('Runner', 'is_guest')",
    "EntryQueue.wakeup is missing": "remove_field('EntryQueue', 'wakeup')",
    "EntryQueue.lock is missing": "remove_field('EntryQueue', 'lock')",
    "Runner.entry_queue is missing, Runner.is_guest is missing": (
        "trio_run.Runner = type('Runner', (), {'io_manager': None})"
    ),
    "EpollIOManager.force_wakeup is missing": "del trio_run.TheIOManager.force_wakeup",
    "trio._socket._SocketType.recvmsg_into is missing": "del trio._socket._SocketType.recvmsg_into",
    "trio.aclose_forcefully is missing": "del trio.aclose_forcefully",
}

PROGRAM = """
import attrs, trio, traceback
from trio._core import _run as trio_run
import trio_uring

def remove_field(owner, removed):
    old = getattr(trio_run, owner)
    fields = {{f.name: attrs.field(default=None) for f in attrs.fields(old) if f.name != removed}}
    setattr(trio_run, owner, attrs.make_class(owner, fields))

{change}

async def main():
    print("user code ran")

def done(outcome):
    print("user code ran")

starts = [
    lambda: trio_uring.run(main),
    lambda: trio_uring.start_guest_run(main, run_sync_soon_threadsafe=print, done_callback=done),
    trio_uring.install,
]
before = dict(vars(trio_run))
for start in starts:
    try:
        start()
    except trio_uring.UringUnavailableError as error:
        assert error.__cause__ is None and error.__context__ is None and error.errno is None
        print(error)
assert dict(vars(trio_run)) == before
"""


def test_a_trio_without_the_module_is_the_same_error_and_only_on_run() -> None:
    said = output_of(
        """
        import sys, trio, trio._core
        del trio._core._run
        sys.modules["trio._core._run"] = None
        import trio_uring
        try:
            trio_uring.run(print, "user code ran")
        except RuntimeError as error:
            print(error)
        """
    )
    assert f"Trio {trio.__version__}: trio._core._run.TheIOManager is missing" in said
    assert "0.29.0, 0.32.0, 0.35.0" in said


def test_a_trio_without_a_name_that_is_imported_is_the_same_error_and_only_on_run() -> None:
    said = output_of(
        """
        import trio
        del trio._socket._SocketType
        import trio_uring
        try:
            trio_uring.run(print, "user code ran")
        except RuntimeError as error:
            print(error)
        """
    )
    assert f"Trio {trio.__version__}: trio._socket._SocketType is missing. It" in said


@pytest.mark.parametrize("missing", CHANGES)
def test_an_unknown_trio_is_one_clear_error_on_every_way_to_a_run(missing: str) -> None:
    said = output_of(PROGRAM.format(change=CHANGES[missing])).splitlines()
    assert len(said) == 3
    for line in said:
        assert f"Trio {trio.__version__}:" in line
        assert missing in line
        assert "0.29.0, 0.32.0, 0.35.0" in line


# With these, Trio itself still runs.
HARMLESS = {
    name: CHANGES[name]
    for name in ("EpollIOManager.force_wakeup is missing", "trio._socket._SocketType.recvmsg_into is missing")
} | {
    "cannot import name 'cancel_shielded_checkpoint'": "del trio.lowlevel.cancel_shielded_checkpoint",
    "module 'trio' has no attribute 'Lock'": "del trio.Lock",
    "FdStream is missing": "import sys; sys.modules['trio._unix_pipes'] = None",
    "setup_runner has the parameters clock, instruments, restrict_keyboard_interrupt_to_checkpoints, "
    "strict_exception_groups, new": """
known = trio_run.setup_runner
def setup_runner(
    clock, instruments, restrict_keyboard_interrupt_to_checkpoints, strict_exception_groups, new=None
):
    return known(
        clock, instruments, restrict_keyboard_interrupt_to_checkpoints, strict_exception_groups
    )
trio_run.setup_runner = setup_runner
""",
}

FALLS_BACK = """
import queue, warnings
import trio, trio._socket
from trio._core import _run as trio_run

{change}

import trio_uring

before = dict(vars(trio_run)), dict(vars(trio.SocketStream))
ring = trio_uring.RingOptions(fallback="epoll")

async def main():
    print("ran on", trio.lowlevel.current_statistics().io_statistics.backend)

def guest():
    todo = queue.SimpleQueue()
    trio_uring.start_guest_run(
        main, ring=ring, run_sync_soon_threadsafe=todo.put, done_callback=lambda _: todo.put(None)
    )
    while (call := todo.get()) is not None:
        call()

def installed():
    with trio_uring.installed(ring):
        trio.run(main)
        trio.run(main)

for start in (lambda: trio_uring.run(main, ring=ring), guest, installed):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start()
    (warning,) = caught
    assert warning.category is trio_uring.UringFallbackWarning and warning.filename == "<string>"
    print(warning.message)
    assert before == (dict(vars(trio_run)), dict(vars(trio.SocketStream)))
"""


@pytest.mark.parametrize("missing", HARMLESS)
def test_an_unknown_trio_is_one_warning_where_epoll_was_asked_for(missing: str) -> None:
    said = output_of(FALLS_BACK.format(change=HARMLESS[missing])).splitlines()
    assert said.count("ran on epoll") == 4
    warned = [line for line in said if line != "ran on epoll"]
    assert len(warned) == 3
    for line in warned:
        assert "This runs on epoll, not on io_uring" in line
        assert f"Trio {trio.__version__}: {missing}" in line
        assert ". It was checked on Trio 0.29.0" in line


@pytest.mark.parametrize("name", ["SocketStream", "SocketListener", "SSLStream", "lowlevel.FdStream"])
def test_a_mock_in_the_place_of_a_public_class_is_no_unknown_trio(name: str) -> None:
    said = output_of(
        f"""
        import socket, unittest.mock
        import trio, trio_uring

        async def main():
            sock = trio.socket.socket()
            await sock.bind(("127.0.0.1", 0))
            sock.listen()
            client = socket.create_connection(sock.getsockname())
            client.sendall(b"x")
            stream = await listener_of(sock).accept()
            print(type(stream).__name__, await stream.receive_some())
            print(trio.lowlevel.current_statistics().io_statistics.backend)

        listener_of = trio.SocketListener
        with unittest.mock.patch("trio.{name}"):
            trio_uring.run(main)
        """
    )
    assert said == "SocketStream b'x'\nio_uring\n"
