"""Puts whole processes on io_uring: what each Python process of this environment does as it starts.

A file beside the package calls `start` whenever an interpreter starts: ``trio_uring.pth``, or, from
CPython 3.15 on, ``trio_uring.start``. The environment variable TRIO_URING decides what that does:

  ==========================  ==============================================================
  not set, empty, or 0        nothing
  1                           every run of the process is on io_uring
  1 --OPTION=VALUE ...        the same, with these options of the command line of
                              ``python -m trio_uring``, which has set it for its children
  ==========================  ==============================================================

Most processes never import Trio. So `start` only puts a finder into `sys.meta_path`, which takes itself
out when Trio is imported. Until then no other module of ours is imported, and of the standard library
only modules that every interpreter imports as it starts. Nobody else notices the finder: `importlib`
finds and loads what it would find and load without it.

When Trio was imported, the session is imported at once, and replaces names of Trio, if the process has
one thread only. Another thread might be importing the session just then, and be waiting for Trio; so
with more threads the first run imports the session. If io_uring cannot be used, the first run raises
that, since many a process imports Trio and runs nothing.

A process that has more rights than who has started it, as of a setuid program, looks at no variable of ours
(`environment`).

`start` may be called any number of times: a virtual environment of CPython before 3.15 reads its
``.pth`` files twice.
"""

import _thread
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

VARIABLE = "TRIO_URING"
_TRIO = "trio"
_SESSION = "trio_uring.session.runs"


_decides_itself = False
_waiting: "tuple[ModuleType, Callable[..., Any], Callable[..., Any]] | None" = None
"""While the first run is to import the session: Trio's module, our function that is its ``setup_runner``
meanwhile, and the function that was there before."""


def start() -> None:
    """Called as an interpreter starts, by the files named above."""
    if not told():
        return
    if _TRIO in sys.modules:
        if _SESSION not in sys.modules:
            _join()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def told() -> str:
    """The value of TRIO_URING; empty if it leaves this process alone."""
    text = environment().get(VARIABLE, "").strip()
    return "" if text == "0" or _decides_itself else text


def environment() -> "Mapping[str, str]":
    """The environment, for the variables of ours. Empty where who has set it is to have no say: the process
    has another user's or group's rights (setuid, setgid), and was not started by root."""
    user = os.getuid()
    raised = user != 0 and (user != os.geteuid() or os.getgid() != os.getegid())
    return {} if raised else os.environ


def decide() -> str:
    """Has this process ignore TRIO_URING from now on. Returns its value so far, as `told` does. Called by the
    command line, which has options of its own."""
    global _decides_itself  # noqa: PLW0603
    said = told()
    _remove_finder()
    take_back()
    _decides_itself = True
    return said


def take_along(options: "Mapping[str, str]") -> None:
    """Has every Python process that this one starts from now on be on io_uring, with these ``options`` of
    the command line, unless TRIO_URING says 0."""
    if os.environ.get(VARIABLE) != "0":
        words = (f"{name}={','.join(text.replace(',', ' ').split())}" for name, text in options.items())
        os.environ[VARIABLE] = " ".join(["1", *words])


def leave_behind() -> None:
    """Has the processes that this one starts from now on be as they are without trio-uring."""
    os.environ.pop(VARIABLE, None)


def _session() -> "Any":
    """Imports the session: only now and by its name, since it imports this module."""
    __import__(_SESSION)
    return sys.modules[_SESSION]


def take_back() -> None:
    """Gives ``setup_runner`` back to Trio, unless somebody else has replaced it. Called by the session when
    it is there."""
    global _waiting  # noqa: PLW0603
    if _waiting is not None:
        trio_run, ours, trios = _waiting
        if vars(trio_run).get(_NAME) is ours:
            setattr(trio_run, _NAME, trios)
        _waiting = None


def _join() -> None:
    """Called when Trio has just been imported."""
    _wait_for_run()
    if _SESSION in sys.modules:
        return  # another thread is importing it
    if _waiting is None or not _thread._count():
        session = _session()
        if _waiting is None:  # this Trio has no `setup_runner`: no run will tell of a refusal
            session.raise_refusal()


_NAME = "setup_runner"


def _wait_for_run() -> None:
    """Has the first run import the session."""
    global _waiting  # noqa: PLW0603
    trio_run = sys.modules.get("trio._core._run")
    trios: Any = getattr(trio_run, _NAME, None)
    if trio_run is None or trios is None:
        return

    def setup_runner(*args: "Any", **kwargs: "Any") -> "Any":
        return _session().set_up(trios, *args, **kwargs)

    setup_runner.__wrapped__ = trios  # type: ignore[attr-defined]
    _waiting = trio_run, setup_runner, trios
    setattr(trio_run, _NAME, setup_runner)


def _remove_finder() -> None:
    # A new list: another thread may be going through the old one, and would skip the next finder.
    sys.meta_path = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]


class _Finder:
    """Finds Trio as the finders behind it do, but with a loader that calls `_join` when Trio is imported."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name != _TRIO:
            return None
        behind = sys.meta_path[sys.meta_path.index(self) + 1 :] if self in sys.meta_path else ()
        for finder in behind:
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec(name, path, target) if find_spec else None
            if spec is not None:
                if spec.submodule_search_locations is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """Takes the place of Trio's loader until the module is loaded, and looks like it to everybody else."""

    def __init__(self, loader: "Any") -> None:
        self._loader = loader

    @property  # type: ignore[misc]
    def __class__(self) -> "Any":
        return type(self._loader)

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._loader, name)

    def exec_module(self, module: "ModuleType") -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _remove_finder()
        _join()


# Python leaves the frames of its import system out of tracebacks, by the name of their file. Our frame is
# between them, and of as little use to a reader.
_Loader.exec_module.__code__ = _Loader.exec_module.__code__.replace(
    co_filename="<frozen importlib._bootstrap_external>"
)
