"""The machine finds faults: Trio's file with one planted in each."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from equivalence import EPOLL
from state_machine import check
from subjects import Subject

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from calls import File


class Faulty:
    """A file of which one method is replaced by a function of the file and the arguments."""

    def __init__(self, file: File, name: str, fault: Callable[..., Awaitable[object]]) -> None:
        self._file = file
        setattr(self, name, partial(fault, file))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __aiter__(self) -> Any:
        return self._file.__aiter__()


async def loses_a_byte_behind_the_border(file: File, *size: Any) -> Any:
    data = await file.read(*size)
    return data[:8192] + data[8193:]


async def is_one_too_far(file: File) -> int:
    position: int = await file.tell()
    return position + (position > 4096)


async def stays_in_the_buffer(file: File) -> None:
    await trio.lowlevel.checkpoint()


async def moves_the_position(file: File, *size: Any) -> Any:
    result = await file.truncate(*size)
    await file.seek(0, 2)
    return result


async def writes_only_the_first_thousand(file: File, data: Any) -> Any:
    await file.write(data[:1000])
    return len(data)


async def is_no_checkpoint(file: File, *size: Any) -> Any:
    return file.wrapped.readline(*size)


async def has_a_message_of_its_own(file: File, *where: Any) -> Any:
    try:
        return await file.seek(*where)
    except ValueError as error:
        raise type(error)("this cannot be done") from None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("read", loses_a_byte_behind_the_border),
        ("tell", is_one_too_far),
        ("flush", stays_in_the_buffer),
        ("truncate", moves_the_position),
        ("write", writes_only_the_first_thousand),
        ("readline", is_no_checkpoint),
        ("seek", has_a_message_of_its_own),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__.replace("_", "-"),
)
def test_a_planted_fault_is_found(name: str, fault: Callable[..., Awaitable[object]]) -> None:
    async def open_file(*args: Any, **kwargs: Any) -> Faulty:
        return Faulty(await trio.open_file(*args, **kwargs), name, fault)

    with pytest.raises(AssertionError):
        check(Subject("faulty", EPOLL, open_file, iterates_by_readline=True), shrinks=False)
