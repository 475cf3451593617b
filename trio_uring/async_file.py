"""What the asynchronous files of all kinds share.

- Every one of them holds a file of the standard library, open on the same descriptor, and
  moves the data itself. That file is asked for all that moves none: attributes, closing,
  the warning about a file that was not closed, and the exception for a call that cannot
  succeed, because the file is closed or detached, or is not open for that.
- Its own buffers stay empty. So does everything that is reached through it, as ``raw`` and
  ``buffer`` are: that goes past our buffers.
- One call at a time, first come, first served. A task waits for its turn only if another
  is in the middle of a call.
- Ctrl-C arrives at the end of a call, or at the kernel's answer, and nowhere between: what
  the kernel has moved and what we know of it never differ.
"""

from __future__ import annotations

import functools
from operator import index
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, enable_ki_protection

from .budget import checkpoint_at_once

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable
    from typing import Concatenate

    from _typeshed import StrOrBytesPath
    from typing_extensions import ParamSpec, Self

    P = ParamSpec("P")

R = TypeVar("R")
DataT = TypeVar("DataT", bytes, str)
FileT = TypeVar("FileT", bound="AsyncFile[Any]")


class AsyncFile(trio.abc.AsyncResource, Generic[DataT]):
    """An asynchronous file: the methods of `trio.open_file`'s, of which every one is a
    checkpoint. A call that raises `trio.Cancelled` has not happened, or has as far as
    the file's position says; what was read meanwhile will be read again."""

    def __init__(self, wrapped: Any, turns: Turns | None = None) -> None:
        self._wrapped = wrapped
        self._turns = turns or Turns()
        self._can_read: bool = wrapped.readable()
        self._can_write: bool = wrapped.writable()

    @property
    def wrapped(self) -> Any:
        """The standard library's file on the same descriptor. Its buffers know nothing of ours."""
        return self._wrapped

    @property
    def closed(self) -> bool:
        return bool(self._wrapped.closed)

    @property
    def name(self) -> StrOrBytesPath | int:
        name: StrOrBytesPath | int = self._wrapped.name
        return name

    @property
    def mode(self) -> str:
        return str(self._wrapped.mode)

    def fileno(self) -> int:
        return int(self._wrapped.fileno())

    def isatty(self) -> bool:
        return bool(self._wrapped.isatty())

    def readable(self) -> bool:
        return bool(self._wrapped.readable())

    def seekable(self) -> bool:
        return bool(self._wrapped.seekable())

    def writable(self) -> bool:
        return bool(self._wrapped.writable())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> DataT:
        line = await self.readline()
        if line:
            return line
        raise StopAsyncIteration

    async def readline(self, size: int | None = -1, /) -> DataT:
        """One line, of ``size`` characters or bytes at most; empty at the end."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Writes what is buffered and closes the file, also if it is cancelled meanwhile.

        The descriptor is closed by the calling thread, as `os.close` does.
        """
        if self._turns.taken or self._unwritten():
            await self._close_in_turn()
            await checkpoint_if_cancelled()
        else:
            self._wrapped.close()
            await checkpoint_at_once()

    @enable_ki_protection
    async def _close_in_turn(self) -> None:
        if self._turns.taken:
            with trio.CancelScope(shield=True):
                await self._turns.take()
        else:
            self._turns.taken = True
        try:
            if self._unwritten() and not self._wrapped.closed:
                await self._write_out()
        except (trio.Cancelled, KeyboardInterrupt):
            # Only now: to enter a scope takes longer than to write.
            with trio.CancelScope(shield=True):
                await self._write_out()
            raise
        finally:
            self._turns.leave()
            self._wrapped.close()

    def _unwritten(self) -> bool:
        """Whether there is data that has to be written before the file is closed."""
        return False

    async def _write_out(self) -> None:
        """Writes that data."""

    async def _settle(self) -> None:
        """Waits for what has left the buffer and is still being written."""

    def _length(self, name: str, value: int | None) -> int:
        """The argument of a method: a number, -1 for None."""
        if type(value) is int and -_HUGE <= value < _HUGE:
            return value
        if value is None:
            return -1
        try:
            length = index(value)
        except TypeError:
            length = 1 << 64
        if -_HUGE <= length < _HUGE:
            return length
        getattr(self._wrapped, name)(value)
        raise TypeError(f"{value!r} is not a length")


_HUGE = 1 << 63


class Turns:
    """Who may use a file. All the layers of one file share one of these."""

    __slots__ = ("taken", "waiting")

    def __init__(self) -> None:
        self.taken = False
        self.waiting: trio.lowlevel.ParkingLot | None = None

    async def take(self) -> None:
        if not self.taken:
            self.taken = True
            return
        if self.waiting is None:
            self.waiting = trio.lowlevel.ParkingLot()
        # Whoever leaves hands the turn to the task that it wakes.
        await self.waiting.park()

    def leave(self) -> None:
        if self.waiting:
            self.waiting.unpark()
        else:
            self.taken = False


class _Method(Protocol):
    def __call__(
        self, method: Callable[Concatenate[FileT, P], Coroutine[Any, Any, R]], /
    ) -> Callable[Concatenate[FileT, P], Coroutine[Any, Any, R]]: ...


def _in_turn(allowed: str) -> _Method:
    """Makes a method wait for its turn, and have the standard library answer if the file
    is closed, or not open for what ``allowed`` is the name of."""

    def decorate(
        method: Callable[Concatenate[FileT, P], Coroutine[Any, Any, R]],
    ) -> Callable[Concatenate[FileT, P], Coroutine[Any, Any, R]]:
        name = "__next__" if method.__name__ == "__anext__" else method.__name__

        @functools.wraps(method)
        @enable_ki_protection
        async def call(self: FileT, /, *args: P.args, **kwargs: P.kwargs) -> R:
            turns = self._turns
            if turns.taken:
                await turns.take()
            else:
                turns.taken = True
            try:
                wrapped = self._wrapped
                try:
                    refused = wrapped.closed or not getattr(self, allowed)
                except ValueError:  # detached
                    refused = True
                if refused:
                    answer: R = getattr(wrapped, name)(*args, **kwargs)
                    await checkpoint()
                    return answer
                return await method(self, *args, **kwargs)
            finally:
                if turns.waiting is None:
                    turns.taken = False
                else:
                    turns.leave()

        return call

    return decorate


reading = _in_turn("_can_read")
writing = _in_turn("_can_write")
either = _in_turn("__class__")


async def gather_lines(
    readline: Callable[[], Awaitable[DataT]], hint: int, lines: list[DataT]
) -> list[DataT]:
    """What ``readlines`` returns: lines until they are longer than ``hint``, if that is positive."""
    length = 0
    while line := await readline():
        lines.append(line)
        length += len(line)
        if 0 < hint < length:
            break
    return lines


async def write_lines(write: Callable[[Any], Awaitable[object]], lines: Iterable[Any]) -> None:
    """``writelines``. A checkpoint, also without lines."""
    await checkpoint_at_once()
    for line in lines:
        await write(line)
