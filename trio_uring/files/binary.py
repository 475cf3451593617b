"""What binary files with and without a buffer have in common: transfers at offsets, and syncing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trio.lowlevel import enable_ki_protection

from ..lowlevel.arguments import size_of
from .async_file import AsyncFile
from .memory import new_bytes, pinned

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from .async_file import Turns
    from .transfers import Transfers


class BinaryFile(AsyncFile[bytes]):
    """A binary file. `pread`, `pread_into` and `pwrite` neither use nor move the position, and any number
    of tasks may call them at the same time. On a file system that the ring is used for
    (lowlevel/file_systems.py) they need no thread, even if the descriptor is shared."""

    def __init__(self, wrapped: Any, transfers: Transfers, turns: Turns | None = None) -> None:
        super().__init__(wrapped, transfers.position, turns)
        self._transfers = transfers

    @enable_ki_protection
    async def pread(self, size: int, offset: int, /) -> bytes:
        """Reads up to ``size`` bytes from ``offset`` on, as `os.pread` does. Returns b"" past the end.
        Writes what is buffered before."""
        length, start = size_of(size), size_of(offset)
        if not self._can_read:
            self._wrapped.readinto(bytearray())  # which raises
        self._wrapped.fileno()  # which raises if it is closed
        if self._can_write and self._unwritten():
            await self._write_before()
        data = new_bytes(length)
        got = await self._transfers.pread(data, length, data, start)
        return data if got == length else data[:got]

    @enable_ki_protection
    async def pread_into(self, buffer: WriteableBuffer, offset: int, /) -> int:
        """Reads into ``buffer`` from ``offset`` on, as `os.preadv` does. Returns the number of bytes, which
        is 0 past the end. Writes what is buffered before."""
        with pinned(self._wrapped, "readinto", buffer, writable=True) as memory:
            start = size_of(offset)
            if not self._can_read:
                self._wrapped.readinto(bytearray())  # which raises
            self._wrapped.fileno()  # which raises if it is closed
            if self._can_write and self._unwritten():
                await self._write_before()
            return await self._transfers.pread(memory.address, memory.length, memory.held, start)

    @enable_ki_protection
    async def pwrite(self, data: ReadableBuffer, offset: int, /) -> int:
        """Writes ``data`` at ``offset``, as `os.pwrite` does. Returns the number of bytes written, which may
        be fewer. Writes what is buffered before. If the file has a buffer and can be read, this also waits
        for a call under way, which may have read what was there before. With O_APPEND the kernel writes at
        the end of the file, whatever the ``offset``."""
        with pinned(self._wrapped, "write", data) as memory:
            start = size_of(offset)
            if not self._can_write:
                self._wrapped.write(b"")  # which raises
            self._own_fileno()  # which raises if it is closed
            await self._write_before()
            try:
                return await self._transfers.pwrite(memory.address, memory.length, memory.held, start)
            finally:
                await self._forget_ahead()

    async def _sync(self, *, data_only: bool) -> None:
        self._own_fileno()
        await self._write_before()
        await self._transfers.sync(data_only=data_only)

    async def _write_before(self) -> None:
        """Writes what is buffered, if anything is, and takes the turn for it."""

    async def _forget_ahead(self) -> None:
        """Forgets what was read ahead, and what a call under way is reading. Called after a change to the
        file past the buffer."""
