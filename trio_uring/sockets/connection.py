"""What a run knows of a stream socket: what it has received, and what it is sending.

The kernel puts data into one of the run's provided buffers when they come, so that a connection
that waits holds none. The tick that learns of them copies the data out, and the next tick gives the
buffer back. sockets/states.py has the states of a receive.

- The first receive of a socket is tried at once, since who connects has often sent already; else it completes
  once. So does every receive of a socket that others may
  read from (`take_nothing_ahead`), and of a Unix socket, since descriptors may come with its data.
  A receive that completes once takes nothing that no task waits for. All others are multishot.
- What a multishot brings while no task waits is *read ahead*. Whoever receives next from the socket,
  by whatever call of Trio's, gets it first. At `RingOptions.read_ahead` bytes the multishot is stopped,
  and TCP's back-pressure reaches the sender. Then receives take what waits in the socket itself,
  without the ring, until nothing is left there.
- By the tick that stops it, a multishot may have brought many times as much: up to 32 buffers at a time. So
  it is given a limit of its own, from Linux 6.17 on. Nothing is submitted while anything is read ahead.
- The end of the stream, or an error, comes after the data, and is told once, as the kernel does:
  whoever asks again asks the kernel again.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final

from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from .._tasks import is_current, learn
from ..loop.checkpoints import READY, pass_cancel_point, sleep_for_data, yield_shielded
from ..loop.trio_internals import context
from ..loop.waiter import Stopping, busy
from ..ring.native import lib
from .below import TAKEN
from .run_socket import RunSocket, reset_at_close
from .sender import Sender
from .states import CANCELLING, IDLE, MULTISHOT, NO_BUFFER, NOTHING_SUBMITTED, ONCE, STOPPING

if TYPE_CHECKING:
    from .receive_buffers import ReceiveBuffers
    from .run_socket import SocketGroup

_receive = lib.tu_receive
_stdlib_recv: Final = TAKEN["recv"]

# After these a receive is submitted again: there was no buffer left, it was stopped, or the kernel
# would have had to wait for something else than data.
_TRANSIENT: Final = frozenset({-errno.ENOBUFS, -errno.ECANCELED, -errno.EAGAIN, -errno.EINTR})

# The memory, in bytes, that each piece of what was read ahead takes beside its data: the peer may send
# only small pieces.
_PIECE: Final = 64
# All connections that have nothing ahead share this deque, which stays empty: one of its own would be
# larger than all else of an idle connection.
_NOTHING: Final[deque[bytes | memoryview]] = deque(maxlen=0)


class Connection(RunSocket):
    """A stream socket, as one run knows it."""

    __slots__ = (
        "_end",
        "_has_received",
        "_pieces",
        "_tries_socket_first",
        "buffers",
        "bytes_ahead",
        "has_sent",
        "length",
        "part_sender",
        "runner",
        "sender",
    )

    USED_BY_C: ClassVar[tuple[str, ...]] = ("bytes_ahead", "length", "runner", "sender")

    def __init__(
        self,
        group: SocketGroup[Connection],
        buffers: ReceiveBuffers,
        runner: object,
        sock: socket.socket,
        *,
        takes_nothing_ahead: bool,
    ) -> None:
        super().__init__(group, sock, takes_nothing_ahead=takes_nothing_ahead)
        self.buffers = buffers
        self.runner = runner
        self.sender: Sender | None = None
        """The one by which `trio.SocketStream.send_all` sends; None before its first call."""
        self.has_sent = False
        """Whether `trio.SocketStream.send_all` has sent by it. The first send is made at once: many
        connections have no other, and need no sender."""
        self.part_sender: Sender | None = None
        """The one by which a socket's ``send`` sends, which may send only a part of its data."""
        self.bytes_ahead = 0
        """The bytes in `_pieces`."""
        self._pieces: deque[bytes | memoryview] = _NOTHING
        """What was read ahead, as it came."""
        self._end: int | None = None
        """How the stream has ended, to be told after what was read ahead: 0, or -errno."""
        self._tries_socket_first = False
        """Whether data may wait in the socket, since the multishot has ended, or was stopped, with as much as
        may be read ahead."""
        self.length = 0
        """How many bytes the task that waits wants at most."""
        self._has_received = False
        """Whether a receive has brought data: from then on they are multishot."""

    # For tasks of the run

    @enable_ki_protection
    async def receive(self, length: int, _caller: object) -> bytes:
        """Returns up to ``length`` > 0 bytes; none at the end of the stream. This is a checkpoint.

        Meanwhile the coroutine keeps its caller, a socket of Trio's: on epoll a call does, even if nobody
        else has the socket any more.

        Raises OSError, trio.BusyResourceError and trio.ClosedResourceError.
        """
        if self.waiter is not None:
            self.finish()
        if self.closed or not is_current(self):  # closed between the call and the first step of its coroutine
            await checkpoint_if_cancelled()
            await yield_shielded()
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if self.bytes_ahead or self._end is not None:
            if pass_cancel_point(context.task):
                await checkpoint_if_cancelled()
            try:
                return self.take(length) if self.bytes_ahead else self.take_end()
            finally:
                if not (self.run.budget and self.run.spend()):
                    await yield_shielded()
        is_taken = self.waiter is not None or self.fd in self.run.readers
        if self.state is IDLE and (is_taken or self._tries_socket_first or not self._has_received):
            data = await self._receive_at_once(length)
            if data is not None:
                return data
        if is_taken:
            await checkpoint_if_cancelled()
            raise busy()
        self.length = length
        if self.state is IDLE:
            self.submit()
        self.waiter = context.task
        data = await sleep_for_data(self.message)
        if data is None:
            return self.take_end()
        return data

    async def _receive_at_once(self, length: int) -> bytes | None:
        """Returns what waits in the socket itself, without a copy from a buffer. None if nothing does."""
        sock = self.sock()
        if sock is None:
            return None
        if pass_cancel_point(context.task):
            await checkpoint_if_cancelled()
        try:
            data: bytes = _stdlib_recv(sock, length)
        except BlockingIOError:
            self._tries_socket_first = False
            return None
        except OSError:
            await yield_shielded()
            raise
        self._tries_socket_first = len(data) == length
        self._has_received = True
        if not (self.run.budget and self.run.spend()):
            await yield_shielded()
        return data

    def take(self, length: int) -> bytes:
        """Takes up to ``length`` bytes of what was read ahead."""
        pieces = self._pieces
        first = pieces.popleft()
        left = length - len(first)
        if left >= 0 and not pieces:
            self.bytes_ahead = 0
            return bytes(first)
        parts = [first]
        while pieces and left >= len(pieces[0]):
            parts.append(pieces.popleft())
            left -= len(parts[-1])
        data = parts[0] if left < 0 or len(parts) == 1 else b"".join(parts)
        self.bytes_ahead -= len(data)
        if left < 0:  # the rest of the first piece: a view, which is not copied for each small receive
            self._keep(memoryview(data)[length:], first=True)
            return bytes(data[:length])
        return bytes(data)

    def take_end(self) -> bytes:
        """Takes the end of the stream, as no bytes, or raises the error that has ended it. If the socket was
        closed since the caller was woken, nobody knows any more how it has ended."""
        end, self._end = self._end, None
        if end is None and self.closed:
            end = -errno.EBADF
        if end:
            raise OSError(-end, os.strerror(-end))
        return b""

    def take_send_error(self, error: OSError) -> OSError:
        # A multishot may have heard of a reset before the send. Then the send is told EPIPE, where
        # on epoll it is told of the reset.
        if error.errno != errno.EPIPE or not self._end:
            return error
        end, self._end = self._end, None
        return OSError(-end, os.strerror(-end))

    def take_pending_error(self) -> int:
        """Takes the error that a receive would raise next, as its errno. 0 if the kernel has to be asked."""
        self.pause_multishot()
        if not self._end:
            return 0
        end, self._end = self._end, None
        return -end

    def peek(self, length: int) -> bytes:
        """Returns up to ``length`` bytes of what was read ahead, and what waits behind it in the socket. All
        of it stays where it is."""
        data = b"".join(self._pieces)
        sock = self.sock()
        if len(data) < length and self._end is None and sock is not None:
            with suppress(OSError):  # nothing is there; or an error, which a receive will meet
                data += _stdlib_recv(sock, length - len(data), socket.MSG_PEEK)
        return data[:length]

    def new_sender(self) -> Sender:
        """Makes `sender`."""
        self.sender = Sender(self.run)
        return self.sender

    def new_part_sender(self) -> Sender:
        """Makes `part_sender`."""
        self.part_sender = Sender(self.run)
        return self.part_sender

    def submit_sends(self) -> None:
        """Has the kernel get the sends that other tasks have queued, before the caller sends or closes
        without the ring. Does nothing outside of this run, whose ring nobody else may enter."""
        if self.runner is not getattr(context, "runner", None):
            return
        for sender in self._senders:
            if sender.is_busy:
                lib.tu_flush(self.run.core)
                return

    @property
    def is_sending(self) -> bool:
        return self.sender is not None and self.sender.is_busy

    def finish(self) -> None:
        """Besides, a receive that finds at once what it waits for. It is to take no more than that, since who
        has asked may read the socket itself next."""
        super().finish()
        if self.waiter is not None and self.state not in NOTHING_SUBMITTED:
            self.take_nothing_ahead()
            self.run.look()

    def finish_send(self) -> None:
        sender = self.sender
        if sender is not None and sender.is_busy:
            self.run.look()
        while sender is not None and sender.is_busy and isinstance(sender.task, Stopping):
            sender.stop()
            self.run.look()

    @property
    def taken_ahead(self) -> str:
        if not self.bytes_ahead:
            return ""
        return (
            f"{self.bytes_ahead} bytes were read ahead from this socket, which its new owner would miss; "
            f"receive them first, or call fileno() before you receive for the second time"
        )

    @property
    def readable(self) -> bool:
        return bool(self._pieces) or self._end is not None

    def close(self) -> bool:
        # What was read ahead is dropped, as by the kernel. What other tasks have sent is not.
        senders = self._senders
        if senders:
            self.submit_sends()
        if self.bytes_ahead:
            sock = self.sock()
            if sock is not None and sock.fileno() == self.fd and not self.run.closed:
                # The kernel resets a connection that is closed with unread data, and so do we. A forked
                # child does not: its parent has the connection too.
                with suppress(OSError):  # the number was closed below, and is no socket's any more
                    reset_at_close(sock)
            self.bytes_ahead = 0
        self._pieces = _NOTHING
        self._end = None
        flush = super().close()
        for sender in senders:
            flush |= sender.is_busy and sender.stop()
        self.break_cycles()
        return flush

    def break_cycles(self) -> None:
        super().break_cycles()
        for sender in self._senders:
            sender.message = None
        self.sender = self.part_sender = None

    def end_run(self) -> None:
        # What still comes is for the next run that has this socket.
        if self.state is MULTISHOT:
            self._stop(STOPPING)
        elif self.state is ONCE:
            self._stop(CANCELLING)

    def inherit(self, earlier: Connection) -> None:
        """Takes over what the connection of the same socket in an earlier run has read ahead."""
        self._pieces, self.bytes_ahead, self._end = earlier._pieces, earlier.bytes_ahead, earlier._end

    # For the run, while it processes events

    def complete(self, result: int, *, more: bool, buffer: int) -> None:
        try:
            if result > 0:
                self._deliver(self.buffers.data(buffer, result))
        finally:
            if not more:
                self._finish(result)

    def _deliver(self, data: bytes) -> None:
        """Gives the task that waits as much as it wants. The rest is read ahead."""
        if self.waiter is None:
            self._read_ahead(data)
            return
        if len(data) > self.length:
            self._read_ahead(memoryview(data)[self.length :])
            data = data[: self.length]
        self._wake(data)

    def _read_ahead(self, data: bytes | memoryview) -> None:
        """Keeps data that no task waits for, unless the socket is closed."""
        if self.closed:
            return
        run = self.run
        self._keep(data)
        self.buffers.bytes_read_ahead += len(data)
        if self._is_full:
            self._tries_socket_first = True
            run.unsettled.append(self)
        elif self.fd in run.readers:
            run.unsettled.append(self)

    def _finish(self, result: int) -> None:
        """Processes the result of the last completion, whose data are delivered already."""
        was_multishot = self.state is MULTISHOT
        self._has_ended()
        if self.closed:
            return
        if result > 0:
            self._has_received = True
            self._tries_socket_first = was_multishot
        elif result not in _TRANSIENT:
            self._end = result
            if self.waiter is not None:
                self._wake(READY)
            else:
                self.run.unsettled.append(self)
        elif isinstance(self.waiter, Stopping):
            self._wake(self.waiter.answer())
        elif self.waiter is not None:
            self._repeat(result)

    def _repeat(self, result: int) -> None:
        """Has the receive submitted again, for the task that waits still: when all events are processed,
        or when there are buffers."""
        if result == -errno.ENOBUFS:
            self.state = NO_BUFFER
            self.buffers.wait_for_buffer(self)
        else:
            self.run.unsettled.append(self)

    def _keep(self, data: bytes | memoryview, *, first: bool = False) -> None:
        """Puts data behind all that was read ahead, or ``first`` before it."""
        if self._pieces is _NOTHING:
            self._pieces = deque()
        if first:
            self._pieces.appendleft(data)
        else:
            self._pieces.append(data)
        self.bytes_ahead += len(data)

    @property
    def _senders(self) -> list[Sender]:
        return [sender for sender in (self.sender, self.part_sender) if sender is not None]

    @property
    def _is_full(self) -> bool:
        return self.bytes_ahead + _PIECE * len(self._pieces) >= self.buffers.most_ahead

    @property
    def _may_be_multishot(self) -> bool:
        return self._has_received and not self.takes_nothing_ahead

    def _submit_to_core(self, *, multishot: bool) -> int:
        return _receive(
            self.run.core, self.fd, 0 if multishot else self.length, self.buffers.most_of_multishot
        )


learn("connection", Connection, Connection.USED_BY_C)
