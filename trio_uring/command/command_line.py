"""The command line of ``python -m trio_uring`` and ``trio-uring``.

The exit status is the program's or the doctor's; or 1 if io_uring cannot be used and no fallback was
asked for, or if the environment is wrong; or 2 for a command line that makes no sense.

Until `program.find` has given the program the ``sys.path`` that plain Python gives it, nothing is
imported but the standard library, and modules of ours that import nothing else.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from .. import __version__
from ..session import children
from ..session.option_names import FLAGS, WITHOUT_VALUE
from . import program

if TYPE_CHECKING:
    from typing import TextIO

USAGE = """\
usage: python -m trio_uring [OPTION ...] FILE ARGUMENT ...
       python -m trio_uring [OPTION ...] -m MODULE ARGUMENT ...
       python -m trio_uring [OPTION ...] -c CODE ARGUMENT ...
       python -m trio_uring [OPTION ...] doctor [--json]
       python -m trio_uring --help | --version"""

HELP = f"""{USAGE}

Runs a Trio program, unchanged, on Linux io_uring, and with it every Python process
that it starts. FILE is a script, or a folder or zip file with a __main__.py. `doctor`
tells what this kernel, liburing and container allow, what is missing and how to get
it; a file of that name is run as ./doctor.

  --fallback error      where io_uring cannot be used, say why and exit (the default)
  --fallback epoll      where io_uring cannot be used, warn and run on epoll
  --files               trio.open_file, trio.wrap_file and trio.Path without threads;
                        others may see what was written only after a flush
  --accelerate          Trio's own steps made by C, and scopes with fewer calls, where this
                        Trio is known
  --checkpoint-budget N calls that complete at once which a task may make before it
                        yields (default 0: each yields)
  --accept-ahead N      connections that each listening socket accepts before they are
                        asked for (0)
  --read-ahead N        bytes that each connection receives before they are asked for,
                        at which it pauses (131072)
  --buffers N           buffers that all connections receive into, a power of two (64)
  --buffer-size N       bytes of each (65536)
  --entries N           submissions that the ring queues (64)
  --cq-entries N        completions that it holds (128)
  --disable NAME,...    features that are not used, by the names that `doctor` prints
  --no-children         leave the processes that the program starts as they are

TRIO_URING_FALLBACK=epoll, TRIO_URING_CHECKPOINT_BUDGET=16 and so on override these,
and what the program itself asks for. TRIO_URING=1 in the environment puts every Trio
program on io_uring that is started in it, whatever the command."""

_USAGE_STATUS: Final = 2
_MISSING: Final[dict[program.Kind, str]] = {
    "script": "the program is missing",
    "module": "-m needs the name of a module",
    "text": "-c needs the code",
}


class _Misused(Exception):  # noqa: N818  # `main` catches it, as it does the next one
    """The command line makes no sense; the text says why."""


class _Asked(Exception):  # noqa: N818
    """The command line asks for this text only."""


def main(arguments: list[str]) -> int | str:
    """Executes ``python -m trio_uring ARGUMENT ...``. Returns what is for `sys.exit`."""
    try:
        kind, options, arguments = _parse(arguments)
        if kind == "script" and arguments[0] == "doctor":
            return _doctor(options, arguments[1:])
        return _run(kind, options, arguments)
    except _Asked as text:
        _write(sys.stdout, str(text))
        return 0
    except _Misused as error:
        _write(sys.stderr, f"trio_uring: {error}\n{USAGE}")
        return _USAGE_STATUS


def _parse(arguments: list[str]) -> tuple[program.Kind, dict[str, str], list[str]]:
    """The kind of program, the options, and the program's name with its arguments."""
    options: dict[str, str] = {}
    kind: program.Kind = "script"
    while arguments and arguments[0].startswith("-") and kind == "script":
        option, *arguments = arguments
        name, equals, value = option.partition("=")
        if option in ("-h", "--help"):
            raise _Asked(HELP)
        if option in ("-V", "--version"):
            raise _Asked(f"trio-uring {__version__}")
        if option.startswith(("-m", "-c")):
            kind = "module" if option.startswith("-m") else "text"
            arguments = [*filter(None, [option[2:]]), *arguments]
        elif option == _NO_CHILDREN:
            options[option] = ""
        elif name not in FLAGS:
            raise _Misused(f"{option} is not an option")
        elif equals:
            options[name] = value
        elif name in WITHOUT_VALUE:
            options[name] = WITHOUT_VALUE[name]
        elif arguments:
            options[name], *arguments = arguments
        else:
            raise _Misused(f"{name} needs a value")
    if not arguments:
        raise _Misused(_MISSING[kind])
    return kind, options, arguments


_NO_CHILDREN: Final = "--no-children"


def _doctor(options: dict[str, str], arguments: list[str]) -> int:
    if arguments not in ([], ["--json"]):
        words = " ".join(arguments)
        raise _Misused(f"doctor takes --json or nothing, not {words}; ./doctor runs a file")
    options.pop(_NO_CHILDREN, None)
    if refusal := _take(options):
        return _refuse(refusal)
    try:
        from . import doctor

        report, status = doctor.report(as_json=bool(arguments))
    except (ImportError, ValueError) as error:
        return _refuse(f"trio_uring: {error}")
    _write(sys.stdout, report)
    return status


def _run(kind: program.Kind, options: dict[str, str], arguments: list[str]) -> int | str:
    with_children = options.pop(_NO_CHILDREN, None) is None
    found = program.find(kind, arguments[0])
    if refusal := _take(options) or _install():
        return _refuse(refusal)
    if with_children:
        from ..session.wanted import command_line

        children.take_along(command_line)
    else:
        children.leave_behind()
    return program.run(found, arguments)


def _take(options: dict[str, str]) -> str:
    """Has the runs of this process use these options, and those that a parent process has put into the
    environment. Returns what is wrong with the latter, or an empty string."""
    told = children.decide()
    try:
        from ..session import settings, wanted

        wanted.command_line.update(settings.of_parent(told))
    except (ImportError, RuntimeError, ValueError) as error:
        return f"trio_uring: {error}"
    try:
        settings.check_command_line(options)
    except ValueError as error:
        raise _Misused(str(error)) from None
    wanted.command_line.update(options)
    return ""


def _install() -> str:
    """Puts the process on io_uring; returns why it cannot, or an empty string."""
    try:
        from ..session import runs

        runs.install()
    except (ImportError, RuntimeError, ValueError, Warning) as error:
        return f"trio_uring: {error}"
    return ""


def _refuse(text: str) -> int:
    """Says why nothing is run; returns the exit status."""
    _write(sys.stderr, text)
    return 1


def _write(stream: TextIO | None, text: str) -> None:
    """Writes a text and the end of its line to a standard stream, all of it. Where a write falls short, an
    unbuffered stream (``python -u``) would drop the rest: the program was stopped (Ctrl-Z) while the terminal
    was full, or somebody has made the terminal non-blocking, in which case a buffered stream would fail.

    That a reader, such as ``head``, has closed the pipe is no error, nor is a stream that was never open.
    """
    if stream is None:
        return
    try:
        fd = stream.fileno()
    except (AttributeError, OSError):  # somebody has put another object in its place, which has no file
        stream.write(f"{text}\n")
        return
    stream.flush()
    left = memoryview(f"{text}\n".encode(stream.encoding, stream.errors or "strict"))
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            _wait_until_writable(stream)
        except BrokenPipeError:
            return


def _wait_until_writable(stream: TextIO) -> None:
    import select  # not before it is needed: a program may have a module of this name beside it

    writable = select.poll()
    writable.register(stream, select.POLLOUT)
    writable.poll()
