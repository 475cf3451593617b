"""Runs the user's program on io_uring, as ``python`` would run it without us.

io_uring was installed before; where that fails, no line of the program runs. The
program gets what plain Python gives it: ``sys.argv``, ``sys.path[0]`` and a new
``__main__`` in `sys.modules`, whether it is a script, a module, a package, a text, or a
folder or zip file with a ``__main__.py``. Its exit status is the command's.

Python would print the traceback of an uncaught exception from its first frame on, which
is ours. So that is done here, as Python does it, through `sys.excepthook`, with the
program's own frames only. What Python itself then sees is a plain exit, or an interrupt
that prints nothing. A program can notice us only by the frames below its own in
`inspect.stack`, by `sys.orig_argv`, and by TRIO_URING in the environment, which puts the
processes that the program starts on io_uring as well (session/children.py).
"""

from __future__ import annotations

import builtins
import os
import pkgutil
import runpy
import sys
from importlib.machinery import BuiltinImporter, ModuleSpec, SourceFileLoader, SourcelessFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Literal, NamedTuple, NoReturn, TypeAlias

Kind: TypeAlias = Literal["script", "module", "text"]

# Python's own exit status for a program that it cannot read.
_UNREADABLE_STATUS = 2

_TEXT = "<string>"

# The packages whose frames stand above the program's in a traceback: they find, compile and run it.
_FOREIGN = frozenset(("trio_uring", "runpy", "pkgutil", "importlib", "_frozen_importlib", "zipimport"))


class Found(NamedTuple):
    """A program: its kind, its name on the command line, and the path if it is a script."""

    kind: Kind
    name: str
    path: str
    is_importable: bool
    """Whether it is a folder or a zip file with a ``__main__.py``."""


def find(kind: Kind, name: str) -> Found:
    """Sets ``sys.path`` to what the program is to have, and returns what `run` takes."""
    path = os.path.join(os.getcwd(), name)  # as Python has it: absolute, but not normalised
    is_importable = kind == "script" and pkgutil.get_importer(path) is not None
    if is_importable:
        _set_first_path(path, safe=True)
    elif kind == "script":
        _set_first_path(os.path.dirname(os.path.realpath(path)))
    else:
        _set_first_path(os.getcwd() if kind == "module" else "")
    return Found(kind, name, path, is_importable)


def run(found: Found, arguments: list[str]) -> int | str:
    """Runs the program, with ``arguments`` from its name on. Returns what is for `sys.exit`."""
    sys.argv[:] = arguments
    module = sys.modules["__main__"] = ModuleType("__main__")
    if sys.version_info < (3, 14):  # whose code makes the annotations when they are asked for
        vars(module).update(__annotations__={})
    vars(module).update(__builtins__=builtins)
    try:
        exec(_code(found, module), vars(module))
    except _CannotStartError as error:
        return f"{sys.executable}: {error}"
    except _CannotReadError as error:
        print(f"{sys.orig_argv[0]}: {error}", file=sys.stderr)
        return _UNREADABLE_STATUS
    except SystemExit:
        raise
    except BaseException as error:
        uncaught = error
    else:
        return 0
    _report(uncaught)
    if isinstance(uncaught, KeyboardInterrupt):
        _end_quietly(uncaught)
    return 1


def _set_first_path(path: str, *, safe: bool = False) -> None:
    """Puts ``path`` first in ``sys.path``, in the place of the folder that Python has put there for
    ``python -m trio_uring`` or for the command. With -P or -I Python puts none there, and takes only a path
    that is ``safe``."""
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0:1] = [path]
    elif safe:
        sys.path[0:0] = [path]


class _CannotStartError(Exception):
    """There is no such module, or it cannot be run. The text is Python's."""


class _CannotReadError(Exception):
    """The script cannot be read. The text is Python's."""


def _code(found: Found, module: ModuleType) -> CodeType:
    if found.kind == "text":
        return _compile_text(module, found.name)
    if found.kind == "module" or found.is_importable:
        return _find_module(module, found.name if found.kind == "module" else None)
    return _find_script(module, found.path)


def _find_script(module: ModuleType, path: str) -> CodeType:
    source, compiled = SourceFileLoader("__main__", path), SourcelessFileLoader("__main__", path)
    loader = compiled if path.endswith(".pyc") else source
    vars(module).update(__loader__=loader, __file__=path)
    _set_cached(module, None)
    try:
        data = source.get_data(path)
    except OSError as error:
        raise _CannotReadError(f"can't open file {path!r}: [Errno {error.errno}] {error.strerror}") from None
    code = compiled.get_code("__main__") if loader is compiled else source.source_to_code(data, path)
    assert isinstance(code, CodeType)
    return code


def _compile_text(module: ModuleType, text: str) -> CodeType:
    vars(module).update(__loader__=BuiltinImporter)
    sys.argv[0] = "-c"
    if sys.version_info >= (3, 14):
        from textwrap import dedent

        text = dedent(text)
    text += "\n"
    code: CodeType = compile(text, _TEXT, "exec", dont_inherit=True)
    if sys.version_info >= (3, 13):  # whose tracebacks show it
        import linecache

        key = code if hasattr(linecache, "_interactive_cache") else _TEXT
        linecache._register_code(key, text, _TEXT)  # type: ignore[attr-defined]
    return code


def _find_module(module: ModuleType, name: str | None) -> CodeType:
    """The code of ``name``, or, without one, of the ``__main__`` in ``sys.path[0]``.

    pdb and cProfile of the standard library ask runpy in the same way.
    """
    code: CodeType
    spec: ModuleSpec
    if name is None:
        _, spec, code = runpy._get_main_module_details(_CannotStartError)  # type: ignore[attr-defined]
    else:
        sys.argv[0] = "-m"
        _, spec, code = runpy._get_module_details(name, _CannotStartError)  # type: ignore[attr-defined]
        sys.argv[0] = str(spec.origin)
    vars(module).update(
        __file__=spec.origin,
        __loader__=spec.loader,
        __package__=spec.parent,
        __spec__=spec,
    )
    _set_cached(module, spec.cached)
    return code


def _set_cached(module: ModuleType, path: str | None) -> None:
    if sys.version_info < (3, 15):  # which has no such name
        vars(module).update(__cached__=path)


def _report(error: BaseException) -> None:
    """Does what Python does with an uncaught exception, except that it does not exit."""
    traceback = _own(error.__traceback__)
    error.__traceback__ = traceback
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, traceback
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    try:
        sys.excepthook(type(error), error, traceback)
    except SystemExit:
        raise
    except BaseException as another:
        print("Error in sys.excepthook:", file=sys.stderr)
        another.__traceback__ = _own(another.__traceback__)
        sys.__excepthook__(type(another), another, another.__traceback__)
        print("\nOriginal exception was:", file=sys.stderr)
        sys.__excepthook__(type(error), error, traceback)


def _own(traceback: TracebackType | None) -> TracebackType | None:
    """``traceback``, from the program's first frame on."""
    while traceback and traceback.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _FOREIGN:
        traceback = traceback.tb_next
    return traceback


def _end_quietly(interrupt: KeyboardInterrupt) -> NoReturn:
    """Raises ``interrupt`` to Python, which shuts down and then kills itself with SIGINT, so that a shell
    knows of it and stops its script. Nothing is printed: the traceback was printed before."""
    hook, traceback = sys.excepthook, interrupt.__traceback__

    def restore(*_: object) -> None:
        sys.excepthook, interrupt.__traceback__, sys.last_traceback = hook, traceback, traceback

    sys.excepthook = restore
    raise interrupt
