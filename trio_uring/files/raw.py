"""Files without a buffer: each call is one transfer (files/transfers.py)."""

from __future__ import annotations

import io
import os
from operator import index
from typing import TYPE_CHECKING, Any

import trio

from ..loop.checkpoints import checkpoint_at_once
from ..ring.native import ffi
from .async_file import AsyncFile, either, gather_lines, reading, write_lines, writing
from .binary import BinaryFile
from .memory import new_bytes, pinned
from .position import SHARED, STREAM

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import ReadableBuffer, WriteableBuffer

    from .async_file import Turns
    from .transfers import Transfers


class RawFile(BinaryFile):
    """A file that was opened with ``buffering=0``, like an `io.FileIO`. Each call is one transfer, which
    may move less than it was asked for."""

    _wrapped: io.FileIO

    def __init__(self, wrapped: io.FileIO, transfers: Transfers, turns: Turns | None = None) -> None:
        super().__init__(wrapped, transfers, turns)
        # What a cancelled call had read from a file without positions, such as a pipe.
        self._given_back = b""

    @property
    def closefd(self) -> bool:
        return self._wrapped.closefd

    @reading
    async def read(self, size: int | None = -1, /) -> bytes:
        """Reads up to ``size`` bytes with one transfer, or all to the end of the file if ``size`` is
        negative or None. Returns b"" at the end; None if the descriptor is non-blocking and has
        nothing."""
        length = self._length("read", size)
        if length < 0:
            return await self._read_all()
        if self._given_back:
            return await self._read(length)  # type: ignore[return-value]
        data = new_bytes(length)
        got = await self._transfers.read(data, length, data)
        return data if got == length else data[:got] if got is not None else None  # type: ignore[return-value]

    @reading
    async def readall(self) -> bytes:
        """Reads all bytes to the end of the file. Returns None if the descriptor is non-blocking and has
        nothing."""
        return await self._read_all()

    @reading
    async def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Reads into ``buffer`` with one transfer. Returns the number of bytes, 0 at the end of the file;
        None if the descriptor is non-blocking and has nothing."""
        with pinned(self._wrapped, "readinto", buffer, writable=True) as memory:
            if self._given_back:
                await checkpoint_at_once()
                data = self._take(memory.length)
                ffi.memmove(memory.address, data, len(data))
                return len(data)
            return await self._transfers.read(memory.address, memory.length, memory.held)  # type: ignore[return-value]

    @reading
    async def readline(self, size: int | None = -1, /) -> bytes:
        return await self._readline(self._length("readline", size))

    @reading
    async def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Reads the lines to the end of the file, or until they are longer than ``hint`` bytes together, if
        that is positive."""
        number = self._length("readlines", hint)
        lines: list[bytes] = []
        try:
            return await gather_lines(self._readline, number, lines)
        except BaseException as stop:
            self._give_back_after(stop, b"".join(lines))
            raise

    @writing
    async def write(self, data: ReadableBuffer, /) -> int:
        """Writes from ``data`` with one transfer. Returns the number of bytes that the kernel has taken,
        which may be fewer; None if the descriptor is non-blocking and takes none."""
        return await self._write(data)  # type: ignore[return-value]

    @writing
    async def writelines(self, lines: Iterable[ReadableBuffer], /) -> None:
        """Writes each of ``lines`` with one transfer."""
        await write_lines(self._write, lines)

    @either
    async def seek(self, offset: int, whence: int = 0, /) -> int:
        """Moves the position. Returns the new position, in bytes."""
        await checkpoint_at_once(self._turns.holder)
        position = self._position.seek(offset, index(whence))
        self._given_back = b""
        return position

    @either
    async def tell(self) -> int:
        """Returns the position, in bytes."""
        await checkpoint_at_once()
        return self._position.tell()

    @writing
    async def truncate(self, size: int | None = None, /) -> int:
        """Makes the file ``size`` bytes long, or as long as the position says. Returns the new size. The
        ring does it from Linux 6.9 on, else a worker thread."""
        return await self._transfers.truncate(size)

    @either
    async def flush(self) -> None:
        """Does nothing, since there is no buffer. This is a checkpoint."""
        await checkpoint_at_once()

    async def detach(self) -> AsyncFile[Any]:
        """Raises AttributeError: nothing is below a raw file."""
        raise AttributeError("'FileIO' object has no attribute 'detach'")

    async def _read(self, length: int) -> bytes | None:
        if self._given_back:
            await checkpoint_at_once()
            return self._take(length)
        return await self._transfers.read_new(length)

    async def _read_all(self) -> bytes:
        parts = [self._take(len(self._given_back))] if self._given_back else []
        try:
            complete = await self._transfers.read_to_end(parts)
        except BaseException as stop:
            self._give_back_after(stop, b"".join(parts))
            raise
        return b"".join(parts) if parts or complete else None  # type: ignore[return-value]

    async def _readline(self, limit: int = -1) -> bytes:
        """Reads a line, and leaves the position at its end. If the position is ours, it goes back over what
        was read too much. If it is shared, a thread reads the line. From a stream each transfer is of
        one byte. A line that a non-blocking descriptor has not all of is an OSError, as in the standard
        library; but what there is of it stays for the next call."""
        if self._position.kind is SHARED:
            return await trio.to_thread.run_sync(self._wrapped.readline, limit)
        block = io.DEFAULT_BUFFER_SIZE if self._position.is_ours else 1
        parts: list[bytes] = []
        left = limit
        try:
            if not limit:
                await checkpoint_at_once()
            while left:
                data = await self._read(block if left < 0 else min(block, left))
                if data is None:
                    raise OSError("read() should have returned a bytes object, not 'NoneType'")
                if not data:
                    break
                end = data.find(b"\n") + 1
                if end:
                    parts.append(data[:end])
                    self._give_back(data[end:])
                    break
                parts.append(data)
                left -= len(data) if left > 0 else 0
        except BaseException as stop:
            self._give_back_after(stop, b"".join(parts))
            raise
        return b"".join(parts)

    async def _write(self, data: ReadableBuffer) -> int | None:
        with pinned(self._wrapped, "write", data) as memory:
            return await self._transfers.write(memory.address, memory.length, memory.held)

    def _take(self, length: int) -> bytes:
        data, self._given_back = self._given_back[:length], self._given_back[length:]
        return data

    def _give_back(self, data: bytes) -> None:
        if not data:
            return
        if self._position.kind is STREAM:
            self._given_back = data + self._given_back
        else:
            self._position.seek(-len(data), os.SEEK_CUR)

    def _give_back_after(self, stop: BaseException, data: bytes) -> None:
        """Gives back the data that a call had read before ``stop`` ended it. Does nothing if the call
        failed on a file that has a position: it is past the data then, as in the standard library."""
        if not isinstance(stop, OSError) or self._position.kind is STREAM:
            self._give_back(data)
