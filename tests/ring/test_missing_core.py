"""The core cannot be loaded: one clear error, or epoll after one warning; files, paths and Datagrams still
work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from package_copy import copy_package, extension

import trio_uring

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def without_core(site: Path) -> None:
    extension(site, "_core").unlink()


def without_tasks(site: Path) -> None:
    extension(site, "_tasks").unlink()


def of_a_checkout(site: Path) -> None:
    without_core(site)
    (site / "native").mkdir()
    (site / "native" / "build.py").touch()


def with_a_broken_core(site: Path) -> None:
    extension(site, "_core").write_bytes(b"no library")


def without_liburing(site: Path) -> None:
    core = extension(site, "_core")
    assert b"liburing.so.2" in core.read_bytes()
    core.write_bytes(core.read_bytes().replace(b"liburing.so.2", b"liburing.so.X"))


def with_a_broken_liburing(site: Path) -> None:
    (site / "liburing.so.2").write_bytes(b"")


def with_another_liburing(site: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    source = site / "empty.c"
    source.write_text("int nothing;\n")
    library = str(site / "liburing.so.2")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, str(source)], check=True, timeout=60)


BREAK: dict[str, tuple[Callable[[Path], None], str]] = {
    "no core": (without_core, "Install trio-uring anew"),
    "a checkout that was not built": (of_a_checkout, "run the program in another folder"),
    "no tasks": (without_tasks, "Install trio-uring anew"),
    "a broken core": (with_a_broken_core, "Install trio-uring anew"),
    "no liburing": (without_liburing, "apt-get install liburing2"),
    "a broken liburing": (with_a_broken_liburing, "apt-get install liburing2"),
    "another liburing": (with_another_liburing, "apt-get install liburing2"),
}


class Broken:
    def __init__(self, site: Path, remedy: str) -> None:
        self.site = site
        self.remedy = remedy

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("TRIO_URING_")}
        paths = {"PYTHONPATH": str(self.site), "LD_LIBRARY_PATH": str(self.site)}
        return subprocess.run(
            [sys.executable, *arguments],
            env={**plain, **paths, **environment},
            cwd=self.site,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def output_of(self, program: str, **environment: str) -> str:
        done = self.run("-c", program, **environment)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


needs_shared = pytest.mark.skipif(
    trio_uring.capabilities().liburing_inside, reason="this build has liburing inside"
)
KINDS = [pytest.param(name, marks=needs_shared if "liburing" in name else ()) for name in BREAK]
every_kind = pytest.mark.parametrize("broken", KINDS, indirect=True)
a_kind = pytest.mark.parametrize("broken", ["a broken core"], indirect=True)


@pytest.fixture(scope="module")
def broken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Broken:
    change, remedy = BREAK[request.param]
    site = copy_package(tmp_path_factory.mktemp("broken"))
    change(site)
    return Broken(site, remedy)


RUNS = """
import queue, warnings
import trio
import trio_uring
from trio._core import _run as trio_run

before = dict(vars(trio_run)), dict(vars(trio.SocketStream))

async def main():
    print("ran on", trio.lowlevel.current_statistics().io_statistics.backend)

def run(ring):
    trio_uring.run(main, ring=ring)

def guest(ring):
    todo = queue.SimpleQueue()
    trio_uring.start_guest_run(
        main, ring=ring, run_sync_soon_threadsafe=todo.put, done_callback=lambda _: todo.put(None)
    )
    while (call := todo.get()) is not None:
        call()

def installed(ring):
    with trio_uring.installed(ring):
        trio.run(main)
        trio.run(main)

def install(ring):
    trio_uring.install(ring)
    trio.run(main)
    trio_uring.uninstall()

starts = [run, guest, installed, install]
"""

RAISES = (
    RUNS
    + """
for start in starts:
    try:
        start(None)
    except trio_uring.UringUnavailableError as error:
        assert isinstance(error.__cause__, ImportError) and error.errno is None
        print(error)
    assert before == (dict(vars(trio_run)), dict(vars(trio.SocketStream)))
"""
)


@every_kind
def test_that_is_one_clear_error_on_every_way_to_a_run(broken: Broken) -> None:
    said = broken.output_of(RAISES).splitlines()
    assert len(said) == 4
    for line in said:
        assert line.startswith("io_uring cannot be used here: the core cannot be loaded (")
        assert broken.remedy in line
        assert 'fallback="epoll"' in line


FALLS_BACK = (
    RUNS
    + """
for start in starts:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start(trio_uring.RingOptions(fallback="epoll"))
    (warning,) = caught
    assert warning.category is trio_uring.UringFallbackWarning and warning.filename == "<string>"
    print(warning.message)
    assert before == (dict(vars(trio_run)), dict(vars(trio.SocketStream)))
"""
)


@a_kind
def test_that_is_epoll_after_one_warning_where_it_was_asked_for(broken: Broken) -> None:
    said = broken.output_of(FALLS_BACK).splitlines()
    assert said.count("ran on epoll") == 5
    warned = [line for line in said if line != "ran on epoll"]
    assert len(warned) == 4
    for line in warned:
        assert line.startswith("This runs on epoll, not on io_uring: the core cannot be loaded (")
        assert broken.remedy in line


FILES = """
import sys, os, trio, trio_uring
from trio_uring import lowlevel

async def main():
    path = trio_uring.Path("a file")
    async with await trio_uring.open_file(path, "w+b") as file:
        await file.write(b"x" * 100_000)
        await file.seek(0)
        assert await file.read() == b"x" * 100_000
        await file.seek(0)
        assert await file.read(1) == b"x"
    await path.write_text("text")
    async for line in await path.open():
        print(line)
    assert await (await path.open("rb", 0)).read() == b"text"
    assert (await path.stat()).st_size == 4
    ours, theirs = trio.socket.socketpair()
    with open(path, "rb") as file, ours, theirs:
        assert await trio_uring.send_file(trio.SocketStream(ours), file) == 4
        assert await theirs.recv(10) == b"text"
    try:
        await lowlevel.read(0, bytearray(1))
    except RuntimeError as error:
        print(error)
    await path.unlink()

trio.run(main)
trio_uring.run(main)
"""


@every_kind
def test_files_and_paths_work_by_threads_and_lowlevel_says_that_it_does_not(broken: Broken) -> None:
    done = broken.run("-c", FILES, TRIO_URING_FALLBACK="epoll")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("UringFallbackWarning") == 1
    lines = done.stdout.splitlines()
    assert lines == ["text", "this run is not on io_uring, which trio_uring.lowlevel needs"] * 2


@a_kind
def test_the_doctor_says_so(broken: Broken) -> None:
    done = broken.run("-m", "trio_uring", "doctor")
    assert (done.returncode, done.stderr) == (1, "")
    assert (
        "A run fails: io_uring cannot be used here.\n  What is in the way: the core cannot be" in done.stdout
    )
    assert done.stdout.count(broken.remedy) == 1
    assert "wake-ups    " in done.stdout


@a_kind
def test_the_doctor_says_so_to_programs(broken: Broken) -> None:
    done = broken.run("-m", "trio_uring", "doctor", "--json", TRIO_URING_FALLBACK="epoll")
    assert (done.returncode, done.stderr) == (1, "")
    found = json.loads(done.stdout)
    assert (found["usable"], found["errno"], found["fallback"]) == (False, None, "epoll")
    assert broken.remedy in found["remedy"]
    assert {row["state"] for row in found["operations"]} == {"missing"}


@a_kind
def test_a_program_does_not_start_or_runs_on_epoll(broken: Broken) -> None:
    program = broken.site / "program.py"
    program.write_text(
        "import trio\n"
        "async def main(): print(trio.lowlevel.current_statistics().io_statistics.backend)\n"
        "trio.run(main)\n"
    )
    done = broken.run("-m", "trio_uring", "program.py")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("trio_uring: io_uring cannot be used here: the core cannot be loaded (")
    assert done.stderr.count("\n") == 1
    done = broken.run("-m", "trio_uring", "--fallback=epoll", "program.py")
    assert (done.returncode, done.stdout) == (0, "epoll\n")
    assert done.stderr.count("UringFallbackWarning") == 1


@a_kind
def test_a_test_session_does_not_start_or_runs_on_epoll(broken: Broken) -> None:
    (broken.site / "test_it.py").write_text("import trio\ndef test_it(): trio.run(trio.sleep, 0)\n")
    session = ("-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "--trio-uring", "test_it.py")
    done = broken.run(*session)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: --trio-uring: io_uring cannot be used here: the core cannot be loaded (" in done.stderr
    done = broken.run(*session, TRIO_URING_FALLBACK="epoll")
    assert done.returncode == 0, done.stdout
    assert "Trio runs on epoll, not on io_uring: the core cannot be loaded (" in done.stdout
    assert "1 passed" in done.stdout


DATAGRAMS = """
import socket
import trio
import trio.testing
from trio_uring import Datagram, Datagrams

def opened():
    return trio.socket.socket(type=socket.SOCK_DGRAM)

async def main():
    receiving = opened()
    await receiving.bind(("127.0.0.1", 0))
    address = receiving.getsockname()
    async with Datagrams(opened()) as sender, Datagrams(receiving, gro=GRO) as receiver:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, receiver)
            await trio.testing.wait_all_tasks_blocked()
            await sender.send([(b"one", address), (b"two", address, []), (memoryview(b""), address)])
            assert sender.sent == 3
        await sender.send_segments(b"abcde", 2, address)
        assert [(await receiver.receive())[0].data for _ in range(3)] == [b"ab", b"cd", b"e"]
        refused = [(b"x", ("localhost", 1)), (b"x", 5), b"x", ("x", address), (b"x", address, iter([])), ()]
        for wrong in refused:
            try:
                await sender.send([(b"before", address), wrong])
            except (TypeError, ValueError) as error:
                print(type(error).__name__, sender.sent)
    for one in (sender, receiver):
        try:
            await (one.receive() if one is receiver else one.send([(b"x", address)]))
        except trio.ClosedResourceError:
            print("closed")
    first, second = map(trio.socket.from_stdlib_socket, socket.socketpair(type=socket.SOCK_DGRAM))
    async with Datagrams(first) as sender, Datagrams(second, size=2) as receiver:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.send, [(b"%d" % number, None) for number in range(1000)])
            received = []
            while len(received) < 1000:
                received += await receiver.receive()
        assert [each.data for each in received] == [(b"%d" % number)[:2] for number in range(1000)]
        assert {each.flags for each in received} == {0, socket.MSG_TRUNC}

async def receive(receiver):
    received = []
    while len(received) < 3:
        received += await receiver.receive()
    assert [(each.data, each.ancdata, each.flags) for each in received] == [
        (b"one", [], 0), (b"two", [], 0), (b"", [], 0)
    ]
    assert {type(each) for each in received} == {Datagram}

trio.run(main)
"""


@a_kind
@pytest.mark.parametrize("gro", [False, True])
def test_datagrams_go_one_by_one(broken: Broken, gro: bool) -> None:
    program = DATAGRAMS.replace("GRO", str(gro))
    wrong = ["ValueError 1"] * 2 + ["TypeError 1"] * 4
    assert broken.output_of(program).splitlines() == [*wrong, "closed", "closed"]
