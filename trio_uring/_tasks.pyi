"""native/python: what a busy program's tasks do without a line of Python for each."""

from collections.abc import Callable
from typing import Any

import trio
from trio.lowlevel import Task
from typing_extensions import Buffer

from .loop.operation import Operation
from .sockets.connection import Connection
from .sockets.connections import Connections
from .sockets.run_socket import Armed, State

FEW_WOKEN: int
"""By a tick: with more, one system call for all their sends costs less than one for each."""

def learn(
    task: type[Task],
    operation: type[Operation],
    armed: type[Any],
    connection: type[Connection],
    run: type[Connections],
    socket: Any,
    fileno: Callable[[Any], int],
    context: object,
    multishot: State,
    send: int,
    cancel: int,
    /,
) -> bool:
    """Tells the others, once and before any is called, what they work on: classes, the method
    ``fileno`` of the standard library's sockets, Trio's run context, the state
    of a connection whose receive is a multishot, and where ``tu_send``
    and ``tu_cancel`` of the core are.

    False if Trio's tasks have other attributes than we know. Then `wake`, `start_receive` and
    `start_send` leave everything to Python.

    Raises TypeError if one of our own classes has not the slots that are used.
    """

def watch_queue(run: Connections, /) -> None:
    """Has the core do what `check_queued` does wherever it enters the kernel with something that
    was not looked at. The run has to outlive its ring."""

def check_queued(run: Connections, /) -> None:
    """Looks at all that is queued: what was submitted for a socket that has another descriptor by
    now, or none, will be answered EBADF."""

def is_current(armed: Armed, /) -> bool:
    """Whether the socket still has the descriptor that a connection or an acceptor is for."""

def learn_methods(recv: Callable[..., Any], send: Callable[..., Any], /) -> None:
    """Once, before `start_receive` and `start_send`: our methods of Trio's sockets. A stream whose
    socket has others, since somebody has wrapped them, is for Python."""

def wake(
    events: Buffer,
    count: int,
    memory: Buffer,
    buffer_size: int,
    waiting: tuple[dict[int, Any], dict[int, Any], dict[int, Any], dict[int, Any]],
    ready: object,
    append: Callable[[Task], object] | None,
    other: Callable[[int, int, int, int], object],
    /,
) -> None:
    """Processes the first ``count`` of a tick's ``events``: wakes tasks, each ``append``-ed to
    the runner's queue, and calls ``other`` with the fields of each event that it leaves.

    ``waiting`` has what waits for an event, by its kind and then by its key; ``memory`` the
    provided buffers, of ``buffer_size`` bytes each; ``ready`` is the answer to all but data.
    Without ``append`` all are for ``other``.

    An event that was processed, or given to ``other``, becomes one of TU_NOTHING: after an
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
