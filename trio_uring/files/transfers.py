"""Transfers: the single reads and writes from which the calls of all files are made.

A transfer goes one of these ways, by the kind of the file's position (files/position.py):

  position   read                              write                            pread, pwrite
  OWN        at once, then the ring, at an     the ring, at an explicit offset  pread at once, then
             explicit offset                                                    the ring
  APPENDED   as OWN                            the ring, at the file's end,     as OWN
                                               one at a time
  SHARED     read(2)                           write(2)                         as OWN, if the file
                                                                                system is measured, else
                                                                                pread(2), pwrite(2)
  STREAM     the ring, or read(2)              the ring, or write(2)            refused by the kernel

- A stream's descriptor that is non-blocking is read and written by system calls where the kernel cannot
  tell the ring not to wait: terminals, and pipes before Linux 6.4 (FMODE_NOWAIT).
- The calls with a (2) are system calls. A worker thread of Trio's makes them. In a run on epoll
  every transfer is such a call: OWN uses pread(2) and pwrite(2), APPENDED pread(2) and write(2).
- "At once" means that the calling thread reads what the page cache has (lowlevel/page_cache.py).
- The position moves when a transfer is over. So a call that raises Cancelled has not moved it, and one
  that has moved it returns its result.
- A read of a regular file returns what read(2) would: all that was asked for, but for the end of the
  file and errors. It does not stop where the page cache has only a part.
- The end of a file is where a read returns no bytes. Its size does not tell: a file may be longer than
  it says. Nor does a short read: files of /proc and /sys give short ones in the middle.
- One transfer moves at most 2 GiB less a page, as read(2) and write(2) do.
"""

from __future__ import annotations

import errno
import io
import os
from operator import index
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio
from trio.lowlevel import checkpoint_if_cancelled

from ..loop.checkpoints import yield_shielded
from ..loop.current import current_run, run_of
from ..loop.operation import HERE, MOST, failure, perform
from ..loop.trio_internals import context
from ..loop.workers import ExtraWorker
from ..lowlevel.page_cache import PART, PageCache
from ..ring.features import has_operation
from ..ring.native import ffi, lib
from ..ring.opcodes import FSYNC, FTRUNCATE, READ, WRITE
from .memory import LARGE, new_bytes, pinned
from .position import APPENDED, OWN, STREAM

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer

    from ..loop.run import Run
    from ..ring.opcodes import Opcode
    from .position import Position

R = TypeVar("R")

_from_buffer: Any = ffi.from_buffer
_read_at_once = lib.tu_read_at_once
_read_measured_at_once = lib.tu_read_measured_at_once
_LARGEST_BLOCK: Final = 1 << 20
_AGAIN: Final = (-errno.EAGAIN, -errno.EINTR)


class Transfers:
    """The transfers of one file. The text, binary and raw file on one descriptor share them. The methods
    are called by the task that has the file's turn; `pread`, `pwrite` and `sync` by any task."""

    __slots__ = ("_cache", "_ended", "position", "raw")

    def __init__(self, position: Position) -> None:
        self.position = position
        self._ended = False
        """Whether the last read has reached the end of the file. For `read_to_end`."""
        self.raw = position.raw
        self._cache = PageCache() if position.is_regular else None

    async def read_new(self, length: int) -> bytes | None:
        """Reads up to ``length`` bytes. Returns b"" at the end of the file; None if the descriptor is
        non-blocking and has nothing."""
        data = new_bytes(length)
        got = await self.read(data, length, data)
        if got is None:
            return None
        return data if got == length else data[:got]

    async def read(self, memory: Any, length: int, held: object) -> int | None:
        """Reads up to ``length`` bytes to the pointer ``memory``. ``held`` is the object whose memory that
        is; for new bytes both may be the bytes. Returns the number of bytes, 0 at the end of the file;
        None if the descriptor is non-blocking and has nothing. This is a checkpoint."""
        fd = self.raw.fileno()
        position = self.position
        cache = self._cache
        done = 0
        if cache is not None and position.is_ours:
            task: Any = getattr(context, "task", None)
            run = None if task is None else run_of(task)
            if run is not None and cache.left:
                cache.left -= 1
            elif run is not None and cache.tells:
                # This is `pass_cancel_point`, inlined for speed.
                task._cancel_points += 1
                if task._cancel_status.effectively_cancelled or task._runner.ki_pending:
                    await checkpoint_if_cancelled()
                at = position.at
                got = _read_at_once(fd, memory, length, at)
                if got >= 0:
                    # This is `move`, inlined for speed where the file was not shared meanwhile.
                    if position.is_ours:
                        position.at = at + got
                    else:
                        position.move(got)
                    cache.missed = 0
                    self._ended = got < length
                    if not (got and run.budget and run.spend(task)):
                        await yield_shielded()
                    return got
                done = cache.had_not(got)
        if memory is held:
            memory = _from_buffer(memory)
        return await self._read_by(fd, memory, length, held, done)

    async def _read_by(self, fd: int, memory: Any, length: int, held: object, done: int) -> int | None:
        position = self.position
        run = current_run()
        if not position.is_ours:
            if run is not None and position.kind is STREAM:
                return await self._of_stream(run, READ, memory, length, held)
            return await self._by_thread(os.readv, held, [ffi.buffer(memory, length)])
        got: int | None
        if run is None:
            rest = [ffi.buffer(memory + done, length - done)]
            got = await self._by_thread(os.preadv, held, rest, position.at + done)
        else:
            got, self._ended = await _read_fully(run, fd, memory, length, position.at, held, done)
        if got:
            position.move(got)
        return got

    async def write(self, memory: Any, length: int, held: object = None) -> int | None:
        """Writes up to ``length`` bytes from the pointer ``memory``. ``held`` is the object whose memory
        that is. Returns the number of bytes; None if the descriptor is non-blocking and takes none."""
        fd = self.raw.fileno()
        position = self.position
        run = current_run()
        data = ffi.buffer(memory, length)
        done: int | None
        if position.kind is OWN:
            if run is not None:
                done = await _by_ring(run, WRITE, fd, memory, length, position.at, held)
            else:
                done = await self._by_thread(os.pwrite, held, data, position.at)
            if done:
                position.move(done)
            return done
        if run is not None and position.kind is STREAM:
            return await self._of_stream(run, WRITE, memory, length, held)
        position.tell_kernel()
        position.is_appending = appends = position.kind is APPENDED
        try:
            if run is None or not appends:
                done = await self._by_thread(os.write, held, data)
            else:
                done = await _by_ring(run, WRITE, fd, memory, length, HERE, held)
                if done is not None and done < length:
                    # The kernel has tried to write the rest. When that fails, it does not move the position.
                    self.raw.seek(0, os.SEEK_END)
            position.ask()
        finally:
            position.is_appending = False
        return done

    async def read_to_end(self, parts: list[bytes]) -> bool:
        """Reads all to the end of the file, and adds it to ``parts``. Returns False if it stopped early,
        because the descriptor is non-blocking and had no more."""
        length = self._left()
        while True:
            data = new_bytes(length)
            self._ended = False
            got = await self.read(data, length, data)
            if not got:
                return got is not None
            parts.append(data if got == length else data[:got])
            if self._ended:
                return True
            length = max(io.DEFAULT_BUFFER_SIZE, min(got, _LARGEST_BLOCK))

    async def read_to_end_at_once(self) -> bytes | None:
        """Reads all to the end of the file at once, if that is not long and the page cache has it, and
        returns it. Returns None if it has not, or if the file is read otherwise; then the position has not
        moved, and `read_to_end` is to be called. This is `read_to_end` and `read` in one frame, for small
        files."""
        position = self.position
        cache = self._cache
        if cache is None or cache.left or not cache.tells or not position.is_ours:
            return None
        task: Any = getattr(context, "task", None)
        run = None if task is None else run_of(task)
        if run is None:
            return None
        length = self._left()
        if length >= LARGE:
            return None
        # This is `pass_cancel_point`, inlined for speed.
        task._cancel_points += 1
        if task._cancel_status.effectively_cancelled or task._runner.ki_pending:
            await checkpoint_if_cancelled()
        data = new_bytes(length)
        at = position.at
        got = _read_at_once(self.raw.fileno(), data, length, at)
        if not 0 <= got < length:
            if got < 0:
                cache.had_not(got)
            return None
        if position.is_ours:
            position.at = at + got
        else:
            position.move(got)
        cache.missed = 0
        if not (got and run.budget and run.spend(task)):
            await yield_shielded()
        return data[:got]

    def _left(self) -> int:
        """Returns how many bytes to ask for to read the rest of the file, by its size now or when it was
        opened."""
        position = self.position
        try:
            if position.is_ours and not position.at:
                left = position.size_at_first
            else:
                left = os.fstat(self.raw.fileno()).st_size - position.tell()
        except OSError:
            return io.DEFAULT_BUFFER_SIZE
        if left <= 0:
            return io.DEFAULT_BUFFER_SIZE
        # One byte more shows at once that this was the end. But the result is then cut, which copies it: a
        # large one is read without.
        return left + 1 if left < LARGE else left

    async def pread(self, memory: Any, length: int, held: object, offset: int) -> int:
        """Reads at ``offset`` to the pointer ``memory``, as `os.preadv` does. Neither uses nor moves the
        position. ``held`` is as for `read`. This is a checkpoint."""
        fileno = self.raw.fileno
        task: Any = getattr(context, "task", None)
        run = None if task is None else run_of(task)
        if run is None or not self.position.measured:
            rest = [ffi.buffer(_from_buffer(memory) if memory is held else memory, length)]
            return _some(await self._by_thread(os.preadv, held, rest, offset))
        cache = self._cache
        done = 0
        if cache is not None and cache.left:
            cache.left -= 1
        elif cache is not None and cache.tells:
            # This is `pass_cancel_point`, inlined for speed.
            task._cancel_points += 1
            if task._cancel_status.effectively_cancelled or task._runner.ki_pending:
                await checkpoint_if_cancelled()
            # Others may have set O_DIRECT, with which a read waits. The second function looks for that.
            read = _read_at_once if self.position.is_ours else _read_measured_at_once
            got = read(fileno(), memory, length, offset)
            if got >= 0:
                cache.missed = 0
                if not (got and run.budget and run.spend(task)):
                    await yield_shielded()
                return got
            done = cache.had_not(got)
        if memory is held:
            memory = _from_buffer(memory)
        return (await _read_fully(run, fileno(), memory, length, offset, held, done, fileno))[0]

    async def pwrite(self, memory: Any, length: int, held: object, offset: int) -> int:
        """Writes at ``offset`` from the pointer ``memory``, as `os.pwrite` does. Neither uses nor moves the
        position. ``held`` is as for `write`."""
        run = current_run()
        if run is None or not self.position.measured:
            return _some(await self._by_thread(os.pwrite, held, ffi.buffer(memory, length), offset))
        fileno = self.raw.fileno
        return _some(await _by_ring(run, WRITE, fileno(), memory, length, offset, held, fileno=fileno))

    async def sync(self, *, data_only: bool) -> None:
        """Does what `os.fsync` does, or with ``data_only`` what `os.fdatasync` does."""
        run = current_run()
        if run is None or not self.position.measured:
            await self._by_thread(os.fdatasync if data_only else os.fsync, None)
            return
        fileno = self.raw.fileno
        result = await perform(run, FSYNC, fileno(), flags=int(data_only), fileno=fileno)
        if result < 0:
            raise _failure(result, fileno)

    async def truncate(self, size: int | None) -> int:
        """Does what `io.FileIO.truncate` does. The ring does it from Linux 6.9 on, else a worker thread."""
        if size is None:
            size = self.position.tell()
        length = index(size) if hasattr(size, "__index__") else -1
        if not 0 <= length < 1 << 63:
            self.raw.truncate(size)  # which raises
        run = current_run()
        if run is None or not has_operation("ftruncate") or not self.position.measured:
            await trio.to_thread.run_sync(self.raw.truncate, length)
            return size
        fileno = self.raw.fileno
        result = await perform(run, FTRUNCATE, fileno(), offset=length, fileno=fileno)
        if result < 0:
            raise _failure(result, fileno)
        return size

    async def _of_stream(
        self, run: Run, opcode: Opcode, memory: Any, length: int, held: object
    ) -> int | None:
        """Reads from a stream, or writes to it. Returns None if the descriptor is non-blocking and not ready.
        The ring would wait even then, so it is told not to (RWF_NOWAIT). Where the kernel does not support
        this flag, a thread makes the call."""
        fileno = self.raw.fileno
        fd = fileno()
        with ExtraWorker(run):
            if os.get_blocking(fd):
                return await _by_ring(run, opcode, fd, memory, length, HERE, held, fileno=fileno)
            try:
                return await _by_ring(run, opcode, fd, memory, length, HERE, held, os.RWF_NOWAIT, fileno)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
        call = os.readv if opcode is READ else os.writev
        return await self._by_thread(call, held, [ffi.buffer(memory, length)])

    async def _by_thread(self, call: Callable[..., R], held: object, *args: object) -> R | None:
        """Has a thread make a system call. Returns None if the descriptor is non-blocking and not ready.

        The thread keeps ``held``, which owns the memory, even if the task is thrown away together with its
        run. A thread may have to wait until it can start, so it asks for the descriptor only then.
        """
        fileno = self.raw.fileno

        def transfer(_: object) -> R:
            return call(fileno(), *args)

        try:
            return await trio.to_thread.run_sync(transfer, held)
        except BlockingIOError:
            return None


async def write_whole(run: Run, fd: int, data: ReadableBuffer) -> int:
    """Writes all of ``data`` to a file, from its start. Returns the number of bytes. The caller has just
    opened the file: a regular one, on a measured file system."""
    if type(data) is bytes:  # which stays where it is without being pinned
        return await _write_whole(run, fd, _from_buffer(data), len(data), data)
    with pinned(io.BytesIO(), "write", data) as memory:
        return await _write_whole(run, fd, memory.address, memory.length, memory.held)


async def _write_whole(run: Run, fd: int, memory: Any, length: int, held: object) -> int:
    written = 0
    while written < length:
        written += await _by_ring(run, WRITE, fd, memory + written, length - written, written, held) or 0
    return written


async def _read_fully(
    run: Run,
    fd: int,
    memory: Any,
    length: int,
    offset: int,
    held: object,
    done: int,
    fileno: Callable[[], int] | None = None,
) -> tuple[int, bool]:
    """Reads as many bytes of a regular file as read(2) would. ``done`` of them are in ``memory`` already.
    Returns their number, and whether the end of the file was reached. ``fileno`` is as for
    `_by_ring`."""
    length = min(length, MOST)
    while True:
        try:
            got = _some(
                await _by_ring(
                    run, READ, fd, memory + done, length - done, offset + done, held, fileno=fileno
                )
            )
        except (OSError, ValueError):
            if done:
                return done, False
            raise
        done += got
        if done == length or not got:
            return done, not got
        if fileno is not None:
            continue
        # This is most often the end of the file. The page cache can tell at once.
        got = _read_at_once(fd, memory + done, length - done, offset + done)
        if got >= 0:
            return done + got, done + got < length
        if got < PART:
            done += PART - got


async def _by_ring(
    run: Run,
    opcode: Opcode,
    fd: int,
    memory: Any,
    length: int,
    offset: int,
    held: object,
    flags: int = 0,
    fileno: Callable[[], int] | None = None,
) -> int | None:
    """Makes a read or write by the ring. Returns the number of bytes; None if the descriptor is
    non-blocking and not ready. Raises OSError for other errors. ``fileno`` is for a file that another task
    may close before the kernel gets the operation (`perform`)."""
    while True:
        result = await perform(
            run, opcode, fd, memory, min(length, MOST), offset, flags, held=held, fileno=fileno
        )
        if result >= 0:
            return result
        if result not in _AGAIN:
            raise _failure(result, fileno)
        if result == -errno.EAGAIN:
            return None


def _failure(result: int, fileno: Callable[[], int] | None) -> OSError:
    """Returns the exception for -errno. Raises ValueError, as other calls do, if another task has closed the
    file before the kernel got the operation."""
    if result == -errno.EBADF and fileno is not None:
        fileno()
    return failure(result)


def _some(count: int | None) -> int:
    if count is None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return count
