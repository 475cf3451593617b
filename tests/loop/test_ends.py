"""A run ends, whatever fails, and gives back what it took: the ring, its descriptors, Trio's names.

Each program is a child process of its own, one at a time.
"""

from __future__ import annotations

import errno
import platform

import pytest
from child_process import SUPPORT, output_of
from equivalence import needs_completions

RINGS_LOOK_ALIKE = tuple(map(int, platform.release().split(".")[:2])) < (5, 16)
LIMIT = 60
"""Seconds for a child; none of them waits for longer than two."""
PREPARE = f"""
import contextlib, ctypes, gc, os, queue, signal, socket, sys, tempfile, threading, time, warnings
import trio, trio.testing, trio_uring
from trio._core import _run
from trio_uring import RingOptions, lowlevel
sys.path.insert(0, {str(SUPPORT)!r})
import refusing, seccomp

sys.unraisablehook = bool  # of tasks that never end; no function of Python, where a signal handler may raise
warnings.simplefilter("ignore")
originals = _run.TheIOManager, _run.setup_runner

class Clock(trio.abc.Clock):
    crashes = False
    def start_clock(self): ...
    def current_time(self):
        return time.monotonic()
    def deadline_to_sleep_time(self, deadline):
        if self.crashes:
            raise SystemExit
        return deadline - time.monotonic()

def descriptors(kind):
    folder = "/proc/self/fd/"
    return [int(fd) for fd in os.listdir(folder)
            if os.path.lexists(folder + fd) and kind in os.readlink(folder + fd)]

async def something_in_flight(nursery):
    '''Of each kind. What is returned has to be kept.'''
    reader, _ = os.pipe()
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen()
    client = socket.socket()
    client.connect(listener.getsockname())
    accepted, _ = await listener.accept()
    stream = trio.SocketStream(accepted)
    for data in (b"1", b"2"):  # the second receive is multishot
        client.sendall(data)
        assert await stream.receive_some(1) == data
    left, right = trio.socket.socketpair()
    file = await trio_uring.open_file(os.path.join(tempfile.mkdtemp(), "file"), "wb")
    for task in (
        (lowlevel.read, reader, bytearray(10)),
        (listener.accept,),
        (left.recv, 10),
        (stream.receive_some,),
        (trio.SocketStream(right).send_all, bytes(10_000_000)),
        (trio.lowlevel.wait_readable, reader),
        (file.write, bytes(100_000)),
    ):
        nursery.start_soon(*task)
    await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(0)
    return client, listener, left, right, file

def say_how_it_ends(*arguments, **options):
    try:
        print(trio_uring.run(*arguments, **options))
    except BaseException as error:
        while cause := getattr(error, "exceptions", (error.__cause__,))[0]:
            error = cause
        print(type(error).__name__)
    say_what_is_left()

def say_what_is_left():
    gc.collect()
    print(len(descriptors("io_uring")), "rings", (_run.TheIOManager, _run.setup_runner) == originals)

def leave():
    sys.stdout.flush()
    os._exit(0)  # the interpreter's own end would meet closed descriptors
"""
NOTHING_LEFT = "0 rings True"

BROKEN = [errno.EPERM, errno.EBADF, errno.EBADFD, errno.ENXIO, errno.EINVAL, errno.ENOSYS, errno.EBADR]
REFUSED = [errno.EAGAIN, errno.EBUSY, errno.ENOMEM]
CUT_SHORT = [errno.EINTR, errno.ETIME, 0]
"""What a kernel never answers for ever, before it has submitted."""


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        *((answer, end) for answer in BROKEN for end in ("cancel", "crash", "return")),
        *((answer, end) for answer in REFUSED + CUT_SHORT for end in ("cancel", "return")),
    ],
    ids=lambda value: value if isinstance(value, str) else errno.errorcode.get(value, "nothing"),
)
def test_a_ring_that_may_not_be_entered_any_more(answer: int, end: str) -> None:
    """As in a program that sandboxes itself when it has started."""
    said, left = output_of(
        PREPARE
        + f"""
clock = Clock()

async def main():
    if {end == "return"}:
        trio.lowlevel.spawn_system_task(lowlevel.read, os.pipe()[0], bytearray(10))
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0)
        seccomp.install({{"io_uring_enter": {answer}}})
        return "returned"
    async with trio.open_nursery() as nursery:
        kept = await something_in_flight(nursery)
        seccomp.install({{"io_uring_enter": {answer}}})
        if {end == "crash"}:
            clock.crashes = True
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()

say_how_it_ends(main, clock=clock)
leave()
""",
        timeout=LIMIT,
    ).splitlines()
    told = errno.EAGAIN if answer in CUT_SHORT else answer
    assert said == ("SystemExit" if end == "crash" else type(OSError(told, "")).__name__)
    assert left == NOTHING_LEFT


@needs_completions
@pytest.mark.parametrize("waits", ["await server.recv(10)", "await listener.accept()"])
def test_a_crash_between_a_cancellation_and_the_kernels_answer(waits: str) -> None:
    """Two deadlines pass in one tick, and at the second an abort function breaks the run."""
    said = output_of(
        PREPARE
        + f"""
async def main():
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen()
    client = trio.socket.socket()
    await client.connect(listener.getsockname())
    server, _ = await listener.accept()
    now = trio.current_time()

    async def waits():
        with trio.move_on_at(now + 0.001):
            {waits}

    async def breaks():
        with trio.move_on_at(now + 0.002):
            await trio.lowlevel.wait_task_rescheduled(lambda _: None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits)
        nursery.start_soon(breaks)
        await trio.testing.wait_all_tasks_blocked()
        time.sleep(0.01)

say_how_it_ends(main)
""",
        timeout=LIMIT,
    )
    assert said.splitlines() == ["TrioInternalError", NOTHING_LEFT]


@needs_completions
def test_a_crash_while_receives_wait_for_a_buffer() -> None:
    """Once their turn came, they were submitted, and nobody stopped them any more."""
    said = output_of(
        PREPARE
        + """
clock = Clock()
pairs = []

async def main():
    listener = socket.create_server(("127.0.0.1", 0))
    for _ in range(50):
        client = socket.create_connection(listener.getsockname())
        server = trio.socket.from_stdlib_socket(listener.accept()[0])
        for data in (b"1", b"2"):  # the second receive is multishot
            client.sendall(data)
            assert await server.recv(1) == data
        trio.lowlevel.spawn_system_task(server.recv, 1)
        pairs.append((client, server))
    await trio.testing.wait_all_tasks_blocked()
    for client, _ in pairs:
        client.sendall(b"x")
    while not trio.lowlevel.current_statistics().io_statistics.buffer_shortages:
        await trio.lowlevel.checkpoint()
    clock.crashes = True
    await trio.sleep_forever()

say_how_it_ends(main, clock=clock, ring=RingOptions(buffers=2))
leave()
""",
        timeout=LIMIT,
    )
    assert said.splitlines() == ["SystemExit", NOTHING_LEFT]


# Descriptors that are closed below us


@pytest.mark.parametrize("kind", ["io_uring", "eventfd", "anon_inode", ""])
@pytest.mark.parametrize("busy", [False, True])
def test_numbers_that_are_somebody_elses_by_now(kind: str, busy: bool) -> None:
    if kind in ("io_uring", "anon_inode") and RINGS_LOOK_ALIKE:
        pytest.skip("here a stranger's ring cannot be told from ours (Linux 5.16)")
    said = output_of(
        PREPARE
        + f"""
from trio_uring.ring import opening

async def main():
    async with trio.open_nursery() as nursery:
        if {busy}:
            kept = await something_in_flight(nursery)
        else:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep(0.001)
        ours.extend(descriptors("anon_inode"))
        closed = [fd for fd in descriptors({kind!r}) if fd > 2]
        for fd in closed:
            with contextlib.suppress(OSError):
                os.close(fd)
        if {kind in ("anon_inode", "io_uring")}:
            strangers.append(opening.open_ring(RingOptions()))  # an eventfd and a ring
        else:
            strangers.extend(open("/dev/null") for _ in closed)
        before.update((fd, os.fstat(fd)) for fd in ours if fd in closed)
        await trio.sleep(0.01)
        nursery.cancel_scope.cancel()

ours, strangers, before = [], [], {{}}
say_how_it_ends(main)
print({{fd for fd, status in before.items() if not os.path.samestat(os.fstat(fd), status)}} or "untouched")
leave()
""",
        timeout=LIMIT,
    ).splitlines()
    assert said[-1] == "untouched"


@needs_completions
def test_a_receive_of_memory_that_is_still_the_kernels_is_kept() -> None:
    """The ring is closed below us; what it may still write to is not used again."""
    said = output_of(
        PREPARE
        + """
reader, writer = os.pipe()
buffer = bytearray(8)

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lowlevel.read, reader, buffer)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0)
        copy = os.dup(descriptors("io_uring")[0])  # it goes on
        seccomp.install({"io_uring_enter": 1})

say_how_it_ends(main)
try:
    buffer.append(0)
except BufferError:
    print("held")
leave()
""",
        timeout=LIMIT,
    )
    assert said.splitlines() == ["PermissionError", "1 rings True", "held"]


# Signals


def test_signal_handlers_that_raise() -> None:
    """Time limits by SIGALRM, in runs of busy Unix streams. Where one comes in the middle of Trio, it may
    end by another error of Trio's, as on epoll."""
    said = output_of(
        PREPARE
        + """
class Late(Exception):
    pass

def raises(*_):
    raise Late

async def ping(stream, first):
    while True:
        if first:
            await stream.send_all(bytes(1000))
        await stream.receive_some()
        if not first:
            await stream.send_all(bytes(10))

async def main():
    with trio.move_on_after(1):  # the exception may come where it is ignored, as in a finaliser
        await busy()

async def busy():
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            for first, sock in enumerate(trio.socket.socketpair()):
                nursery.start_soon(ping, trio.SocketStream(sock), bool(first))
        nursery.start_soon(set_alarm)

async def set_alarm():
    # When all have begun, and the nursery waits for them. Where Trio starts a task, an exception may leave
    # one that is waited for and never runs; where a nursery begins to wait, tasks that nothing ends.
    for _ in range(3):
        await trio.lowlevel.checkpoint()
    signal.setitimer(signal.ITIMER_REAL, 0.0001 + number / 4000)

signal.signal(signal.SIGALRM, raises)
for number in range(60):
    with contextlib.suppress(BaseException):
        trio_uring.run(main)
    _run.GLOBAL_RUN_CONTEXT.__dict__.clear()
say_what_is_left()
""",
        timeout=2 * LIMIT,
    )
    assert said == NOTHING_LEFT + "\n"


def test_an_exception_at_any_line_of_what_opens_and_closes() -> None:
    """Each time of another line. (One that holds a lock, or only returns, no signal handler can come to.)"""
    said = output_of(
        PREPARE
        + """
import linecache

class Late(Exception):
    pass

kept = []

def trace_to(left):
    def in_frame(frame, event, _):
        nonlocal left
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "line" and not line.startswith(("with ", "return")):
            left -= 1
            if not left:
                sys.settrace(None)
                raise Late
        return in_frame

    files = (
        "/trio_uring/session/replacement.py",
        "/trio_uring/session/io_manager.py",
        "/trio_uring/ring/opening.py",
    )
    def in_any(frame, *_):
        return in_frame if frame.f_code.co_filename.endswith(files) else None

    kept.append(in_any)  # CPython 3.11 frees what is taken away while it is called
    sys.settrace(in_any)

trio_uring.run(trio.sleep, 0)
hooks = sys.get_asyncgen_hooks()

def is_something_left():
    return descriptors("io_uring") or (_run.TheIOManager, _run.setup_runner) != originals

number = 0
while True:
    number += 1
    trace_to(number)
    try:
        trio_uring.run(trio.sleep, 0)
        if sys.gettrace():  # it has no such line
            break
    except (Late, trio.TrioInternalError):
        pass
    sys.settrace(None)
    # Which Trio itself may leave.
    sys.set_asyncgen_hooks(*hooks)
    signal.set_wakeup_fd(-1)
    _run.GLOBAL_RUN_CONTEXT.__dict__.clear()
    if is_something_left():
        gc.collect()
    if is_something_left():
        print("after", number, end=": ")
        say_what_is_left()
sys.settrace(None)
print(number > 100)
say_what_is_left()
""",
        timeout=LIMIT,
    )
    assert said.splitlines() == ["True", NOTHING_LEFT]


def test_a_child_that_is_forked_closes_the_manager_of_another_thread_without_complaint() -> None:
    said = output_of(
        PREPARE
        + """
calls, started = queue.Queue(), threading.Event()

async def main():
    started.set()
    await trio.sleep_forever()

def host():
    trio_uring.start_guest_run(main, run_sync_soon_threadsafe=calls.put, done_callback=print)
    while True:
        calls.get()()

threading.Thread(target=host, daemon=True).start()
started.wait()
sys.stdout.flush()
child = os.fork()
if not child:
    (manager,) = trio_uring.loop.manager._managers
    manager.close()
    say_what_is_left()
    leave()
_, status = os.waitpid(child, 0)
print(status)
leave()
""",
        timeout=LIMIT,
    )
    assert said.splitlines() == [NOTHING_LEFT, "0"]


@needs_completions
def test_a_completion_that_there_is_no_memory_for_at_first_is_no_end_of_the_run() -> None:
    """Of more bytes than the task wants: Python copies them."""
    said = output_of(
        PREPARE
        + """
from trio_uring.sockets.receive_buffers import ReceiveBuffers

copied, failed = ReceiveBuffers._copied, []

def fails_once(*arguments):
    if not failed:
        failed.append(True)
        raise MemoryError
    return copied(*arguments)

ReceiveBuffers._copied = fails_once

async def main():
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = await trio.open_tcp_stream(*listener.socket.getsockname())
    server = await listener.accept()
    got = []

    async def receive():
        while len(got) < 4:
            got.append(await server.receive_some(1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        for data in (b"a", b"bcd"):
            await trio.testing.wait_all_tasks_blocked()
            await client.send_all(data)
    return b"".join(got), failed

print(trio_uring.run(main))
leave()
""",
        timeout=LIMIT,
    )
    assert said.strip() == "(b'abcd', [True])"


def test_ctrl_c_ends_the_wait_for_a_kernel_that_does_not_answer() -> None:
    said = output_of(
        PREPARE
        + """
from trio_uring.loop.manager import UringManager

# It cannot cancel what a worker of its has begun. Here it is not asked to.
UringManager._stop_operations = UringManager._cancel_all = lambda manager: None
clock = Clock()

def interrupt(manager):
    while not manager.closed:
        time.sleep(0.001)
    signal.raise_signal(signal.SIGINT)

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lowlevel.read, os.pipe()[0], bytearray(10))
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0)
        threading.Thread(target=interrupt, args=[trio.lowlevel.current_task()._runner.io_manager]).start()
        clock.crashes = True
        await trio.sleep_forever()

say_how_it_ends(main, clock=clock)
""",
        timeout=LIMIT,
    )
    assert said.splitlines() == ["SystemExit", NOTHING_LEFT]


# A kernel that refuses for a while


@pytest.mark.parametrize("answer", REFUSED, ids=lambda answer: errno.errorcode[answer])
@pytest.mark.parametrize("entries", [1, 4])
def test_a_kernel_that_refuses_for_a_while_is_waited_for(answer: int, entries: int) -> None:
    """With more to submit than the queue holds; what is cancelled meanwhile was never submitted."""
    said = output_of(
        PREPARE
        + f"""
left = 0

def answer(fd, submissions, *_):
    global left
    if not left or not submissions:
        return 0
    left -= 1
    return {answer}

async def read(fd):
    buffer = bytearray(1)
    assert await lowlevel.read(fd, buffer) == 1
    results.append(bytes(buffer))

async def exchange(left, right):
    assert await left.send(b"x") == 1
    results.append(await right.recv(1))

async def wait(fd):
    await trio.lowlevel.wait_writable(fd)
    results.append(b"y")

async def main():
    global left
    reader, writer = os.pipe()
    empty, _ = os.pipe()
    pairs = [trio.socket.socketpair() for _ in range(20)]
    refusing.refuse("io_uring_enter", answer)
    left = 200
    with trio.fail_after({LIMIT}):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as cancelled:
                    for _ in range(20):
                        nursery.start_soon(read, reader)
                        cancelled.start_soon(read, empty)
                        cancelled.start_soon(trio.lowlevel.wait_readable, os.dup(empty))
                        nursery.start_soon(exchange, *pairs.pop())
                        nursery.start_soon(wait, os.dup(writer))
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            os.write(writer, bytes(20))
    print(sorted(results) == [b"\\0"] * 20 + [b"x"] * 20 + [b"y"] * 20, left)

results = []
say_how_it_ends(main, ring=RingOptions(entries={entries}, cq_entries=8))
leave()
""",
        timeout=LIMIT,
    )
    assert said.splitlines() == ["True 0", "None", NOTHING_LEFT]
