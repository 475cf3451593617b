"""native/python: what a busy program's tasks do without a line of Python for each."""

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
"""Of a tick: with more, one system call for all their sends costs less than one for each."""

def learn(name: str, kind: type[Any], slots: tuple[str, ...], /) -> bool:
    """Tells the others, before any is called that works on it, which class is the "task", the "run",
    the "operation", the "socket" or the "connection", and which of its slots they use.

    False for a "task" that has other attributes than we know. Then `wake`, `start_receive` and
    `start_send` leave everything to Python.

    Raises TypeError if the slots are not those that C uses, or one of our own classes has not got them.
    """

def learn_run(context: object, ready: object, /) -> None:
    """Tells them Trio's run context, and the answer that wakes a task."""

def learn_sockets(socket: Any, fileno: Callable[[Any], int], multishot: State, /) -> None:
    """Tells them the class of Trio's sockets, the method ``fileno`` of the standard library's, and the
    state of a socket whose receive is a multishot."""

def read_slots() -> dict[str, tuple[str, ...]]:
    """The slots that C uses of each class, by the names that `learn` takes."""

def capsule_of(core: Buffer, /) -> object:
    """The core whose memory this is, as `Run.capsule`.

    Raises ValueError if it is not a core that was opened."""

def watch_queue(run: Run, /) -> None:
    """Has the core do what `check_queued` does wherever it enters the kernel with something that
    was not looked at. The run has to outlive its ring."""

def check_queued(run: Run, /) -> None:
    """Looks at all that is queued: what was submitted for a socket that has another descriptor by
    now, or none, will be answered EBADF."""

def is_current(socket: RunSocket, /) -> bool:
    """Whether a socket still has the descriptor that it has in its run."""

def learn_methods(recv: Callable[..., Any], send: Callable[..., Any], /) -> None:
    """Once, before `start_receive` and `start_send`: our methods of Trio's sockets. A stream whose
    socket has others, since somebody has wrapped them, is for Python."""

def wake(run: Run, count: int, append: Callable[[Task], object] | None, /) -> None:
    """Processes the first ``count`` events of a tick: wakes tasks, each ``append``-ed to the runner's
    queue, and calls the handler of its kind for each event that it leaves. Without ``append`` it
    leaves all.

    An event that was processed, or given to its handler, becomes one of TU_NOTHING: after an
    exception the call may be repeated, for the rest.

    Raises AssertionError for a task that is awake already, as Trio's `reschedule` does.
    """

def sleeps_on(task: Task, waker: object, /) -> bool:
    """Whether the task sleeps, with a method of ``waker`` to abort that. Not if an exception has come
    between its submission and its sleep."""

def start_receive(stream: trio.SocketStream, length: object, /) -> Connection | None:
    """The calling task is the connection's, and has to sleep on its ``message``: the answer will be
    up to ``length`` bytes. None: nothing was done, and it is for Python."""

def start_send(stream: trio.SocketStream, data: object, /) -> Connection | None:
    """All of ``data`` are submitted, the connection's sender and the stream's conflict detector are
    the calling task's, and it has to sleep on the sender's ``message``. None: as above."""

def uncleared_bytes(length: int, /) -> bytes:
    """Bytes whose contents are whatever was there, to be filled before anybody else sees them.

    Raises SystemError for a negative length, and MemoryError."""

def keep(memory: object, /) -> None:
    """Never frees it, since the kernel may still use it. Cannot fail."""
