"""The core; or, where it cannot be loaded, what stands for it.

All other modules import it from here. Files, `Datagrams`, and Trio on epoll can do without the core. So they
can be imported in any case, and only a call of the core raises the reason why it is not there. cffi's own
functions, for pointers and views of memory, work as long as cffi is installed.

Four functions of the other extension module, _tasks, are here as well. The others are for runs on io_uring
and `Datagrams` only: the manager and the sockets import them from _tasks itself, and session/runs.py imports
these modules only if nothing is `missing`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from .errors import UringUnavailableError

if TYPE_CHECKING:
    from .._core import Core as Core  # noqa: PLC0414  # others import it from here
    from .._core import Pointer as Pointer  # noqa: PLC0414

_CHECKOUT: Final = Path(__file__).resolve().parents[2]
"""The folder that has the package. Python looks first where it is started, which may be a checkout."""
missing: ImportError | None = None
"""Why the core cannot be loaded; None if it was."""


def unavailable(error: ImportError) -> UringUnavailableError:
    """The error that a run raises if the core could not be loaded, for ``error``."""
    if "liburing" in str(error).lower():
        remedy = (
            "Install liburing 2.3 or newer (Debian and Ubuntu: apt-get install liburing2; "
            "Fedora: dnf install liburing; Arch: pacman -S liburing)"
        )
    elif "subinterpreter" in str(error):
        remedy = "Run Trio in the main interpreter"
    elif (_CHECKOUT / "native" / "build.py").is_file():
        remedy = (
            f"This is the package of the checkout {_CHECKOUT}, which was not built for this Python: run the "
            "program in another folder to have the installed one, or build it (pip install --editable .)"
        )
    else:
        remedy = "Install trio-uring anew, for this Python and this machine"
    return UringUnavailableError(f"the core cannot be loaded ({error})", remedy)


class _Missing:
    """Stands for the core. Each of its functions raises UringUnavailableError; each constant is 0."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("TU_"):
            return 0

        def call(*_: object) -> NoReturn:
            assert missing is not None
            raise unavailable(missing)

        return call


def _uncleared_bytes(length: int) -> bytes:
    """Stands for the `uncleared_bytes` of _tasks."""
    import ctypes

    make = ctypes.pythonapi.PyBytes_FromStringAndSize
    make.restype = ctypes.py_object
    make.argtypes = ctypes.c_char_p, ctypes.c_ssize_t
    made: bytes = make(None, length)
    return made


try:
    from .._core import ffi, lib
    from .._tasks import capsule_of, keep, spend, uncleared_bytes
except ImportError as _error:
    missing = _error
    lib = _Missing()  # type: ignore[assignment]
    capsule_of = lib.capsule_of  # type: ignore[attr-defined]
    keep = lib.keep  # type: ignore[attr-defined]
    spend = lib.spend  # type: ignore[attr-defined]
    uncleared_bytes = _uncleared_bytes
    try:
        from _cffi_backend import FFI

        ffi = FFI()  # type: ignore[assignment]
    except ImportError:  # cffi is not installed, and so the core could not be loaded
        ffi = _Missing()  # type: ignore[assignment]


__all__ = ["capsule_of", "ffi", "keep", "lib", "missing", "spend", "unavailable", "uncleared_bytes"]
