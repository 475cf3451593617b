"""native/waking.c."""

from collections.abc import Callable
from typing import Any

from trio.lowlevel import Task
from typing_extensions import Buffer

from .connection import Connection
from .operation import Operation

def learn(
    task_class: type[Task], operation_class: type[Operation], connection_class: type[Connection], /
) -> bool:
    """Before `wake`: the classes of what it works on. False if an attribute that it uses is none
    of their slots; it then leaves everything."""

def wake(
    events: Buffer,
    count: int,
    memory: Buffer,
    buffer_size: int,
    waiting: tuple[dict[int, Any], dict[int, Any], dict[int, Any], dict[int, Any]],
    ready: object,
    append: Callable[[Task], object],
    other: Callable[[int, int, int, int], object],
    /,
) -> None:
    """Processes the first ``count`` of a tick's ``events``: wakes tasks, each ``append``-ed to
    the runner's queue, and calls ``other`` with the fields of each event that it leaves.

    ``waiting`` has what waits for an event, by its kind and then by its key; ``memory`` the
    provided buffers, of ``buffer_size`` bytes each; ``ready`` is the answer to all but data.

    Raises AssertionError for a task that is awake already, as Trio's `reschedule` does.
    """
