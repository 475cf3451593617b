"""What the asynchronous files of all kinds share.

- Every one of them holds a file of the standard library, open on the same descriptor, and
  moves the data itself. That file is asked for all that moves none: attributes, closing,
  the warning about a file that was not closed, and the exception for a call that cannot
  succeed, because the file is closed or detached, or is not open for that.
- Its own buffers stay empty. So does everything that is reached through it, as ``raw`` and
  ``buffer`` are: that goes past our buffers.
- One call at a time, first come, first served. A task waits for its turn only if another
  is in the middle of a call; a task of another run is refused then.
- Ctrl-C arrives at the end of a call, or at the kernel's answer, and nowhere between: what
  the kernel has moved and what we know of it never differ.
"""

from __future__ import annotations

import functools
from operator import index
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, enable_ki_protection

from ..loop.checkpoints import checkpoint_at_once
from ..loop.trio_internals import context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable
    from typing import Concatenate

    from _typeshed import StrOrBytesPath
    from typing_extensions import ParamSpec, Self

    from .position import Position

    P = ParamSpec("P")

R = TypeVar("R")
DataT = TypeVar("DataT", bytes, str)
FileT = TypeVar("FileT", bound="AsyncFile[Any]")


class AsyncFile(trio.abc.AsyncResource, Generic[DataT]):
    """An asynchronous file: the methods of `trio.open_file`'s, of which every one is a
    checkpoint. A call that raises `trio.Cancelled` has not happened, or has as far as
    the file's position says; what was read meanwhile will be read again."""

    _when_closed: Callable[[], Awaitable[None]] | None = None
    """Called once, when `aclose` has closed it, also in vain: to take away its name (temporary.py)."""

    def __init__(self, wrapped: Any, position: Position, turns: Turns | None = None) -> None:
        self._wrapped = wrapped
        self._position: Position = position
        self._raw = position.raw
        self._is_detached = False
        self._turns = turns or Turns(position)
        self._can_read: bool = wrapped.readable()
        self._can_write: bool = wrapped.writable()

    @property
    def wrapped(self) -> Any:
        """The standard library's file on the same descriptor. Its buffers know nothing of ours.
        Who asks for it can move the position: as `fileno`."""
        self._share()
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
        """The descriptor. From then on others may use it: reads and writes go by threads, as
        `open_file` says. Waits for what is being written behind, as closing does."""
        fd = int(self._wrapped.fileno())
        self._share()
        return fd

    def _own_fileno(self) -> int:
        """The descriptor, for us alone: nobody gets it."""
        return int(self._wrapped.fileno())

    def _share(self) -> None:
        """Before others may use the descriptor."""
        if self._position.is_ours and not self.closed:
            self._position.share()

    async def fsync(self) -> None:
        """Writes what is buffered, and waits until data and metadata are on the device."""
        await self._sync(data_only=False)

    async def fdatasync(self) -> None:
        """`fsync`, but of the metadata only what is needed to find the data."""
        await self._sync(data_only=True)

    async def _sync(self, *, data_only: bool) -> None:
        raise NotImplementedError

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

    if TYPE_CHECKING:  # what every kind has as well, each with words of its own

        async def read(self, size: int | None = -1, /) -> DataT: ...
        async def readlines(self, hint: int | None = -1, /) -> list[DataT]: ...
        async def write(self, data: Any, /) -> int: ...
        async def writelines(self, lines: Iterable[Any], /) -> None: ...
        async def seek(self, offset: int, whence: int = 0, /) -> int: ...
        async def tell(self) -> int: ...
        async def truncate(self, size: int | None = None, /) -> int: ...
        async def flush(self) -> None: ...
        async def detach(self) -> AsyncFile[Any]: ...

    async def aclose(self) -> None:
        """Writes what is buffered and closes the file, also if it is cancelled meanwhile.

        The descriptor is closed by the calling thread, as `os.close` does.
        """
        try:
            if self._turns.holder or self._unwritten():
                await self._close_in_turn()
                await checkpoint_if_cancelled()
            else:
                self._wrapped.close()
                await checkpoint_at_once()
        finally:
            if self._when_closed is not None:
                clean_up, self._when_closed = self._when_closed, None
                await clean_up()

    @enable_ki_protection
    async def _close_in_turn(self) -> None:
        task = running_task()
        try:
            if not self._turns.take_now():
                with trio.CancelScope(shield=True):
                    await self._turns.take()
        except BaseException:
            self._turns.leave(task)
            raise
        try:
            if self._unwritten() and not self._wrapped.closed:
                await self._write_out()
        except (trio.Cancelled, KeyboardInterrupt):
            # Only now: to enter a scope takes longer than to write.
            with trio.CancelScope(shield=True):
                await self._write_out()
            raise
        finally:
            self._turns.leave(task)
            self._wrapped.close()

    def _close_at_once(self) -> None:
        """Does what `aclose` does, without a step of the task: for one that may wait for nothing any more.
        This blocks. A file that another task is in the middle of using, or whose writes cannot be waited
        for here, is left to be closed by the garbage collector."""
        behind = self._position.behind
        if behind is not None:
            behind.block(elsewhere=False)
        if self._turns.holder or self._position.written_by is not None:
            return
        try:
            self._write_now()
        finally:
            self._wrapped.close()

    def _unwritten(self) -> bool:
        """Whether there is data that has to be written before the file is closed."""
        return False

    async def _write_out(self) -> None:
        """Writes that data."""

    def _write_now(self) -> None:
        """`_write_out`, by the calling thread."""

    async def _settle(self) -> None:
        """In turn: waits for what has left the buffer and is still being written."""

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
    """Who may use a file. All the layers of one file share one of these.

    The tasks of one run wait for each other; those of another are refused, while a task of the
    first is in the middle of a call, or the run is still writing to the file.
    """

    __slots__ = ("_position", "_waiting", "holder")

    def __init__(self, position: Position) -> None:
        self._position = position
        self.holder: dict[int, trio.lowlevel.Task] = {}
        """The task that has the turn, at 0: an entry that is made and found in one step, whatever
        threads ask for it."""
        self._waiting: trio.lowlevel.ParkingLot | None = None
        """Tasks of the holder's run."""

    def taken(self) -> bool:
        return bool(self.holder)

    def take_now(self) -> bool:
        """Takes the turn, if no other task of this run has it."""
        task = running_task()
        holder = self.holder.setdefault(0, task)
        if holder is not task:
            if holder._runner is not task._runner:
                raise RuntimeError("a task of another run is in the middle of a call on this file")
            return False
        if self._position.written_by is not None:
            self.check_run(task)
        return True

    def check_run(self, task: Any) -> None:
        """For who has the turn: raises, and has it no longer, if another run writes to the file."""
        if self._position.written_by is not task._runner.io_manager:
            del self.holder[0]
            raise RuntimeError("another run is still writing to this file, or was abandoned while it did")

    async def take(self) -> None:
        """Takes the turn, after other tasks if need be."""
        if not self.take_now():
            if self._waiting is None:
                self._waiting = trio.lowlevel.ParkingLot()
            # Whoever leaves hands the turn to the task that it wakes.
            await self._waiting.park()
            self.holder[0] = running_task()  # even if that was interrupted

    def leave(self, task: trio.lowlevel.Task) -> None:
        """Also for a task that may not have got the turn: an exception out of a signal handler may
        come between any two calls."""
        if not self.holder or self.holder[0] is not task:
            return
        if self._waiting:
            (self.holder[0],) = self._waiting.unpark()
        else:
            del self.holder[0]


def running_task() -> Any:
    try:
        return context.task
    except AttributeError:
        raise RuntimeError("must be called from async context") from None


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
        name = "readline" if method.__name__ == "_next_line" else method.__name__

        @functools.wraps(method)
        @enable_ki_protection
        async def call(self: FileT, /, *args: P.args, **kwargs: P.kwargs) -> R:
            turns = self._turns
            holder = turns.holder
            # `take_now`, without its frame.
            try:
                task = context.task
            except AttributeError:
                task = running_task()
            try:
                if holder.setdefault(0, task) is not task:
                    await turns.take()
                elif self._position.written_by is not None:
                    turns.check_run(task)
                if self._raw.closed or self._is_detached or not getattr(self, allowed):
                    answer: R = getattr(self._wrapped, name)(*args, **kwargs)
                    await checkpoint()
                    return answer
                return await method(self, *args, **kwargs)
            finally:
                # `leave`, without its frame, and without a call, after which a signal may be handled.
                if turns._waiting is not None:
                    turns.leave(task)
                elif holder and holder[0] is task:
                    del holder[0]

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
