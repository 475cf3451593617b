"""Takes processes along: what each Python process of this environment does as it starts.

``trio_uring.pth``, or from CPython 3.15 on ``trio_uring.start``, which are installed beside the
package, call `start`. TRIO_URING in the environment decides:

  ==========================  ==============================================================
  not set, empty, or 0        nothing
  1                           every run of the process is on io_uring
  1 --OPTION=VALUE ...        the same, with these options of the command line of
                              ``python -m trio_uring``, which has set it for its children
  ==========================  ==============================================================

Most processes never import Trio. So a finder waits for that in `sys.meta_path`, and leaves when
it has happened; until then nothing else of ours is imported, and of the standard library only
what an interpreter has as it starts. Nobody else sees it: `importlib` finds and loads what it
would find and load without us.

The session, which puts its names into Trio, is then imported at once if there is no other thread.
If there is, that one may be importing the session, and wait for Trio; so the first run does it.
Who is refused is told by his first run in any case: many a process imports Trio and runs nothing.

May be called any number of times: a virtual environment of CPython before 3.15 reads its
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
"""Where Trio sets its runs up, what is there until the session is imported, and what was there."""


def start() -> None:
    """As an interpreter starts."""
    if not told():
        return
    if _TRIO in sys.modules:
        if _SESSION not in sys.modules:
            _join()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def told() -> str:
    """What TRIO_URING says, empty if it leaves this process alone."""
    text = os.environ.get(VARIABLE, "").strip()
    return "" if text == "0" or _decides_itself else text


def decide() -> str:
    """From now on this process decides for itself. What TRIO_URING has said so far."""
    global _decides_itself  # noqa: PLW0603
    said = told()
    _leave()
    take_back()
    _decides_itself = True
    return said


def take_along(options: "Mapping[str, str]") -> None:
    """Every Python process that this one starts from now on is put on io_uring with these
    ``options`` of the command line, unless TRIO_URING says 0."""
    if os.environ.get(VARIABLE) != "0":
        words = (f"{name}={','.join(text.replace(',', ' ').split())}" for name, text in options.items())
        os.environ[VARIABLE] = " ".join(["1", *words])


def leave_behind() -> None:
    """The processes that this one starts from now on are what they are without us."""
    os.environ.pop(VARIABLE, None)


def _session() -> "Any":
    """Imports the session, by its name: it imports this module."""
    __import__(_SESSION)
    return sys.modules[_SESSION]


def take_back() -> None:
    """The session is there: Trio's name is given back, unless somebody has put something else there."""
    global _waiting  # noqa: PLW0603
    if _waiting is not None:
        trio_run, ours, trios = _waiting
        if vars(trio_run).get(_NAME) is ours:
            setattr(trio_run, _NAME, trios)
        _waiting = None


def _join() -> None:
    """Trio has just been imported."""
    _wait_for_run()
    if _SESSION in sys.modules:
        return  # whoever imports it goes on with that now
    if _waiting is None or not _thread._count():
        session = _session()
        if _waiting is None:  # since this is a Trio whose runs we shall not see
            session.raise_refusal()


_NAME = "setup_runner"


def _wait_for_run() -> None:
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


def _leave() -> None:
    # A new list: another thread may be in the middle of the old one, and would miss what moved up.
    sys.meta_path = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]


class _Finder:
    """Finds Trio, where the finders behind it do, and has its loader tell when it is imported."""

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
    """Stands for Trio's loader until the module is there, and passes for it meanwhile."""

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
        _leave()
        _join()


# Python leaves its own frames of an import out of tracebacks, by this name of their file. Ours is
# between them, and is no more use to who reads one.
_Loader.exec_module.__code__ = _Loader.exec_module.__code__.replace(
    co_filename="<frozen importlib._bootstrap_external>"
)
