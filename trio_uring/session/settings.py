"""Where options come from, and which source has the last word.

  1. the environment         TRIO_URING_CHECKPOINT_BUDGET=16
  2. the call                run(..., ring=RingOptions(checkpoint_budget=16)); without ``ring``, the
                             options that `install` was given
  3. the command line        python -m trio_uring --checkpoint-budget 16, of this process or of the one
                             that has put it on io_uring (session/children.py)
  4. the defaults of `RingOptions`

For each option, the first source that mentions it counts. So an operator can override what a program
sets. Features add up: one that any source switches off is off.

The environment and the command line are text. Their errors are those of `RingOptions`, with the name of
the variable or of the command line's option in them. An empty variable does not count; in a process
with raised rights none does (`children.environment`). A variable that has our prefix and is none of ours
is told of once: a warning, since it may be one of another release.
"""

from __future__ import annotations

import functools
import os
import re
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ..ring.errors import stack_level_of_user
from ..ring.features import SWITCHES
from ..ring.options import RingOptions, given
from . import children, logs
from .option_names import DISABLE, FLAGS, NO_OPTIONS, PREFIX, SWITCHED, VARIABLES
from .wanted import command_line

if TYPE_CHECKING:
    from collections.abc import Mapping


def resolve(call: RingOptions | None) -> RingOptions:
    """The options of a run: ``call`` is what it, or `install`, was given. Any thread.

    Raises:
      ValueError: an option of the environment or of the command line is wrong.
    """
    _warn_of_unknown_variables()
    if not command_line and not _may_be_in_environment():
        return call or _DEFAULT
    variables = children.environment()
    environment = {name: text for name in VARIABLES if (text := variables.get(name))}
    told = children.told()
    if not environment and not command_line and not told:
        return call or _DEFAULT
    collected = _Collected()
    collected.add_texts({**of_parent(told), **command_line}, FLAGS)
    if call is not None:
        collected.add_options(call)
    collected.add_texts(environment, VARIABLES)
    return collected.options()


def _may_be_in_environment() -> bool:
    """Whether the environment may have a variable of ours.

    Asking `os.environ` for a name that it does not have raises and catches an exception, and each run would
    ask for all: so the dictionary behind it is asked first, where there is one.
    """
    data = getattr(os.environ, "_data", None)
    return type(data) is not dict or not _ENCODED.isdisjoint(data)


def check_command_line(options: Mapping[str, str]) -> None:
    """Raises ValueError if the options of the command line are wrong, whatever else is set."""
    collected = _Collected()
    collected.add_texts(options, FLAGS)
    collected.options()


def of_parent(told: str) -> dict[str, str]:
    """The options of the command line in a value of TRIO_URING, which a parent process may have set
    (session/children.py).

    Raises:
      ValueError: it is no value that TRIO_URING may have.
    """
    first, *words = told.split() or ["1"]
    options = dict(word.partition("=")[::2] for word in words)
    if first != "1" or not options.keys() <= FLAGS.keys():
        raise ValueError(f"TRIO_URING has to be 1 (every run on io_uring) or 0, not {told!r}")
    return options


@functools.cache
def _warn_of_unknown_variables() -> None:
    """Logs and warns of each variable that is none of ours, though its name says that it is: once per
    process, as the first run begins."""
    for name in os.environ:
        if name.startswith(PREFIX) and name not in VARIABLES and name not in NO_OPTIONS:
            text = f"{name} in the environment is no option of trio-uring; these are: {', '.join(VARIABLES)}"
            logs.warn(text)
            warnings.warn(text, RuntimeWarning, stacklevel=stack_level_of_user())


class _Collected:
    """Collects options from several sources. For each option the source that is added last counts."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._sources: dict[str, str] = {}
        """The user's name of each option that was text: that of a variable or of the command line."""
        self._features: dict[str, bool] = {}

    def add_texts(self, texts: Mapping[str, str], names: Mapping[str, str]) -> None:
        """Adds a source that is text. ``names`` has the option of each of the user's names."""
        for source, text in texts.items():
            name = names[source]
            if name == DISABLE:
                self._features.update(_disabled(source, text))
            else:
                self._values[name], self._sources[name] = _read(name, text), source

    def add_options(self, options: RingOptions) -> None:
        """Adds those of the options that were given, and not left to their defaults."""
        for name, value in given(options).items():
            if name == "features":
                self._features.update(value)
            else:
                self._values[name] = value
                self._sources.pop(name, None)

    def options(self) -> RingOptions:
        """The options that count; raises ValueError if one of them is wrong."""
        if self._features:
            self._values["features"] = self._features
        try:
            return RingOptions(**self._values)
        except (TypeError, ValueError) as error:
            raise ValueError(self._by_source(str(error))) from None

    def _by_source(self, error: str) -> str:
        """An error of `RingOptions`, with the user's name of the option."""
        found = re.match(r"RingOptions: (\w+)", error)
        if found is None or found[1] not in self._sources:
            return error
        if found[1] in SWITCHED:
            error = error.replace("True or False", "1 or 0")
        return self._sources[found[1]] + error[found.end() :]


def _read(name: str, text: str) -> object:
    """The value of an option that is text. If it makes no sense, the text, which `RingOptions` refuses."""
    if name in SWITCHED:
        return {"0": False, "1": True}.get(text, text)
    if name != "fallback" and re.fullmatch(r"\s*[+-]?[0-9]+\s*", text):
        with suppress(ValueError):  # it has more digits than Python takes
            return int(text)
    return text


def _disabled(source: str, text: str) -> dict[str, bool]:
    """The features that a text switches off."""
    names = text.replace(",", " ").split()
    for name in names:
        if name not in SWITCHES:
            raise ValueError(f"{source} has no {name!r}; it may name {', '.join(SWITCHES)}")
    return dict.fromkeys(names, False)


_DEFAULT: Final = RingOptions()
_ENCODED: Final = frozenset(os.fsencode(name) for name in (children.VARIABLE, *VARIABLES))
