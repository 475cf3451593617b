"""The stream sockets of a run: their provided buffers, and what they may do without yielding.

A connection is made for a socket when a task first receives or sends with it, and is
known by its descriptor until that is closed. A socket that is collected, or whose
descriptor turns up in another socket's hands, takes its connection along: a receive that
is pending would keep it open.
"""

from __future__ import annotations

import _socket
import errno
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from .._tasks import is_current
from ..loop import trio_internals
from ..ring import locked_memory
from ..ring.native import ffi, lib
from .acceptor import Acceptors
from .connection import Connection
from .run_socket import CLOSED, SHORT

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.lowlevel import Task

    from ..files.write_behind import Flight
    from ..loop.manager import UringManager
    from ..ring.options import RingOptions
    from .run_socket import Armed, SocketReference

_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_UNIX})
# Those of `socket.socket` make an enumeration's member each time, which takes ten times as long.
type_of: Final[Callable[[socket.socket], int]] = _socket.socket.type.__get__
family_of: Final[Callable[[socket.socket], int]] = _socket.socket.family.__get__


class Connections:
    __slots__ = (
        "_count",
        "_left",
        "_spender",
        "_spent_at",
        "acceptors",
        "acceptors_by_slot",
        "budget",
        "buffer_shortages",
        "buffer_size",
        "by_fd",
        "bytes_read_ahead",
        "core",
        "core_at",
        "manager",
        "memory",
        "multishot_terminations",
        "operations",
        "read_ahead",
        "readers",
        "receivers",
        "refused",
        "short",
        "tls",
        "unsettled",
        "usable",
        "woken",
        "writers",
    )

    def __init__(self, manager: UringManager, options: RingOptions, *, usable: bool, tls: bool) -> None:
        self.manager = manager
        self.core = manager.core
        self.core_at = int(ffi.cast("uintptr_t", manager.core))
        self.operations = manager.operations
        self.readers = manager.readers
        self.writers = manager.writers
        """Descriptors that tasks are in `wait_readable` and `wait_writable` for."""
        self.woken = 0
        """Events of the last tick."""
        self.usable = usable
        """Whether sockets are to work by completions at all."""
        self.tls = tls
        """Whether `trio.SSLStream` is to be sockets/tls.py's."""
        self.by_fd: dict[int, Connection] = {}
        self.acceptors = Acceptors(self, options.accept_ahead)
        self.acceptors_by_slot = self.acceptors.by_slot
        self.receivers: dict[int, Connection] = {}
        """By the slots of their receives."""
        self.unsettled: list[Armed | Flight] = []
        """To be looked at when all events of a tick are processed."""
        self.short: deque[Connection] = deque()
        """Those that found no buffer left, in their order."""
        self.buffer_size = options.buffer_size
        self.memory: Any = b""
        """All buffers; empty before the first connection. A part of cffi's buffer is bytes."""
        self.refused = False
        """There is no locked memory for the buffers: stream sockets work by readiness."""
        self.read_ahead = options.read_ahead
        self.budget = options.checkpoint_budget
        self.bytes_read_ahead = 0
        self.multishot_terminations = 0
        self.buffer_shortages = 0
        self._count = options.buffers
        self._spender: Task | None = None
        self._spent_at = -1
        self._left = 0

    def connection_of(self, trio_socket: Any) -> Connection | None:
        """The connection of a socket of Trio's own class, made if need be. None for what
        receives by readiness: other kinds of sockets, and closed ones."""
        sock: socket.socket = trio_socket._sock
        fd = sock.fileno()
        if fd < 0:
            return None
        connection = self.by_fd.get(fd)
        if connection is not None and not connection.is_of(sock):
            self.drop(connection)
            connection = None
        if connection is None:
            if hasattr(trio_socket, "_uring_excluded") or self.excludes(trio_socket):
                return None
            if not self.memory and not self._provide():
                return None
            runner = trio_internals.context.runner
            exact = (
                hasattr(trio_socket, "_uring_exact")
                or family_of(sock) == socket.AF_UNIX
                or sock.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE) != 0
            )
            connection = self.by_fd[fd] = Connection(self, runner, sock, takes_nothing_ahead=exact)
            earlier: Connection | None = getattr(trio_socket, "_uring", None)
            if earlier is not None and earlier.sock() is sock:
                connection.inherit(earlier)
        trio_socket._uring = connection
        return connection

    def known(self, fd: int) -> list[Armed]:
        """The connection and the acceptor of the socket that has this descriptor now. Those of one
        that had it before, and was closed without our being told, are dropped."""
        known = [one for one in (self.by_fd.get(fd), self.acceptors.by_fd.get(fd)) if one is not None]
        for one in known:
            if not is_current(one):
                one.drop()
        return [one for one in known if not one.closed]

    def excludes(self, trio_socket: Any) -> bool:
        """Whether it is of a kind that has no connection, which the socket remembers."""
        sock: socket.socket = trio_socket._sock
        if type_of(sock) == socket.SOCK_STREAM and family_of(sock) in _FAMILIES:
            return False
        trio_socket._uring_excluded = True
        return True

    def drop(self, connection: Connection) -> None:
        """Afterwards the ring holds no reference to its file."""
        if self.by_fd.get(connection.fd) is connection:
            del self.by_fd[connection.fd]
        if connection.close():
            lib.tu_flush(self.core)

    def forsake(self, reference: SocketReference) -> None:
        """The socket was collected: on any thread, at any moment."""
        for known in (self.by_fd.get(reference.fd), self.acceptors.by_fd.get(reference.fd)):
            if known is not None and known.sock is reference:
                known.forsake()

    def received(self, length: int, detail: int) -> bytes:
        """A copy of what is in the buffer that the ``detail`` of an event names. The buffer goes back with
        the tick: so where there was no memory for the copy, it is made once more."""
        try:
            return self._copied(length, detail)
        except MemoryError:
            return self._copied(length, detail)

    def _copied(self, length: int, detail: int) -> bytes:
        start = ((detail >> 1) - 1) * self.buffer_size
        data: bytes = self.memory[start : start + length]
        return data

    def notify_closing(self, fd: int) -> None:
        """Afterwards the ring holds no reference to the file."""
        connection = self.by_fd.get(fd)
        if connection is not None:
            self.drop(connection)
        acceptor = self.acceptors.by_fd.get(fd)
        if acceptor is not None:
            self.acceptors.drop(acceptor)

    def tasks_receiving(self) -> int:
        """Accepting ones too."""
        receiving = sum(connection.waiter is not None for connection in list(self.by_fd.values()))
        return receiving + self.acceptors.tasks_accepting()

    def tasks_sending(self) -> int:
        return sum(connection.is_sending for connection in list(self.by_fd.values()))

    def settle(self) -> None:
        """When all events are processed."""
        for _ in range(len(self.unsettled)):
            self.unsettled.pop(0).settle()
        if self.short:
            self._arm_the_short()

    def _arm_the_short(self) -> None:
        """As many as there will be buffers for: the next tick gives all back. Whoever is left has a
        turn then, for which the loop is not to sleep."""
        for _ in range(min(self._count, len(self.short))):
            connection = self.short.popleft()
            if connection.state is SHORT:
                connection.arm_for_waiter()
        if self.short:
            self.manager.force_wakeup()

    # Yielding

    def may_go_on(self) -> bool:
        """Spends one call of the budget, which is whole again when the task has yielded."""
        task: Task = trio_internals.context.task
        if task is not self._spender or task._schedule_points != self._spent_at:
            self._spender, self._spent_at = task, task._schedule_points
            self._left = self.budget
        self._left -= 1
        return self._left >= 0

    def _provide(self) -> bool:
        """Has the kernel know of the buffers; False: it has no locked memory for that.

        Raises:
          OSError: there are no addresses for them.
        """
        if self.refused:
            return False
        size = self._count * self.buffer_size
        result, _ = locked_memory.patiently(
            lambda: lib.tu_provide_buffers(self.core, self._count, self.buffer_size)
        )
        if result == -errno.ENOMEM:
            if not locked_memory.is_short_of(size):
                raise OSError(errno.ENOMEM, f"No memory for the {size} bytes of RingOptions.buffers")
            self.refused = True
            locked_memory.warn_of_buffers(self._count)
            return False
        self.manager.checked(result)
        self.memory = ffi.buffer(lib.tu_buffer_memory(self.core), size)
        return True

    def end(self) -> None:
        """The run's last tick is over: what is received meanwhile is kept for another run."""
        self.acceptors.end()
        for connection in list(self.receivers.values()):
            connection.end_run()

    def close(self) -> None:
        """The run ends, and with it the memory of the buffers."""
        self.memory = b""
        for connection in self.by_fd.values():
            connection.state = CLOSED
            connection.let_go()
        self.by_fd.clear()
        self.receivers.clear()
        self.short.clear()
        self._spender = None
