"""The core, and what works beside it; or, where it cannot be loaded, what stands for them.

Files, and Trio on epoll, do without the core. So whatever has to do with it can be imported,
and only who calls it is told why it is not there. What cffi gives to anybody, pointers and
views of memory, works in any case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from .errors import UringUnavailableError

if TYPE_CHECKING:
    from .._core import Core as Core  # noqa: PLC0414  # others import it from here
    from .._core import Pointer as Pointer  # noqa: PLC0414

missing: ImportError | None = None
"""Why the core cannot be loaded."""


def unavailable(error: ImportError) -> UringUnavailableError:
    """What a run is told of a core, or of a part of it, that cannot be loaded."""
    if "liburing" in str(error).lower():
        remedy = (
            "Install liburing 2.3 or newer (Debian and Ubuntu: apt-get install liburing2; "
            "Fedora: dnf install liburing; Arch: pacman -S liburing)"
        )
    elif "subinterpreter" in str(error):
        remedy = "Run Trio in the main interpreter"
    else:
        remedy = "Install trio-uring anew, for this Python and this machine"
    return UringUnavailableError(f"the core cannot be loaded ({error})", remedy)


class _Missing:
    """Has every function of the core, each of which raises UringUnavailableError, and its constants,
    which are 0."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("TU_"):
            return 0

        def call(*_: object) -> NoReturn:
            assert missing is not None
            raise unavailable(missing)

        return call


def _uncleared_bytes(length: int) -> bytes:
    """That of _tasks."""
    import ctypes

    make = ctypes.pythonapi.PyBytes_FromStringAndSize
    make.restype = ctypes.py_object
    make.argtypes = ctypes.c_char_p, ctypes.c_ssize_t
    made: bytes = make(None, length)
    return made


try:
    from .._core import ffi, lib
    from .._tasks import capsule_of, keep, uncleared_bytes
except ImportError as _error:
    missing = _error
    lib = _Missing()  # type: ignore[assignment]
    capsule_of = lib.capsule_of  # type: ignore[attr-defined]
    keep = lib.keep  # type: ignore[attr-defined]
    uncleared_bytes = _uncleared_bytes
    try:
        from _cffi_backend import FFI

        ffi = FFI()  # type: ignore[assignment]
    except ImportError:  # which is what the core was missing, too
        ffi = _Missing()  # type: ignore[assignment]


__all__ = ["capsule_of", "ffi", "keep", "lib", "missing", "unavailable", "uncleared_bytes"]
