"""The states of a socket of a run: what the kernel has been asked for, a receive or an accept.

  state       with the kernel
  IDLE        nothing
  ONCE        an operation that completes once, for the task that waits
  CANCELLING  the same, asked to stop; the task waits for the answer
  MULTISHOT   an operation that completes again and again
  STOPPING    the same, asked to stop
  NO_BUFFER   nothing, until there are buffers again; a task waits
  CLOSING     an operation of either kind, asked to stop; the socket is closed
  CLOSED      nothing; the socket is closed

`TRANSITIONS` says what leads from one state to another. Beside that, the end of a run makes every socket
CLOSED when its ring is gone, even where the kernel has not answered.
"""

from __future__ import annotations

import enum
from typing import Final


class State(enum.Enum):
    IDLE = enum.auto()
    ONCE = enum.auto()
    CANCELLING = enum.auto()
    MULTISHOT = enum.auto()
    STOPPING = enum.auto()
    NO_BUFFER = enum.auto()
    CLOSING = enum.auto()
    CLOSED = enum.auto()


# The name of a member is looked up in less time here than in its class.
IDLE: Final = State.IDLE
ONCE: Final = State.ONCE
CANCELLING: Final = State.CANCELLING
MULTISHOT: Final = State.MULTISHOT
STOPPING: Final = State.STOPPING
NO_BUFFER: Final = State.NO_BUFFER
CLOSING: Final = State.CLOSING
CLOSED: Final = State.CLOSED

TRANSITIONS: Final[dict[tuple[State, State], str]] = {
    (IDLE, ONCE): "a task waits, and nothing may be taken ahead, or it is the first receive",
    (IDLE, MULTISHOT): "a task waits",
    (IDLE, NO_BUFFER): "its receive has ended for want of a buffer, and the task waits still",
    (IDLE, CLOSED): "the socket is closed",
    (ONCE, IDLE): "the operation completes, or is taken back before the kernel has seen it",
    (ONCE, CANCELLING): "the task is cancelled, or the run ends",
    (ONCE, CLOSING): "the socket is closed",
    (CANCELLING, IDLE): "the operation completes",
    (CANCELLING, CLOSING): "the socket is closed",
    (MULTISHOT, IDLE): "the last completion, or it is taken back before the kernel has seen it",
    (MULTISHOT, STOPPING): "nothing more may be taken ahead for now, or the run ends",
    (MULTISHOT, CLOSING): "the socket is closed",
    (STOPPING, IDLE): "the last completion",
    (STOPPING, CLOSING): "the socket is closed",
    (NO_BUFFER, ONCE): "the tick has given buffers back",
    (NO_BUFFER, MULTISHOT): "the tick has given buffers back",
    (NO_BUFFER, IDLE): "the task is cancelled, or the run ends",
    (NO_BUFFER, CLOSED): "the socket is closed",
    (CLOSING, CLOSED): "the last completion",
}
"""What leads from a state to another one. There is no other way between two states."""

MULTISHOTS: Final = (MULTISHOT, STOPPING)
"""The states in which the operation is a multishot, for a socket that is open."""
NOTHING_SUBMITTED: Final = (IDLE, NO_BUFFER, CLOSED)
"""The states in which the kernel has nothing."""
