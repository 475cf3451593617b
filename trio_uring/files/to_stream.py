"""`send_file` sends a file's bytes to a stream. To a socket it does so without copying them through Python.

splice(2) needs a pipe at one of its ends. So a regular file goes by way of a pipe: from the file to the
pipe, then from the pipe to the socket. Both are operations of the ring, which a worker thread of the kernel
makes. Trio's sockets do not block: when the socket is full the kernel says EAGAIN, and we wait for room as
`send_all` does.

The ring looks a descriptor up when the tick ends. By then the stream may be closed, and another connection
may have its number. So each splice gets a duplicate of the socket's descriptor.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import trio

from .. import lowlevel
from ..loop.current import current_run
from ..lowlevel.arguments import fileno_of
from .async_file import AsyncFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..loop.readiness import HasFileno

# The fcntl module has this name from Python 3.11 on.
_F_SETPIPE_SZ: Final = 1031
_PIPE: Final = 1 << 20
"""The pipe's size in bytes: the most that an unprivileged user may have (/proc/sys/fs/pipe-max-size)."""
_PIECE: Final = 1 << 16
"""How many bytes are copied at a time to a stream that is no socket."""
_NO_LIMIT: Final = (1 << 63) - 1


async def send_file(
    stream: trio.abc.SendStream,
    file: int | HasFileno,
    offset: int = 0,
    count: int | None = None,
    *,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Sends a file's bytes, and returns how many: fewer than ``count`` if the file ends before.

    Args:
      stream: where to send. To a `trio.SocketStream` in a run on io_uring nothing is copied. To any other
        stream, and in a run on epoll, ``send_all`` sends copies of 64 KiB.
      file: a descriptor, or anything with ``fileno()``. It has to stay open. What the file object has
        buffered and not written yet is not sent. What a file of `open_file` writes behind its calls is
        waited for.
      offset: where in the file to begin, in bytes. The file's own position is neither used nor moved. A
        file without offsets, as a pipe or a terminal, is read as it comes.
      count: how many bytes to send at most. Default: all, to the end of the file.
      progress: called after each piece with the number of bytes sent so far, so that it is known after a
        cancellation or an error. Where nothing is copied, this is exactly what the kernel has accepted.
        Otherwise it counts the pieces that were sent whole.

    Where nothing is copied, the socket sends the file's own pages. If the file changes after this has
    returned, the peer may receive the changed data.

    After a cancellation or an error, a regular file can be sent again from where it stopped. What was taken
    out of a pipe and not sent is lost. On io_uring no thread is used; on epoll, Trio's threads read files.
    Needs Linux 5.7.

    Raises:
      trio.BusyResourceError, trio.ClosedResourceError, trio.BrokenResourceError: as ``stream.send_all``.
      OSError: the file cannot be read. ESPIPE: ``offset`` is given, and the file has no offsets.
      ValueError: ``offset`` or ``count`` is negative.
    """
    if offset < 0 or (count is not None and count < 0):
        raise ValueError("offset and count must not be negative")
    sending = _Sending(file, offset, count, progress)
    if isinstance(file, AsyncFile):
        await file._settle()
        fileno_of(file)  # raises if the file was closed meanwhile
    if not sending.left:
        await trio.lowlevel.checkpoint()
    elif isinstance(stream, trio.SocketStream) and current_run() is not None:
        if not await _spliced(sending, stream):
            await _copy(sending, stream)
    else:
        await _copy(sending, stream)
    return sending.sent


class _Sending:
    """How far a call of `send_file` has come. Bytes are taken from the file first, and then sent."""

    def __init__(
        self,
        file: int | HasFileno,
        offset: int,
        count: int | None,
        progress: Callable[[int], object] | None,
    ) -> None:
        self.file = file
        self.mode = os.fstat(fileno_of(file)).st_mode
        self.has_offsets = stat.S_ISREG(self.mode) or stat.S_ISBLK(self.mode)
        if offset and not self.has_offsets:
            raise OSError(errno.ESPIPE, os.strerror(errno.ESPIPE))
        self.offset = offset if self.has_offsets else None
        """Where in the file to go on, in bytes; None if it has no offsets."""
        self.left = _NO_LIMIT if count is None else count
        """How many bytes may still be taken."""
        self.sent = 0
        """How many bytes were sent."""
        self._progress = progress

    def take(self, size: int) -> None:
        """Notes that ``size`` bytes were taken from the file."""
        self.left -= size
        if self.offset is not None:
            self.offset += size

    def send(self, size: int) -> None:
        """Notes that ``size`` bytes were sent, and reports the progress."""
        self.sent += size
        if self._progress is not None:
            self._progress(self.sent)


async def _spliced(sending: _Sending, stream: trio.SocketStream) -> bool:
    """Sends without copying. Returns False if the kernel cannot splice from this file: nothing was sent
    then."""
    if stream.socket.did_shutdown_SHUT_WR:
        raise trio.ClosedResourceError("can't send data after sending EOF")
    with stream._send_conflict_detector:
        if stat.S_ISFIFO(sending.mode):
            while sending.left:
                sent = await _splice_to(stream, sending.file, min(sending.left, _PIPE))
                if not sent:
                    break
                sending.take(sent)
                sending.send(sent)
            return True
        return sending.has_offsets and await _splice_by_pipe(sending, stream)


async def _splice_by_pipe(sending: _Sending, stream: trio.SocketStream) -> bool:
    """Sends as `_spliced` does, from a file that has offsets."""
    with _pipe() as (reader, writer):
        while sending.left:
            try:
                size = await lowlevel.splice(
                    sending.file, writer, min(sending.left, _PIPE), source_offset=sending.offset
                )
            except OSError as error:
                if error.errno == errno.EINVAL and not sending.sent:
                    return False
                raise
            if not size:
                break
            sending.take(size)
            while size:
                sent = await _splice_to(stream, reader, size)
                size -= sent
                sending.send(sent)
    return True


async def _splice_to(stream: trio.SocketStream, pipe: int | HasFileno, count: int) -> int:
    """Moves up to ``count`` bytes from a pipe to the socket. Returns how many; 0 at the end of the pipe."""
    # Not Trio's socket: whoever asks it for its descriptor counts as somebody who may read from that.
    sock: HasFileno = getattr(stream.socket, "_sock", stream.socket)
    with _as_stream_errors():
        while True:
            duplicate = os.dup(sock.fileno())
            try:
                return await lowlevel.splice(pipe, duplicate, count, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                pass
            finally:
                os.close(duplicate)
            # The socket may have been full, or the pipe empty.
            await trio.lowlevel.wait_writable(sock)
            await trio.lowlevel.wait_readable(pipe)


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        with suppress(OSError):  # if the user has many pipes, this one stays small, and is slower
            fcntl.fcntl(writer, _F_SETPIPE_SZ, _PIPE)
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


@contextmanager
def _as_stream_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EBADF, errno.ENOTSOCK):
            raise trio.ClosedResourceError("this socket was already closed") from None
        raise trio.BrokenResourceError(f"socket connection broken: {error}") from error


async def _copy(sending: _Sending, stream: trio.abc.SendStream) -> None:
    while sending.left:
        piece = bytearray(min(sending.left, _PIECE))
        size = await _read(sending, piece)
        if not size:
            break
        sending.take(size)
        del piece[size:]
        await stream.send_all(piece)
        sending.send(size)


async def _read(sending: _Sending, buffer: bytearray) -> int:
    if current_run() is not None:
        return await lowlevel.read(sending.file, buffer, sending.offset)
    if sending.offset is None:
        with suppress(PermissionError):  # from epoll, for a file or device that never blocks
            await trio.lowlevel.wait_readable(sending.file)

    def read() -> int:
        # The thread may have waited until it could start, and the file may be closed by now.
        fd = fileno_of(sending.file)
        if sending.offset is None:
            return os.readv(fd, [buffer])
        return os.preadv(fd, [buffer], sending.offset)

    return await trio.to_thread.run_sync(read)
