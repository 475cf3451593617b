"""What the asynchronous files of all kinds share.

- Each file holds a file of the standard library that is open on the same descriptor, its
  ``wrapped``; or what stands for it until somebody asks for it (files/made_later.py). Ours moves
  the data. The wrapped file does what moves none: it has the attributes, closes the descriptor,
  and warns if it was never closed. It also raises the exception of a call that cannot succeed: on
  a file that is closed or detached, or not open for reading or writing.
- The buffers of the wrapped file stay empty. Whoever uses it, or its ``raw`` or ``buffer``, goes
  past our buffers.
- A file serves one call at a time, first come, first served: each call has its turn (`Turns`). A
  task waits only if another is in the middle of a call. A task of another run is refused then.
- Ctrl-C arrives at the end of a call, or at the kernel's answer, and nowhere between. So what
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
from .made_later import BufferedLater

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
    """An asynchronous file. It has the methods of the files of `trio.open_file`, and every async one is
    a checkpoint. A call that raises `trio.Cancelled` has happened as far as the file's position says,
    which may be not at all. What it had read will be read again."""

    _when_closed: Callable[[], Awaitable[None]] | None = None
    """What `aclose` calls once, at its end, even if it failed: it removes a temporary file's name
    (files/temporary.py)."""

    def __init__(self, wrapped: Any, position: Position, turns: Turns | None = None) -> None:
        self._wrapped = wrapped
        self._position: Position = position
        self._raw = raw = position.raw
        self._is_detached = False
        self._turns = turns or Turns(position)
        self._can_read: bool = raw.readable()
        self._can_write: bool = raw.writable()

    @property
    def wrapped(self) -> Any:
        """The standard library's file on the same descriptor. Its buffers know nothing of ours. Whoever
        has it can move the position, so asking for it has the effects of `fileno`."""
        self._share()
        wrapped = self._wrapped
        if isinstance(wrapped, BufferedLater):
            self._wrapped = wrapped = wrapped.made()
        return wrapped

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
        """Returns the descriptor. Others may use it from then on, so later reads and writes are made by
        threads, as `open_file` says. Blocks until earlier writes that are still under way are made."""
        fd = int(self._wrapped.fileno())
        self._share()
        return fd

    def _own_fileno(self) -> int:
        """Returns the descriptor without the effects of `fileno`. Only for this package, which hands it to
        nobody."""
        return int(self._wrapped.fileno())

    def _share(self) -> None:
        """Gives the position to the kernel. Called before others may use the descriptor; a file that is
        detached has none for them."""
        if self._position.is_ours and not self._is_detached and not self.closed:
            self._position.share()

    async def fsync(self) -> None:
        """Writes what is buffered, and waits until data and metadata are on the device."""
        await self._sync(data_only=False)

    async def fdatasync(self) -> None:
        """Does what `fsync` does, but waits for no more metadata than is needed to find the data."""
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
        """Reads one line, of ``size`` characters or bytes at most. It is empty at the end of the file."""
        raise NotImplementedError

    if TYPE_CHECKING:  # every kind of file has these, with a docstring of its own

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
        """Writes what is buffered and closes the file. It does both even if it is cancelled.

        The calling thread closes the descriptor, as with `os.close`.
        """
        try:
            if self._turns.holder or (self._can_write and self._unwritten()):
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
            # The scope is entered only when needed: entering it takes longer than writing.
            with trio.CancelScope(shield=True):
                await self._write_out()
            raise
        finally:
            self._turns.leave(task)
            self._wrapped.close()

    def _close_at_once(self) -> None:
        """Does what `aclose` does, but blocks. Called by a task that may not await any more. If another
        task is in the middle of a call, or the writes under way cannot be waited for here, the file is
        left to the garbage collector, which closes it."""
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
        """Tells whether there is data that has to be written before the file is closed."""
        return False

    async def _write_out(self) -> None:
        """Writes what is buffered. Called by the task that has the turn."""

    def _write_now(self) -> None:
        """Writes what is buffered, and blocks. Called when no task has the turn."""

    async def _settle(self) -> None:
        """Takes the turn, and waits until nothing that has left the buffer is still being written."""

    def _length(self, name: str, value: int | None) -> int:
        """Returns a length that a caller gave as an int, and -1 for None. For other values calls the
        method ``name`` of the wrapped file, which raises."""
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
    """The turns of the tasks that use a file: the task that has the turn is in the middle of a call. The
    text, binary and raw file on one descriptor share their `Turns`.

    The tasks of one run wait for each other. A task of another run is refused while one of the
    first is in the middle of a call, and while the first run is still writing to the file.
    """

    __slots__ = ("_position", "_waiting", "holder")

    def __init__(self, position: Position) -> None:
        self._position = position
        self.holder: Any = None
        """The task that has the turn; None if none has. Whoever takes the turn makes no call between the look
        that it is free and the setting of this. So no signal is handled between, and no other thread gets
        the GIL."""
        self._waiting: trio.lowlevel.ParkingLot | None = None
        """The tasks that wait for their turn. They are of the holder's run."""

    def take_now(self) -> bool:
        """Takes the turn for the calling task, and returns True. Returns False if another task of this run
        has it."""
        task = running_task()
        holder = self.holder
        if holder is None:
            self.holder = task
        elif holder is not task:
            if holder._runner is not task._runner:
                raise RuntimeError("a task of another run is in the middle of a call on this file")
            return False
        if self._position.written_by is not None:
            self.check_run(task)
        return True

    def check_run(self, task: Any) -> None:
        """Gives up the turn and raises RuntimeError, if another run is writing to the file. Called for the
        task that has just taken the turn."""
        if self._position.written_by is not task._runner.io_manager:
            self.holder = None
            raise RuntimeError("another run is still writing to this file, or was abandoned while it did")

    async def take(self) -> None:
        """Takes the turn for the calling task. Waits for other tasks if need be."""
        if not self.take_now():
            if self._waiting is None:
                self._waiting = trio.lowlevel.ParkingLot()
            # `leave` makes the task that it wakes the holder.
            await self._waiting.park()
            self.holder = running_task()  # in case a signal handler interrupted `leave`

    @enable_ki_protection
    async def within(self, call: Callable[[], Awaitable[None]]) -> None:
        """Takes the turn for the calling task as `take` does, and awaits ``call()`` before it ends."""
        task = running_task()
        try:
            await self.take()
            await call()
        finally:
            self.leave(task)

    def leave(self, task: trio.lowlevel.Task) -> None:
        """Ends the turn of a task, and wakes the next. Does nothing if the task has no turn: a signal
        handler may raise just before it gets one, so callers do not know."""
        if self.holder is not task:
            return
        if self._waiting:
            (self.holder,) = self._waiting.unpark()
        else:
            self.holder = None


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
    """Returns a decorator, with which a method of a file waits for its turn. If the file is closed or
    detached, or its attribute ``allowed`` is false, the wrapped file answers instead, and raises as a
    rule."""

    def decorate(
        method: Callable[Concatenate[FileT, P], Coroutine[Any, Any, R]],
    ) -> Callable[Concatenate[FileT, P], Coroutine[Any, Any, R]]:
        name = "readline" if method.__name__ == "_next_line" else method.__name__

        @functools.wraps(method)
        @enable_ki_protection
        async def call(self: FileT, /, *args: P.args, **kwargs: P.kwargs) -> R:
            turns = self._turns
            # This is `take_now`, inlined for speed.
            try:
                task = context.task
            except AttributeError:
                task = running_task()
            try:
                holder = turns.holder
                if holder is None:
                    turns.holder = task
                elif holder is not task:
                    await turns.take()
                if self._position.written_by is not None:
                    turns.check_run(task)
                if self._raw.closed or self._is_detached or not getattr(self, allowed):
                    answer: R = getattr(self._wrapped, name)(*args, **kwargs)
                    await checkpoint()
                    return answer
                return await method(self, *args, **kwargs)
            finally:
                # This is `leave`, inlined for speed. Without a call no signal is handled meanwhile.
                if turns._waiting is not None:
                    turns.leave(task)
                elif turns.holder is task:
                    turns.holder = None

        return call

    return decorate


reading = _in_turn("_can_read")
writing = _in_turn("_can_write")
either = _in_turn("__class__")


async def gather_lines(
    readline: Callable[[], Awaitable[DataT]], hint: int, lines: list[DataT]
) -> list[DataT]:
    """Reads lines into ``lines``, and returns it, as ``readlines`` does. Stops when they are longer than
    ``hint`` together, if that is positive."""
    length = 0
    while line := await readline():
        lines.append(line)
        length += len(line)
        if 0 < hint < length:
            break
    return lines


async def write_lines(write: Callable[[Any], Awaitable[object]], lines: Iterable[Any]) -> None:
    """Writes lines, as ``writelines`` does. This is a checkpoint, even without any lines."""
    await checkpoint_at_once()
    for line in lines:
        await write(line)
