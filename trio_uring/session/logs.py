"""What a process runs on, in the log: the logger ``trio_uring``.

  INFO     once a process: its backend, kernel and options, when its first run begins; or, if
           nobody listens at that time, as soon as somebody does
  WARNING  once a process for each reason why it is on epoll instead, beside the warning

Nothing is configured here. Where nobody listens nothing is said: Python's handler of last resort
would only say again what the warning says. And the logger is not made before it is used, since a
configuration that comes later disables those that are there.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..ring.options import RingOptions

_NAME: Final = "trio_uring"
_told: set[tuple[int, str]] = set()
"""By which process, and what. A forked child is another one."""


def tell_backend(backend: str, options: RingOptions, used: Iterable[str] = ()) -> bool:
    """Says what the runs of this process are on; False if nobody listens."""
    text = " ".join(
        f"{name}={value}"
        for name, value in attrs.asdict(options, recurse=False).items()
        if name != "features"
    )
    off = ",".join(options.features) or "nothing"
    uses = f"; the ring uses {', '.join(used)}" if used else ""
    return _say_once(
        logging.INFO,
        "backend",
        f"Trio runs on {backend}: Linux {os.uname().release}; {text} disabled={off}{uses}",
    )


def tell_fallback(text: str) -> None:
    _say_once(logging.WARNING, text, text)


def _say_once(level: int, what: str, text: str) -> bool:
    key = os.getpid(), what
    if key in _told:
        return True
    is_made = _NAME in logging.Logger.manager.loggerDict
    logger = logging.getLogger(_NAME if is_made else None)
    if not logger.isEnabledFor(level) or not logger.hasHandlers():
        return False
    _told.add(key)
    logging.getLogger(_NAME).log(level, "%s", text)
    return True
