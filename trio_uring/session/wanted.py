"""Who wants io_uring: what `install` was told, what a thread's next run was asked to use, and what
the command line said."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import weakref

    from ..loop.manager import UringManager
    from ..ring.options import RingOptions


class _Installed:
    """For every run of the process."""

    options: RingOptions | None = None
    warned = False
    """`install` has said already that its runs fall back to epoll."""


class _Request(threading.local):
    """For one run, by the thread that starts it."""

    options: RingOptions | None = None
    is_set_up = False
    """A `setup_runner` of ours is being called."""
    declined = False
    """An `IOManager` of ours is asking what it was put over for a manager."""
    manager: weakref.ref[UringManager] | None = None
    """The one that was made last."""


installed = _Installed()
command_line: dict[str, str] = {}
"""The options of ``python -m trio_uring``, by their names there."""
request = _Request()
