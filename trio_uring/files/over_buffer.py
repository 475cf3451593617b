"""What binary and text files with a buffer have in common: how that is written before they close."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .async_file import AsyncFile, DataT

if TYPE_CHECKING:
    from .buffer import FileBuffer


class OverBuffer(AsyncFile[DataT]):
    """A file over a buffer (files/buffer.py)."""

    _buffer: FileBuffer

    def _unwritten(self) -> bool:
        return self._buffer.unwritten

    async def _write_out(self) -> None:
        await self._buffer.write_out()

    def _write_now(self) -> None:
        self._buffer.write_now()

    async def _settle(self) -> None:
        await self._turns.within(self._buffer.settle)
