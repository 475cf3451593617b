"""Runs the user's program on io_uring, as ``python`` would run it without us.

    python -m trio_uring [--fallback=epoll|error] app.py ARGUMENT ...
    python -m trio_uring [--fallback=epoll|error] -m module ARGUMENT ...

io_uring is installed first; if that fails, no line of the program has run. Then the
program gets what plain Python gives it: ``sys.argv``, ``sys.path[0]`` and a new
``__main__`` in `sys.modules`, whether it is a script, a module, a package, or a
folder or zip file with a ``__main__.py``. Its exit status is the command's.

Python prints the traceback of an uncaught exception from the frame that it started,
which is ours. So it is done here instead, through `sys.excepthook`, in the order in
which Python does it and with the traceback cut to the program's own frames; and when
Python sees the end of it, it is a plain exit, or an interrupt that prints nothing. What
remains to be seen of us are the frames below the program's in `inspect.stack` and
`sys.orig_argv`.

Processes that the program spawns are plain Python: their Trio runs are on epoll,
unless they install io_uring themselves. Those that it forks inherit it.
"""

from __future__ import annotations

import builtins
import importlib.metadata
import os
import pkgutil
import runpy
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader, SourcelessFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from .options import Fallback

USAGE = """\
usage: python -m trio_uring [--fallback=epoll|error] FILE ARGUMENT ...
       python -m trio_uring [--fallback=epoll|error] -m MODULE ARGUMENT ...
       python -m trio_uring doctor [--json]
       python -m trio_uring --help | --version"""

HELP = f"""{USAGE}

Runs a Trio program, unchanged, on Linux io_uring. FILE is a script, or a folder or
zip file with a __main__.py. `doctor` tells what this kernel, liburing and container
allow, what is missing and how to get it; a file of that name is run as ./doctor.

  --fallback=error  where io_uring cannot be used, say why and exit (the default)
  --fallback=epoll  where io_uring cannot be used, warn and run on epoll

TRIO_URING_FALLBACK=epoll|error overrides --fallback; TRIO_URING_DISABLE=NAME,...
switches features off, by the names that `doctor` prints. Processes that the program
spawns are plain Python, on epoll; those that it forks are on io_uring."""

_FALLBACKS: dict[str, Fallback] = {"--fallback=error": "error", "--fallback=epoll": "epoll"}

# Python's own for a command line that it cannot follow.
_USAGE_STATUS = 2

# Whose frames are above the program's when it is found, compiled and run.
_FOREIGN = frozenset(("trio_uring", "runpy", "pkgutil", "importlib", "_frozen_importlib", "zipimport"))


def main(arguments: list[str]) -> int | str:
    """The command ``python -m trio_uring ARGUMENT ...``; for `sys.exit`."""
    fallback: Fallback = "error"
    as_module = False
    while arguments and arguments[0].startswith("-") and not as_module:
        option, *arguments = arguments
        if option in ("-h", "--help"):
            return _print(HELP)
        if option in ("-V", "--version"):
            return _print(f"trio-uring {importlib.metadata.version('trio-uring')}")
        if option.startswith("-m"):
            as_module = True
            arguments = [*filter(None, [option[2:]]), *arguments]
        elif option in _FALLBACKS:
            fallback = _FALLBACKS[option]
        else:
            return _misused(f"{option} is not an option")
    if not arguments:
        return _misused("-m needs the name of a module" if as_module else "the program is missing")
    if arguments[0] == "doctor" and not as_module:
        return _doctor(arguments[1:])
    return _run(fallback, arguments, as_module=as_module)


def _misused(what: str) -> int:
    print(f"trio_uring: {what}\n{USAGE}", file=sys.stderr)
    return _USAGE_STATUS


def _doctor(arguments: list[str]) -> int | str:
    if arguments not in ([], ["--json"]):
        return _misused(f"doctor takes --json or nothing, not {' '.join(arguments)}; ./doctor runs a file")
    try:
        from . import doctor

        report, status = doctor.report(as_json=bool(arguments))
    except (ImportError, ValueError) as error:
        return f"trio_uring: {error}"
    return _print(report) or status


def _print(text: str) -> int:
    """Who has read enough, as ``head`` has, is no error; Python flushes once more as it exits."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _run(fallback: Fallback, arguments: list[str], *, as_module: bool) -> int | str:
    name = arguments[0]
    path = os.path.join(os.getcwd(), name)  # as Python has it: absolute, but not normalised
    is_importable = not as_module and pkgutil.get_importer(path) is not None
    if is_importable:
        _set_first_path(path)
    elif not as_module and not _is_path_safe():
        _set_first_path(os.path.dirname(os.path.realpath(path)))
    if refusal := _install(fallback):
        return refusal
    sys.argv[:] = arguments
    module = sys.modules["__main__"] = ModuleType("__main__")
    if sys.version_info < (3, 14):  # whose code makes the annotations when they are asked for
        vars(module).update(__annotations__={})
    vars(module).update(__builtins__=builtins)
    try:
        if as_module or is_importable:
            code = _find_module(module, name if as_module else None)
        else:
            code = _find_script(module, path)
        exec(code, vars(module))
    except _CannotStartError as error:
        return f"{sys.executable}: {error}"
    except _CannotReadError as error:
        print(f"{sys.orig_argv[0]}: {error}", file=sys.stderr)
        return _USAGE_STATUS
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


def _is_path_safe() -> bool:
    """Whether Python was told (-P, -I) not to look for modules beside the program."""
    return bool(sys.flags.isolated or getattr(sys.flags, "safe_path", False))


def _set_first_path(path: str) -> None:
    """Puts ``path`` where Python put the working directory, on account of its own -m."""
    sys.path[0 : 0 if _is_path_safe() else 1] = [path]


def _install(fallback: Fallback) -> str:
    """Puts the process on io_uring; returns why it cannot, or an empty string."""
    try:
        from . import session
        from .options import RingOptions

        session.install(RingOptions(fallback=fallback))
    except (ImportError, RuntimeError, ValueError) as error:
        return f"trio_uring: {error}"
    return ""


class _CannotStartError(Exception):
    """There is no such module, or it cannot be run; Python's words."""


class _CannotReadError(Exception):
    """The script cannot be read; Python's words."""


def _find_script(module: ModuleType, path: str) -> CodeType:
    source, compiled = SourceFileLoader("__main__", path), SourcelessFileLoader("__main__", path)
    loader = compiled if path.endswith(".pyc") else source
    vars(module).update(__loader__=loader, __file__=path, __cached__=None)
    try:
        data = source.get_data(path)
    except OSError as error:
        raise _CannotReadError(f"can't open file {path!r}: [Errno {error.errno}] {error.strerror}") from None
    code = compiled.get_code("__main__") if loader is compiled else source.source_to_code(data, path)
    assert isinstance(code, CodeType)
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
        __cached__=spec.cached,
        __loader__=spec.loader,
        __package__=spec.parent,
        __spec__=spec,
    )
    return code


def _report(error: BaseException) -> None:
    """Does what Python does with an exception that nobody caught, short of exiting."""
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
    """``traceback`` from the program's first frame on."""
    while traceback and traceback.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _FOREIGN:
        traceback = traceback.tb_next
    return traceback


def _end_quietly(interrupt: KeyboardInterrupt) -> NoReturn:
    """Raises it to Python, which then kills itself by SIGINT when it has shut down, so that
    a shell knows, and stops a script. What there was to tell has been told."""
    hook, traceback = sys.excepthook, interrupt.__traceback__

    def restore(*_: object) -> None:
        sys.excepthook, interrupt.__traceback__, sys.last_traceback = hook, traceback, traceback

    sys.excepthook = restore
    raise interrupt
