"""Where tasks are, for who has to find out why they hang."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import trio


def print_task(task: trio.lowlevel.Task, file: TextIO) -> None:
    """Prints a task and its frames, the outermost first."""
    print(f"task {task.name}", file=file)
    for frame, line in task.iter_await_frames():
        code = frame.f_code
        print(f"    {Path(code.co_filename).name}:{line} {code.co_name}", file=file)


def print_tasks_below(task: trio.lowlevel.Task, file: TextIO) -> None:
    """Prints a task, and all that it is the ancestor of."""
    print_task(task, file)
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            print_tasks_below(child, file)
