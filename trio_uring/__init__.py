"""Trio programs on Linux io_uring.

``trio_uring.run(main)`` is `trio.run` with an io_uring I/O manager;
``python -m trio_uring app.py`` runs an unmodified program on it.
"""

from .errors import UringFallbackWarning, UringUnavailableError
from .manager import UringStatistics
from .options import RingOptions
from .session import install, installed, run, start_guest_run, uninstall

__all__ = [
    "RingOptions",
    "UringFallbackWarning",
    "UringStatistics",
    "UringUnavailableError",
    "install",
    "installed",
    "run",
    "start_guest_run",
    "uninstall",
]
