"""Where options come from, and which of them has the last word.

  1. the environment         TRIO_URING_CHECKPOINT_BUDGET=16
  2. the call                run(..., ring=RingOptions(checkpoint_budget=16)), or what `install`
                             was told, if the call says nothing
  3. the command line        python -m trio_uring --checkpoint-budget 16, of this process or of
                             the one that has taken it along
  4. the defaults of `RingOptions`

For each option by itself, the first of these that says something about it counts; so an operator
can set what a program sets otherwise. Features only add up: what one of them switches off is off.

The environment and the command line are text, of which the errors are those of `RingOptions`,
by the name that the user knows. An empty variable says nothing.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

from ..ring.features import SWITCHES
from ..ring.options import RingOptions, given
from . import children
from .option_names import DISABLE, FLAGS, VARIABLES
from .wanted import command_line

if TYPE_CHECKING:
    from collections.abc import Mapping


def resolve(call: RingOptions | None) -> RingOptions:
    """What a run uses that is given ``call``.

    Raises:
      ValueError: an option of the environment or of the command line is wrong.
    """
    environment = {name: text for name in VARIABLES if (text := os.environ.get(name))}
    told = children.told()
    if not environment and not command_line and not told:
        return call or _DEFAULT
    said = _Said()
    said.texts({**of_parent(told), **command_line}, FLAGS)
    if call is not None:
        said.options(call)
    said.texts(environment, VARIABLES)
    return said.together()


def check_command_line(options: Mapping[str, str]) -> None:
    """Raises ValueError if they are wrong by themselves."""
    said = _Said()
    said.texts(options, FLAGS)
    said.together()


def of_parent(told: str) -> dict[str, str]:
    """The options of the command line that a parent has put into TRIO_URING (session/children.py).

    Raises:
      ValueError: it is none of its values.
    """
    first, *words = told.split() or ["1"]
    options = dict(word.partition("=")[::2] for word in words)
    if first != "1" or not options.keys() <= FLAGS.keys():
        raise ValueError(f"TRIO_URING has to be 1 (every run on io_uring) or 0, not {told!r}")
    return options


class _Said:
    """What is said of the options: whoever comes later has the last word."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._sources: dict[str, str] = {}
        """By which name the user knows an option that was text."""
        self._features: dict[str, bool] = {}

    def texts(self, texts: Mapping[str, str], names: Mapping[str, str]) -> None:
        for source, text in texts.items():
            name = names[source]
            if name == DISABLE:
                self._features.update(_disabled(source, text))
            else:
                self._values[name], self._sources[name] = _read(name, text), source

    def options(self, options: RingOptions) -> None:
        for name, value in given(options).items():
            if name == "features":
                self._features.update(value)
            else:
                self._values[name] = value
                self._sources.pop(name, None)

    def together(self) -> RingOptions:
        if self._features:
            self._values["features"] = self._features
        try:
            return RingOptions(**self._values)
        except (TypeError, ValueError) as error:
            raise ValueError(self._by_source(str(error))) from None

    def _by_source(self, error: str) -> str:
        found = re.match(r"RingOptions: (\w+)", error)
        if found is None or found[1] not in self._sources:
            return error
        if found[1] == "files":
            error = error.replace("True or False", "1 or 0")
        return self._sources[found[1]] + error[found.end() :]


def _read(name: str, text: str) -> object:
    """The value that is meant; or the text, which `RingOptions` then refuses."""
    if name == "files":
        return {"0": False, "1": True}.get(text, text)
    if name != "fallback" and re.fullmatch(r"\s*[+-]?[0-9]+\s*", text):
        return int(text)
    return text


def _disabled(source: str, text: str) -> dict[str, bool]:
    names = text.replace(",", " ").split()
    for name in names:
        if name not in SWITCHES:
            raise ValueError(f"{source} has no {name!r}; it may name {', '.join(SWITCHES)}")
    return dict.fromkeys(names, False)


_DEFAULT: Final = RingOptions()
