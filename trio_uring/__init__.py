"""Trio programs on Linux io_uring.

``trio_uring.run(main)`` is `trio.run` with an io_uring I/O manager;
``python -m trio_uring app.py`` runs an unmodified program on it.

What is public are the names in ``__all__`` here and in `trio_uring.lowlevel`, with the command line,
the plugin and their options. Everything else may change with any release, whatever its name: the
packages beside `lowlevel` are the rooms of the house (docs/architecture.md), not an interface.

PYTEST_DONT_REWRITE: with ``python -m trio_uring -m pytest`` this is imported before pytest is.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import lowlevel
    from .command.capabilities import Capabilities, capabilities
    from .files.opening import open_file, wrap_file
    from .files.path import Path
    from .files.spooled import SpooledTemporaryFile
    from .files.temporary import NamedTemporaryFile, TemporaryDirectory, TemporaryFile
    from .files.temporary_names import gettempdir, gettempdirb, mkdtemp, mkstemp
    from .files.to_stream import send_file
    from .loop.statistics import UringStatistics
    from .ring.errors import UringFallbackWarning, UringUnavailableError
    from .ring.options import RingOptions
    from .session.runs import install, installed, run, run_statistics, start_guest_run, uninstall
    from .sockets.datagrams import Datagram, Datagrams

__all__ = [
    "Capabilities",
    "Datagram",
    "Datagrams",
    "NamedTemporaryFile",
    "Path",
    "RingOptions",
    "SpooledTemporaryFile",
    "TemporaryDirectory",
    "TemporaryFile",
    "UringFallbackWarning",
    "UringStatistics",
    "UringUnavailableError",
    "capabilities",
    "gettempdir",
    "gettempdirb",
    "install",
    "installed",
    "lowlevel",
    "mkdtemp",
    "mkstemp",
    "open_file",
    "run",
    "run_statistics",
    "send_file",
    "start_guest_run",
    "uninstall",
    "wrap_file",
]

# No public name may be that of a module or of a room: whichever was imported last would have it.
#
# A name is imported when it is first asked for, and nothing before. pytest imports this package, for its
# plugin, in every environment that has trio-uring, even in those without Trio. The command line has to set
# the program's sys.path before anything else is imported. And session/children.py, which every interpreter
# imports as it starts, is to cost little.
_HOMES = {
    "Capabilities": "command.capabilities",
    "Datagram": "sockets.datagrams",
    "Datagrams": "sockets.datagrams",
    "NamedTemporaryFile": "files.temporary",
    "Path": "files.path",
    "RingOptions": "ring.options",
    "SpooledTemporaryFile": "files.spooled",
    "TemporaryDirectory": "files.temporary",
    "TemporaryFile": "files.temporary",
    "UringFallbackWarning": "ring.errors",
    "UringStatistics": "loop.statistics",
    "UringUnavailableError": "ring.errors",
    "capabilities": "command.capabilities",
    "gettempdir": "files.temporary_names",
    "gettempdirb": "files.temporary_names",
    "install": "session.runs",
    "installed": "session.runs",
    "mkdtemp": "files.temporary_names",
    "mkstemp": "files.temporary_names",
    "open_file": "files.opening",
    "run": "session.runs",
    "run_statistics": "session.runs",
    "send_file": "files.to_stream",
    "start_guest_run": "session.runs",
    "uninstall": "session.runs",
    "wrap_file": "files.opening",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "lowlevel":
        return import_module(".lowlevel", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
