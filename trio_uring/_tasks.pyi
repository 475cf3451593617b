"""What a busy program does most often, written in C (native/python).

Each function holds the GIL throughout. Those that take a run, or work on a task, are for the thread that
runs the ticks.
"""

from collections.abc import Callable
from typing import Any

import trio
from trio.lowlevel import Task
from typing_extensions import Buffer

from .loop.run import Run
from .sockets.connection import Connection
from .sockets.run_socket import RunSocket
from .sockets.states import State

FEW_EVENTS: int
"""A tick with more events than this has many sends to come: one system call for all of them then costs less
than one for each."""

def learn(name: str, kind: type[Any], attributes: tuple[str, ...], /) -> bool:
    """Tells C a class whose attributes it uses, before any function that does so is called. ``name`` is
    "task", "runner", "cancel status", "run", "operation", "socket" or "connection"; ``attributes`` is the
    class's list of those attributes.

    False for one of the first three, which are Trio's, if it lacks one of them. Without a "task" `wake`,
    `start_receive` and `start_send` leave everything to Python.

    Raises TypeError if the list is not the one that C has, or if another class lacks an attribute.
    """

def learn_run(context: object, ready: object, /) -> None:
    """Tells C Trio's ``GLOBAL_RUN_CONTEXT``, and ``READY`` of loop/checkpoints.py."""

def learn_sockets(socket: Any, fileno: Callable[[Any], int], multishot: State, /) -> None:
    """Tells C the class of Trio's sockets, the method ``fileno`` of the standard library's sockets, and the
    state of a socket that has a multishot with the kernel."""

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

def uncleared_bytes(length: int, /) -> bytes:
    """A new bytes object with arbitrary contents. The caller fills it before anybody else sees it. Any
    thread.

    Raises SystemError for a negative length, and MemoryError."""

def keep(memory: object, /) -> None:
    """Keeps an object for the rest of the process, since the kernel may still use its memory. Cannot fail."""
