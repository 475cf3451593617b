"""What a run knows of a stream socket: what it has received, and what it is sending.

The kernel puts data into one of the run's provided buffers when it comes, so that a
connection that waits has none; the tick that learns of it copies the data out, and
the next tick gives the buffer back. sockets/run_socket.py has the states.

- The first receive is one of ONCE, and so are all of a socket that others may read from
  (`take_nothing_ahead`) and of Unix sockets, since descriptors may come with their data. They
  take nothing that no task waits for. From the second one on receives are multishot.
- What a multishot brings while nobody waits is *read ahead*, and whoever receives next
  from the socket, by whatever call of Trio's, gets it first. At ``read_ahead`` bytes the
  multishot is stopped, and TCP's back-pressure reaches the sender. From then on receives take
  what waits in the socket, without the ring, until nothing does.
- The end of the stream, or an error, comes after the data, and is told once, as the
  kernel does: whoever asks again asks the kernel again.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final

import trio
from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from .._tasks import is_current, learn
from ..loop.checkpoints import READY, pass_cancel_point, sleep_for_data, yield_shielded
from ..loop.trio_internals import context
from ..loop.waiter import Stopping
from ..ring.native import lib
from .run_socket import ARMED, CANCELLING, IDLE, ONCE, SHORT, STOPPING, RunSocket
from .sender import Sender

if TYPE_CHECKING:
    from .receive_buffers import ReceiveBuffers
    from .run_socket import Kind

_receive = lib.tu_receive

# Out of buffers, which come back with the next tick; stopped; what a kernel answers that
# would have to wait for something else.
_TRANSIENT: Final = frozenset({-errno.ENOBUFS, -errno.ECANCELED, -errno.EAGAIN, -errno.EINTR})


_RESET: Final = struct.pack("ii", 1, 0)
# Bytes that a piece of what was read ahead takes beside its own: a peer may send only small ones.
_PIECE: Final = 64
# An empty deque is larger than all else of an idle connection. Nothing is ever put into this.
_NOTHING: Final[deque[bytes | memoryview]] = deque(maxlen=0)


class Connection(RunSocket):
    """A stream socket, in one run."""

    __slots__ = (
        "_ahead",
        "_bulk",
        "_end",
        "_warm",
        "ahead",
        "buffers",
        "length",
        "part_sender",
        "runner",
        "sender",
    )

    USED_BY_C: ClassVar[tuple[str, ...]] = ("ahead", "length", "runner", "sender")

    def __init__(
        self,
        kind: Kind[Connection],
        buffers: ReceiveBuffers,
        runner: object,
        sock: socket.socket,
        *,
        takes_nothing_ahead: bool,
    ) -> None:
        super().__init__(kind, sock, takes_nothing_ahead=takes_nothing_ahead)
        self.buffers = buffers
        self.runner = runner
        self.sender: Sender | None = None
        """Of `trio.SocketStream.send_all`."""
        self.part_sender: Sender | None = None
        """Of a socket's ``send``."""
        self.ahead = 0
        """Bytes that were read ahead."""
        self._ahead: deque[bytes | memoryview] = _NOTHING
        self._end: int | None = None
        """0 or -errno, to be told after what was read ahead."""
        self._bulk = False
        """More came than may be read ahead: there may still be something that waits in the socket."""
        self.length = 0
        """What the task that waits wants at most, in bytes."""
        self._warm = False
        """Something was received: the next receive is multishot, unless nothing may be taken ahead."""

    # For the tasks of the run

    @enable_ki_protection
    async def receive(self, length: int) -> bytes:
        """Up to ``length`` > 0 bytes; empty at the end of the stream. A checkpoint.

        Raises OSError, trio.BusyResourceError and trio.ClosedResourceError.
        """
        if self.closed or not is_current(self):  # since the call that this coroutine is of
            if pass_cancel_point(context.task):
                await checkpoint_if_cancelled()
            await yield_shielded()
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if self.ahead or self._end is not None:
            if pass_cancel_point(context.task):
                await checkpoint_if_cancelled()
            try:
                return self.take(length) if self.ahead else self.take_end()
            finally:
                if not (self.run.budget and self.run.spend()):
                    await yield_shielded()
        if self.fd in self.run.readers or (self.waiter is not None and self.is_waited_for()):
            raise trio.BusyResourceError("another task is already reading / writing this fd")
        self.length = length
        if self.state is IDLE:
            if self._bulk:
                data = await self._receive_at_once(length)
                if data is not None:
                    return data
            self._arm()
        self.waiter = context.task
        data = await sleep_for_data(self.message)
        if data is None:
            return self.take_end()
        return data

    async def _receive_at_once(self, length: int) -> bytes | None:
        """What waits in the socket: a copy less than by way of a buffer. None: nothing does."""
        sock = self.sock()
        if sock is None:
            return None
        if pass_cancel_point(context.task):
            await checkpoint_if_cancelled()
        try:
            data = sock.recv(length)
        except BlockingIOError:
            self._bulk = False
            return None
        except OSError:
            await yield_shielded()
            raise
        if not (self.run.budget and self.run.spend()):
            await yield_shielded()
        return data

    def take(self, length: int) -> bytes:
        """Up to ``length`` bytes of what was read ahead."""
        ahead = self._ahead
        first = ahead.popleft()
        left = length - len(first)
        if left >= 0 and not ahead:
            self.ahead = 0
            return bytes(first)
        parts = [first]
        while ahead and left >= len(ahead[0]):
            parts.append(ahead.popleft())
            left -= len(parts[-1])
        data = parts[0] if left < 0 or len(parts) == 1 else b"".join(parts)
        self.ahead -= len(data)
        if left < 0:  # of the first piece; it is not copied again for each small receive
            self._keep(memoryview(data)[length:], first=True)
            return bytes(data[:length])
        return bytes(data)

    def take_end(self) -> bytes:
        """Empty for the end of the stream, or raises the error that ended it."""
        end, self._end = self._end, None
        if end:
            raise OSError(-end, os.strerror(-end))
        return b""

    def reason(self, error: OSError) -> OSError:
        """The error that a send is to be told. A multishot may have heard of a reset before the send
        did, which is told that the pipe is broken then."""
        if error.errno != errno.EPIPE or not self._end:
            return error
        end, self._end = self._end, None
        return OSError(-end, os.strerror(-end))

    def take_error(self) -> int:
        """The errno that a receive would be told; 0 if the kernel is to be asked."""
        self.pause()
        if not self._end:
            return 0
        end, self._end = self._end, None
        return -end

    def peek(self, length: int) -> bytes:
        """What was read ahead, and what waits behind it in the socket; it all stays where it is."""
        data = b"".join(self._ahead)
        sock = self.sock()
        if len(data) < length and self._end is None and sock is not None:
            with suppress(OSError):  # nothing is there, or a receive will be told what is wrong
                data += sock.recv(length - len(data), socket.MSG_PEEK)
        return data[:length]

    def new_sender(self) -> Sender:
        self.sender = Sender(self.run)
        return self.sender

    def new_part_sender(self) -> Sender:
        self.part_sender = Sender(self.run)
        return self.part_sender

    def submit_sends(self) -> None:
        """Those of other tasks, before something that goes past the ring."""
        if self.runner is not getattr(context, "runner", None):  # nor is the ring ours
            return
        if any(sender.is_busy for sender in self._senders):
            lib.tu_flush(self.run.core)

    @property
    def is_sending(self) -> bool:
        """Whether a task is in `trio.SocketStream.send_all`."""
        return self.sender is not None and self.sender.is_busy

    def is_sent_to(self) -> bool:
        sender = self.sender
        while sender is not None and sender.is_busy and isinstance(sender.task, Stopping):
            sender.stop()
            self.run.raise_on_error(lib.tu_flush(self.run.core))
            self.run.reap()
        return self.is_sending

    @property
    def readable(self) -> bool:
        return bool(self._ahead) or self._end is not None

    def close(self) -> bool:
        """What was read ahead is dropped, as by the kernel; what other tasks have sent is not."""
        self.submit_sends()
        sock = self.sock()
        if self.ahead and sock is not None and sock.fileno() == self.fd and not self.run.closed:
            # The kernel resets a connection that is closed with data unread, and so have we to;
            # but not a forked child, whose parent has it too.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._ahead = _NOTHING
        self._end = None
        self.ahead = 0
        flush = super().close()
        for sender in self._senders:
            flush |= sender.is_busy and sender.stop()
        self.let_go()
        return flush

    def let_go(self) -> None:
        super().let_go()
        for sender in self._senders:
            sender.message = None
        self.sender = self.part_sender = None

    def end_run(self) -> None:
        # What comes is for the next run that has this socket.
        self.waiter = None
        if self.state is ARMED:
            self._stop(STOPPING)
        elif self.state is ONCE:
            self._stop(CANCELLING)

    def inherit(self, earlier: Connection) -> None:
        """What the same socket's connection of an earlier run had read ahead."""
        self._ahead, self.ahead, self._end = earlier._ahead, earlier.ahead, earlier._end

    # For the run, when it processes events

    def complete(self, result: int, *, more: bool, buffer: int) -> None:
        if result > 0:
            self.deliver(self.buffers.data(buffer, result))
        if not more:
            self.finish(result)

    def deliver(self, data: bytes) -> None:
        """Gives the task that waits as much as it wants; the rest is read ahead."""
        if self.waiter is None:
            self.keep(data)
            return
        if len(data) > self.length:
            self.keep(memoryview(data)[self.length :])
            data = data[: self.length]
        self._wake(data)

    def keep(self, data: bytes | memoryview) -> None:
        """Nobody waits for ``data``."""
        if self.closed:
            return
        run = self.run
        self._keep(data)
        self.buffers.bytes_read_ahead += len(data)
        if self._is_full:
            self._bulk = True
            run.unsettled.append(self)
        elif self.fd in run.readers:
            run.unsettled.append(self)

    def finish(self, result: int) -> None:
        """Takes in the last completion of a receive; its data are the task's, or kept."""
        self._has_ended()
        if self.closed:
            return
        if result > 0:
            self._warm = True
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
        if result == -errno.ENOBUFS:
            self.state = SHORT
            self.buffers.wait_for_one(self)
        else:
            self.run.unsettled.append(self)

    def _keep(self, data: bytes | memoryview, *, first: bool = False) -> None:
        if self._ahead is _NOTHING:
            self._ahead = deque()
        if first:
            self._ahead.appendleft(data)
        else:
            self._ahead.append(data)
        self.ahead += len(data)

    @property
    def _senders(self) -> list[Sender]:
        return [sender for sender in (self.sender, self.part_sender) if sender is not None]

    @property
    def _is_full(self) -> bool:
        return self.ahead + _PIECE * len(self._ahead) >= self.buffers.read_ahead

    @property
    def _may_be_multishot(self) -> bool:
        return self._warm and not self.takes_nothing_ahead

    def _submit(self, *, multishot: bool) -> int:
        return _receive(self.run.core, self.fd, 0 if multishot else self.length)


learn("connection", Connection, Connection.USED_BY_C)
