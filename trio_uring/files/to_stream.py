"""`send_file`: a file's bytes to a stream, to a socket without copying them through Python.

splice(2) moves pages between a file and a pipe, so a regular file goes by way of one:
file to pipe, then pipe to socket. Both are operations of the ring, which a worker of the
kernel's makes. Trio's sockets do not block: when the socket is full the kernel says
EAGAIN, and we wait for room as `send_all` does.

The ring looks descriptors up when the tick ends. A stream may be closed by then, and its
number be another connection's; so each splice gets a duplicate of its own.
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

# fcntl names it from Python 3.11 on.
_F_SETPIPE_SZ: Final = 1031
_PIPE: Final = 1 << 20
"""Bytes. What an unprivileged user may have (/proc/sys/fs/pipe-max-size)."""
_PIECE: Final = 1 << 16
"""Bytes that are copied at once to what is no socket."""
_NO_LIMIT: Final = (1 << 63) - 1


async def send_file(
    stream: trio.abc.SendStream,
    file: int | HasFileno,
    offset: int = 0,
    count: int | None = None,
    *,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Sends a file's bytes; returns how many, fewer than ``count`` if the file ends before.

    Args:
      stream: a `trio.SocketStream` is sent to without copying, on io_uring. To any other,
        and in a run on epoll, the bytes are copied in pieces of 64 KiB: `send_all`.
      file: a descriptor, or anything with ``fileno()``. What its object has buffered and
        not written yet is not sent; what `open_file`'s writes behind is waited for. It has to
        stay open.
      offset: where in the file to begin, in bytes. The file's own position is neither used
        nor moved; but what has no offsets, a pipe or a terminal, is read as it comes.
      count: bytes to send at most. Default: all, to the end of the file.
      progress: called with the number of bytes sent so far, after each piece. It is how to
        know after a cancellation or an error. To a socket without copying, it is what the
        kernel has accepted, exactly; else it counts the pieces that went out whole.

    Without copying, what is sent is the file's pages, by and by: data that changes after this
    has returned may still be what the peer receives.

    A regular file can be sent again from where it stopped; what was taken out of a pipe
    is lost if it had not been sent. On io_uring no thread is used; on epoll, files are
    read in Trio's threads. Linux 5.7.

    Raises:
      trio.BusyResourceError, trio.ClosedResourceError, trio.BrokenResourceError: as
        ``stream.send_all``.
      OSError: the file cannot be read; ESPIPE: an ``offset`` into what has none.
      ValueError: ``offset`` or ``count`` is negative.
    """
    if offset < 0 or (count is not None and count < 0):
        raise ValueError("offset and count must not be negative")
    sending = _Sending(file, offset, count, progress)
    if isinstance(file, AsyncFile):
        await file._settle()
        fileno_of(file)  # which raises if it was closed meanwhile
    if not sending.left:
        await trio.lowlevel.checkpoint()
    elif isinstance(stream, trio.SocketStream) and current_run() is not None:
        if not await _spliced(sending, stream):
            await _copy(sending, stream)
    else:
        await _copy(sending, stream)
    return sending.sent


class _Sending:
    """How far it has come. Bytes are taken from the file first, and then sent."""

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
        self.left = _NO_LIMIT if count is None else count
        self.sent = 0
        self._progress = progress

    def take(self, size: int) -> None:
        self.left -= size
        if self.offset is not None:
            self.offset += size

    def send(self, size: int) -> None:
        self.sent += size
        if self._progress is not None:
            self._progress(self.sent)


async def _spliced(sending: _Sending, stream: trio.SocketStream) -> bool:
    """False if the kernel cannot splice from this file; nothing was sent then."""
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
    """Bytes moved from a pipe to the socket; 0 at the pipe's end."""
    # Trio's own socket would take us for somebody who reads from its descriptor.
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
            # Either may have been the reason.
            await trio.lowlevel.wait_writable(sock)
            await trio.lowlevel.wait_readable(pipe)


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        with suppress(OSError):  # a user who has many pipes keeps a small one, which is slower
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
    if sending.offset is not None:
        return await trio.to_thread.run_sync(os.preadv, fileno_of(sending.file), [buffer], sending.offset)
    with suppress(PermissionError):  # epoll's, for a device that never blocks
        await trio.lowlevel.wait_readable(sending.file)
    return await trio.to_thread.run_sync(os.readv, fileno_of(sending.file), [buffer])
