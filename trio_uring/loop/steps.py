"""Steps of which each is made, whatever an earlier one has raised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# Exceptions out of signal handlers hardly come more often in a row.
_TRIES: Final = 10


class Steps:
    """Steps that are all made, whatever one of them raises. `end` raises the first exception."""

    def __init__(self) -> None:
        self._first: BaseException | None = None

    def make(self, step: Callable[..., object], *args: object) -> None:
        """Makes a step, whatever it raises."""
        try:
            step(*args)
        except BaseException as error:
            self._first = self._first or error

    def complete(self, step: Callable[..., object], *args: object) -> None:
        """Makes a step again and again until it comes to its end; it has to allow that. An exception out of
        a signal handler, or a want of memory, may break it off."""
        for _ in range(_TRIES):
            try:
                step(*args)
                return
            except BaseException as error:
                self._first = self._first or error

    def end(self) -> None:
        """Raises the first exception, if there was one."""
        if self._first is not None:
            try:
                raise self._first
            finally:  # else the traceback of the exception would refer back to this object
                self._first = None
