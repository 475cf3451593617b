"""The file of an FdStream, as one run knows it."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from ..loop.trio_internals import WaitTaskRescheduled, context

if TYPE_CHECKING:
    from ..loop.readiness import Readiness


class RunPipe:
    """What a run knows of the file of one `trio.lowlevel.FdStream`, which has it as an attribute."""

    __slots__ = ("is_drained", "is_unnamed", "message", "run", "runner")

    def __init__(self, run: Readiness, fd: int) -> None:
        self.run = run
        self.runner: object = context.runner
        """Trio's own object for the run."""
        self.message: Any = WaitTaskRescheduled(partial(run.abort_read, fd))
        """What a task sleeps with that `start_reading` has made a reader."""
        self.is_drained = False
        """Whether the last receive has emptied the pipe. Never of other files, and never at the end."""
        self.is_unnamed = _is_unnamed_pipe(fd)
        """Whether it is a pipe that pipe(2) has made."""


def _is_unnamed_pipe(fd: int) -> bool:
    """Whether it is a pipe that was made by pipe(2). Without /proc that cannot be told, and the answer is
    no."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:[")
    except OSError:
        return False


def pipe_of(stream: Any) -> tuple[RunPipe | None, Any]:
    """Returns what the run that calls knows of a stream's file, and the task that calls. None for the first
    if Trio's own method has to do the call: the run is on epoll or without this feature, nobody is in a run,
    or the stream is closed."""
    task: Any = getattr(context, "task", None)
    run: Any = None if task is None else task._runner.io_manager
    fd: int = stream._fd_holder.fd
    if not getattr(run, "has_pipes", False) or fd < 0:
        return None, task
    stream._uring_pipe = pipe = RunPipe(run, fd)
    return pipe, task
