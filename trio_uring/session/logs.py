"""The log, by the logger ``trio_uring``: what the runs of this process are on.

  INFO     once per process: the backend, the kernel and the options, when the first run begins; or, if
           no handler listens at that time, as soon as one does
  WARNING  once per process and reason: why runs are on epoll instead, and which variable of the
           environment has a name that says nothing to us; of both there is a Python warning too. Why
           `RingOptions.accelerate` has no effect

Nothing is configured here. If no handler listens, nothing is logged: Python's handler of last resort
would only repeat the warning. And the logger is not made before it is used, since `logging.config`
disables the loggers that exist already.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..ring.options import RingOptions

_NAME: Final = "trio_uring"
_told: set[tuple[int, str]] = set()
"""The process and the subject of each message that was logged. A forked child is another process."""


def tell_backend(backend: str, options: RingOptions, used: Iterable[str] = ()) -> bool:
    """Logs what the runs of this process are on; False if no handler listens. Any thread."""

    def text() -> str:
        values = attrs.asdict(options, recurse=False)
        del values["features"]
        told = " ".join(f"{name}={value}" for name, value in values.items())
        off = ",".join(options.features) or "nothing"
        uses = f"; the ring uses {', '.join(used)}" if used else ""
        return f"Trio runs on {backend}: Linux {os.uname().release}; {told} disabled={off}{uses}"

    return _say_once(logging.INFO, "backend", text)


def warn(text: str) -> None:
    """Logs what a user has asked for and does not have. Any thread."""
    _say_once(logging.WARNING, text, lambda: text)


def _say_once(level: int, what: str, text: Callable[[], str]) -> bool:
    """Logs what ``text`` returns, unless this process has logged something about ``what`` before."""
    key = os.getpid(), what
    if key in _told:
        return True
    is_made = _NAME in logging.Logger.manager.loggerDict
    logger = logging.getLogger(_NAME if is_made else None)
    if not logger.isEnabledFor(level) or not logger.hasHandlers():
        return False
    _told.add(key)
    logging.getLogger(_NAME).log(level, "%s", text())
    return True
