"""Builds `trio_uring._core`: the C core behind one cffi interface.

Run by setup.py, which builds the other extension (python/) itself. The C files, and
interface.h, which cffi reads, are the source; nothing is generated into the tree.

First it tries whether all is there that a build takes; what is missing ends it with one sentence.
TRIO_URING_LIBURING says how the core is linked with liburing: ``shared``, so that a run needs the
system's liburing.so, or ``static``, so that the core has the system's liburing.a inside.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import cffi

ROOT = Path(__file__).resolve().parent
SOURCES = [
    "buffers.c",
    "core.c",
    "files.c",
    "identity.c",
    "interrupt.c",
    "names.c",
    "operations.c",
    "probe.c",
    "ring.c",
    "tick.c",
]
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror=implicit-function-declaration"]

LIBURING = os.environ.get("TRIO_URING_LIBURING", "") or "shared"
LIBRARIES = {"shared": "uring", "static": ":liburing.a"}
# Otherwise another liburing of the process could take the place of the one inside.
LINK_FLAGS = {"shared": [], "static": ["-Wl,--exclude-libs,liburing.a"]}

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PACKAGES = (
    f"Debian and Ubuntu: apt-get install gcc libc6-dev python{PYTHON}-dev liburing-dev; "
    f"Fedora: dnf install gcc python3-devel liburing-devel (python{PYTHON}-devel if python3 is another); "
    "Arch: pacman -S gcc python liburing"
)

# What is needed, and a program that compiles where it is there.
TO_COMPILE = {
    "a C compiler, with the headers of libc,": "#include <errno.h>\n",
    f"the headers of CPython {PYTHON}": f"""
        #include <Python.h>
        #ifndef PY_VERSION_HEX
        #error Python.h is empty
        #elif PY_VERSION_HEX >> 16 != {sys.hexversion >> 16}
        #error Python.h is of another version
        #endif
    """,
    "the headers of liburing (2.3 or newer)": """
        #include <liburing.h>
        #ifndef IORING_SETUP_IOPOLL
        #error liburing.h is empty
        #elif !defined(IORING_SETUP_DEFER_TASKRUN)
        #error liburing.h is too old
        #endif
    """,
}
TO_LINK = {
    "shared": "liburing.so",
    "static": "a liburing.a that can be linked into a shared library",
}
LINKED = """
    #include <liburing.h>
    int answer(void) { return io_uring_queue_init(1, (struct io_uring *)0, 0); }
"""


def _check() -> None:
    """Ends with one sentence where a build cannot succeed."""
    if sys.platform != "linux" or sys.implementation.name != "cpython":
        raise SystemExit(
            "trio-uring is for CPython on Linux, whose kernel has io_uring; "
            f"this is {sys.implementation.name} on {sys.platform}"
        )
    if LIBURING not in LIBRARIES:
        raise SystemExit(f"TRIO_URING_LIBURING is shared or static, not {LIBURING!r}")
    for what, text in TO_COMPILE.items():
        _require(what, text, "-fsyntax-only")
    _require(TO_LINK[LIBURING], LINKED, "-shared", "-fPIC", libraries=[f"-l{LIBRARIES[LIBURING]}"])


def _require(what: str, text: str, *options: str, libraries: list[str] | None = None) -> None:
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    names = ("CPPFLAGS", "CFLAGS", "LDFLAGS") if libraries else ("CPPFLAGS", "CFLAGS")
    flags = [flag for name in names for flag in shlex.split(os.environ.get(name, ""))]
    headers = [f"-I{sysconfig.get_path(name)}" for name in ("include", "platinclude")]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "check.c")
        source.write_text(text)
        output = [] if libraries is None else ["-o", str(source.with_suffix(".so")), *libraries]
        command = [*compiler, *flags, *headers, "-D_GNU_SOURCE", *options, str(source), *output]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            reason = str(error)
        else:
            if not done.returncode:
                return
            reason = _first_error(done.stderr)
    raise SystemExit(f"trio-uring needs {what} to build ({reason}). {PACKAGES}")


def _first_error(output: str) -> str:
    """The first line that tells an error and not where it was, without the place."""
    lines = [line for line in output.splitlines() if line.strip() and not line.endswith((":", ","))]
    _, _, told = (lines or ["no message"])[0].rpartition("error: ")
    return told.removeprefix("#error ")


_check()
ffibuilder = cffi.FFI()
ffibuilder.cdef((ROOT / "interface.h").read_text())
ffibuilder.set_source(
    "trio_uring._core",
    # With the other liburing it is another source, and so linked anew.
    f'#include "core.h" /* {LIBURING} liburing */',
    sources=[os.path.relpath(ROOT / source) for source in SOURCES],
    depends=[os.path.relpath(header) for header in sorted(ROOT.glob("*.h"))],
    include_dirs=[str(ROOT)],
    # The last two were not in libc before glibc 2.34.
    libraries=[LIBRARIES[LIBURING], "dl", "pthread"],
    extra_compile_args=FLAGS,
    extra_link_args=LINK_FLAGS[LIBURING],
)
