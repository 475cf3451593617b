"""`SpooledTemporaryFile`, a temporary file that is in memory while it is short.

In memory it is an `io.BytesIO`, below an `io.TextIOWrapper` in text mode, so each call is done at once. To
move it to the disk, a thread makes a file there and writes the data, while all other calls wait. From then
on each call goes to the file on the disk.
"""

from __future__ import annotations

import io
import os
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, overload

import trio
from trio.lowlevel import enable_ki_protection

from ..loop.checkpoints import checkpoint_at_once
from .async_file import AsyncFile, DataT
from .opening import over
from .temporary import thread_of_its_own

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed import OpenBinaryMode, OpenTextMode, WriteableBuffer
    from typing_extensions import Self

    from .temporary import _Folder, _Name


class SpooledTemporaryFile(trio.abc.AsyncResource, Generic[DataT]):
    """A temporary file like `tempfile.SpooledTemporaryFile`, which starts in memory.

    It moves to the disk once it is longer than ``max_size`` bytes, if that is not 0, or when `rollover` is
    called. If the move fails, the data is still in memory after the error. Every asynchronous method is a
    checkpoint.

    It has a descriptor on the disk only: ``fileno`` does not move it there, since it cannot wait.
    """

    @overload
    def __init__(
        self: SpooledTemporaryFile[bytes],
        max_size: int = 0,
        mode: OpenBinaryMode = "w+b",
        buffering: int = -1,
        encoding: None = None,
        newline: None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        *,
        errors: None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: SpooledTemporaryFile[str],
        max_size: int = 0,
        *,
        mode: OpenTextMode,
        buffering: int = -1,
        encoding: str | None = None,
        newline: str | None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        errors: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: SpooledTemporaryFile[str],
        max_size: int,
        mode: OpenTextMode,
        buffering: int = -1,
        encoding: str | None = None,
        newline: str | None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        *,
        errors: str | None = None,
    ) -> None: ...
    def __init__(
        self,
        max_size: int = 0,
        mode: str = "w+b",
        buffering: int = -1,
        encoding: str | None = None,
        newline: str | None = None,
        suffix: _Name = None,
        prefix: _Name = None,
        dir: _Folder = None,
        *,
        errors: str | None = None,
    ) -> None:
        self._bytes = io.BytesIO()
        self._memory: Any = self._bytes
        if "b" not in mode:
            encoding = io.text_encoding(encoding)  # type: ignore[attr-defined]  # not in typeshed
            self._memory = io.TextIOWrapper(self._bytes, encoding, errors, newline)
        make: Any = tempfile.TemporaryFile
        self._make = partial(make, mode, buffering, encoding, newline, suffix, prefix, dir, errors=errors)
        self._layers = (buffering, newline)
        self._mode = mode
        self._max_size = max_size
        self._moving = trio.Lock()
        """Held while the file is moved to the disk."""
        self._file: AsyncFile[Any] | None = None
        """The file on the disk; None while it is in memory."""

    # What is known at once

    @property
    def _now(self) -> Any:
        """The file that has the data: the one in memory or the one on the disk."""
        return self._memory if self._file is None else self._file

    @property
    def closed(self) -> bool:
        return bool(self._now.closed)

    @property
    def encoding(self) -> str:
        return str(self._now.encoding)

    @property
    def errors(self) -> str | None:
        errors: str | None = self._now.errors
        return errors

    @property
    def newlines(self) -> str | tuple[str, ...] | None:
        newlines: str | tuple[str, ...] | None = self._now.newlines
        return newlines

    @property
    def mode(self) -> str:
        return self._mode if self._file is None else self._file.mode

    @property
    def name(self) -> Any:
        """The descriptor of the file on the disk; None in memory."""
        return None if self._file is None else self._file.name

    def fileno(self) -> int:
        """Returns the descriptor, as a file of `open_file` does.

        Raises:
          io.UnsupportedOperation: the file is in memory.
        """
        return int(self._now.fileno())

    def isatty(self) -> bool:
        return bool(self._now.isatty())

    def readable(self) -> bool:
        return bool(self._now.readable())

    def seekable(self) -> bool:
        return bool(self._now.seekable())

    def writable(self) -> bool:
        return bool(self._now.writable())

    # Calls

    async def read(self, size: int | None = -1, /) -> DataT:
        data: DataT = await self._call("read", size)
        return data

    async def read1(self, size: int = -1, /) -> bytes:
        data: bytes = await self._call("read1", size)
        return data

    async def readinto(self, buffer: WriteableBuffer, /) -> int:
        return int(await self._call("readinto", buffer))

    async def readinto1(self, buffer: WriteableBuffer, /) -> int:
        return int(await self._call("readinto1", buffer))

    async def readline(self, size: int | None = -1, /) -> DataT:
        line: DataT = await self._call("readline", size)
        return line

    async def readlines(self, hint: int | None = -1, /) -> list[DataT]:
        lines: list[DataT] = await self._call("readlines", hint)
        return lines

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> DataT:
        line = await self.readline()
        if line:
            return line
        raise StopAsyncIteration

    async def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return int(await self._call("seek", offset, whence))

    async def tell(self) -> int:
        return int(await self._call("tell"))

    async def flush(self) -> None:
        await self._call("flush")

    async def truncate(self, size: int | None = None, /) -> int:
        if size is not None and size > self._max_size:
            await self.rollover()
        return int(await self._call("truncate", size))

    async def write(self, data: Any, /) -> int:
        written = int(await self._call("write", data))
        await self._move_what_is_long()
        return written

    async def writelines(self, lines: Iterable[Any], /) -> None:
        await self._call("writelines", lines)
        await self._move_what_is_long()

    async def rollover(self) -> None:
        """Moves the file to the disk, if it is not there yet."""
        await checkpoint_at_once()
        async with self._moving:
            await self._move()

    async def aclose(self) -> None:
        """Closes the file, and so removes it. If it is just being moved to the disk, this waits for the end
        of that, even if it is cancelled."""
        if self._moving.locked():
            with trio.CancelScope(shield=True):
                async with self._moving:
                    pass
        if self._file is not None:
            await self._file.aclose()
        else:
            self._memory.close()
            await checkpoint_at_once()

    async def _call(self, name: str, *arguments: Any) -> Any:
        """Calls a method of the file that has the data, once nobody is moving it."""
        if self._file is None:
            await checkpoint_at_once()
            if self._moving.locked():
                async with self._moving:
                    pass
        if self._file is None:
            return getattr(self._memory, name)(*arguments)
        return await getattr(self._file, name)(*arguments)

    async def _move_what_is_long(self) -> None:
        """Moves the file to the disk if it is too long. Called after a write: that has happened, so the move
        is not cancelled."""
        if self._file is None and self._max_size and self._memory.tell() > self._max_size:
            with trio.CancelScope(shield=True):
                async with self._moving:
                    await self._move()

    @enable_ki_protection
    async def _move(self) -> None:
        """Moves the file to the disk, if it is not there yet. The caller holds `_moving`."""
        if self._file is not None:
            return
        position = self._memory.tell()
        self._memory.flush()
        with trio.CancelScope(shield=True):
            made = await trio.to_thread.run_sync(
                _made_with, self._make, self._bytes.getvalue(), limiter=thread_of_its_own()
            )
            file = over(made, *self._layers, ours=True)
            await file.seek(position)
        self._file = file
        self._memory.close()


def _made_with(make: Callable[[], Any], data: bytes) -> Any:
    """Makes a file and puts ``data`` into it, below the file object, which has written nothing itself. Called
    in a worker thread."""
    made = make()
    try:
        done = 0
        while done < len(data):
            done += os.pwrite(made.fileno(), data[done:], done)
    except BaseException:
        made.close()
        raise
    return made
