"""Who has asked for io_uring: `install`, a call of `run` in this thread, or the command line."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import weakref

    from ..loop.manager import UringManager
    from ..ring.options import RingOptions
    from .replacement import Holder


class _Installed:
    """What `install` has asked for, for every run of the process."""

    options: RingOptions | None = None
    """None: nothing is installed."""
    warned = False
    """Whether `install` has warned already that runs fall back to epoll."""


class _Request(threading.local):
    """What the calling thread has asked for, for the next run that it starts."""

    options: RingOptions | None = None
    """None: nobody has asked."""
    holder: Holder | None = None
    """Keeps Trio's names replaced. The run takes it over."""
    is_set_up = False
    """Whether a ``setup_runner`` of ours is being called."""
    declined = False
    """Whether an `IOManager` is calling what it has replaced, for a run that is not to be on io_uring."""
    manager: weakref.ref[UringManager] | None = None
    """The last manager that was made in this thread."""


installed = _Installed()
command_line: dict[str, str] = {}
"""The options of ``python -m trio_uring``, by their names on the command line."""
request = _Request()
