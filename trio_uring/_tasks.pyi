"""What a busy program does most often, written in C (native/python).

Each function holds the GIL throughout, but `receive_many` and `send_many`. Those that take a run, or work on
a task, are for the thread that runs the ticks.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import trio
from trio.lowlevel import Task
from typing_extensions import Buffer

from .loop.run import Run
from .sockets.connection import Connection
from .sockets.run_socket import RunSocket
from .sockets.states import State

DatagramT = TypeVar("DatagramT", bound=tuple[Any, ...])

FEW_EVENTS: int
"""A tick with more events than this has many sends to come: one system call for all of them then costs less
than one for each."""

def learn(name: str, kind: type[Any] | None, attributes: tuple[str, ...], /) -> bool:
    """Tells C a class whose attributes it uses, before any function that does so is called. ``name`` is one
    of Trio's, "task", "runner" or "cancel status", or "run", "operation", "socket" or "connection";
    ``attributes`` is the class's list of those attributes.

    False for a class of Trio's that lacks one of them. Then the functions that need it leave everything to
    Python.

    Raises TypeError if the list is not the one that C has, or if another class lacks an attribute.
    """

def learn_run(context: object, ready: object, /) -> None:
    """Tells C Trio's ``GLOBAL_RUN_CONTEXT``, and ``READY`` of loop/checkpoints.py."""

def learn_sockets(socket: Any, fileno: Callable[[Any], int], family: Any, multishot: State, /) -> None:
    """Tells C the class of Trio's sockets, the method ``fileno`` and the attribute ``family`` of the standard
    library's sockets, and the state of a socket that has a multishot with the kernel."""

def learn_messages(yielding: object, sleeping: type[Any], /) -> None:
    """Tells C what a task yields that only lets others run, and the class of what one yields that sleeps."""

def run_batch(
    finish: Callable[[Any, Task, Callable[[object], object], None], object], runner: Any, batch: list[Task], /
) -> bool:
    """Makes the steps of the tasks of ``batch``, from its end, as the loop of Trio's ``unrolled_run`` does.
    True: the next step is for the body of that loop. False: the batch is empty.

    A step that is not of the frequent kind is finished by ``finish(runner, task, send, None)``, to which
    ``send(None)`` says what it has come to. Raises what ``finish`` raises, and signal handlers."""

def attributes_used() -> dict[str, tuple[str, ...]]:
    """The attributes that C uses of each class, by the class's name for `learn`."""

def capsule_of(core: Buffer, /) -> object:
    """The core whose memory this is, for `Run.capsule`.

    Raises ValueError if it is not the memory of a core that was opened."""

def watch_queue(run: Run, /) -> None:
    """Has the core itself check queued submissions, as `check_queued` does, wherever it enters the kernel
    with some that were not checked. The run has to outlive its ring."""

def check_queued(run: Run, /) -> None:
    """Checks all queued submissions, if some were not checked yet: one for a socket that has another
    descriptor by now, or none, will be answered EBADF."""

def is_current(socket: RunSocket, /) -> bool:
    """Whether a socket still has the descriptor that its run knows it by."""

def learn_methods(recv: Callable[..., Any], send: Callable[..., Any], /) -> None:
    """Tells C our methods of Trio's sockets, before `start_receive` and `start_send` are called. They leave a
    stream to Python whose socket has other methods, since somebody has wrapped them."""

def wake(run: Run, count: int, append: Callable[[Task], object] | None, /) -> None:
    """Processes the first ``count`` events of a tick: wakes their tasks, each of which ``append`` puts into
    the runner's queue, or calls the Python handler of the event's kind. Without ``append`` it calls the
    handlers only.

    An event that was processed, or given to its handler, becomes TU_NOTHING. After an exception the call
    may be repeated, for the other events.

    Raises AssertionError for a task that is awake already, as Trio's `reschedule` does.
    """

def sleeps_on(task: Task, waker: object, /) -> bool:
    """Whether the task sleeps until ``waker`` wakes it: its abort function is a method of ``waker``. It does
    not if an exception has come between its submission and its sleep."""

def start_receive(stream: trio.SocketStream, length: object, /) -> Connection | None:
    """Begins a receive of up to ``length`` bytes. Returns the connection, whose waiter the calling task now
    is: it has to sleep with the connection's ``message``, and is woken with the bytes. None: nothing was
    done, and Python has to do it."""

def start_send(stream: trio.SocketStream, data: object, /) -> Connection | None:
    """Begins a send of all of ``data``, and enters the stream's conflict detector. Returns the connection:
    the calling task has to sleep with the ``message`` of its sender. None: nothing was done, and Python has
    to do it."""

def start_reading(run: Run, task: Task, fd: int, /) -> bool:
    """Begins a wait until a descriptor is readable. True: the task now has to sleep, with a message that
    aborts the wait as `Readiness.wait_readable` does. It may be woken too early, with nothing to read. False:
    nothing was done, since a task waits for the descriptor already, it is none, or the queue is full."""

def begin_attempt(trio_socket: object, arguments: tuple[Any, ...], /) -> Run | None:
    """Begins a call with these arguments on a socket of Trio's that has no connection: counts a cancel point
    of the calling task, and returns its run. None: nothing was done, and Python has to do it. It is another
    kind of socket, or not yet known to be of this kind; or the run is on epoll, or without completions; or
    the task was cancelled, or has to be told of Ctrl-C."""

def begin_sendto(trio_socket: object, arguments: tuple[Any, ...], /) -> Run | None:
    """Does the same for a call of ``sendto``. None also if the address has to be looked up."""

def begin_sendmsg(trio_socket: object, arguments: tuple[Any, ...], /) -> Run | None:
    """Does the same for a call of ``sendmsg``."""

def is_resolved(trio_socket: object, address: object, /) -> bool:
    """Whether Trio would send to ``address`` as it stands, without looking up a name."""

def spend(run: Run, task: Task | None, /) -> bool:
    """Does what `Run.spend` says; None stands for the calling task. False if Trio's tasks have not the
    attributes that C uses."""

def receive_many(
    fd: int, kind: type[DatagramT], memory: Buffer, count: int, size: int, ancillary_size: int, /
) -> list[DatagramT]:
    """Receives up to ``count`` messages of up to ``size`` bytes by one recvmmsg(2), and makes datagrams of
    them. ``memory`` has, for each, ``ancillary_size`` bytes, a multiple of 8, and ``size``, rounded up to
    one. Enters the kernel, without the GIL; never waits. Any thread.

    Raises OSError; BlockingIOError if there is nothing."""

def send_many(fd: int, family: int, messages: tuple[Any, ...], start: int, /) -> tuple[int, Exception | None]:
    """Sends messages from number ``start`` on by sendmmsg(2): returns how many were sent, and the error of
    the next one if that was not for want of room. Enters the kernel, without the GIL; never waits. Any
    thread.

    Raises the error of the first, if none was sent; BlockingIOError if there was no room."""

def uncleared_bytes(length: int, /) -> bytes:
    """A new bytes object with arbitrary contents. The caller fills it before anybody else sees it. Any
    thread.

    Raises SystemError for a negative length, and MemoryError."""

def keep(memory: object, /) -> None:
    """Keeps an object for the rest of the process, since the kernel may still use its memory. Cannot fail."""
