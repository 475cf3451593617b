"""Builds `trio_uring._core`: the C core behind one cffi interface.

Run by setup.py, which builds the other extension (python/) itself. The C files, and
interface.h, which cffi reads, are the source; nothing is generated into the tree.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
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
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra"]

INSTALL = {
    "compiler": "a C compiler",
    "headers": "the headers of liburing (2.3 or newer)",
}
PACKAGES = (
    "Debian and Ubuntu: apt-get install gcc libc6-dev liburing-dev; "
    "Fedora: dnf install gcc liburing-devel; "
    "Arch: pacman -S gcc liburing"
)


def _require(missing: str, command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        reason = str(error)
    else:
        if not done.returncode:
            return
        reason = (done.stderr.strip().splitlines() or ["no message"])[0]
    raise SystemExit(f"trio-uring needs {INSTALL[missing]} to build ({reason}). {PACKAGES}")


def _check_toolchain() -> None:
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    flags = shlex.split(os.environ.get("CPPFLAGS", "")) + shlex.split(os.environ.get("CFLAGS", ""))
    with tempfile.TemporaryDirectory() as folder:
        for missing, text in (
            ("compiler", "#include <errno.h>\n"),
            (
                "headers",
                "#include <liburing.h>\n#if !defined(IORING_SETUP_DEFER_TASKRUN)\n#error too old\n#endif\n",
            ),
        ):
            source = Path(folder, f"{missing}.c")
            source.write_text(text)
            _require(missing, [*compiler, *flags, "-D_GNU_SOURCE", "-fsyntax-only", str(source)])


def _liburing_version() -> str:
    """What pkg-config says: headers before 2.4 do not carry their version."""
    try:
        done = subprocess.run(
            ["pkg-config", "--modversion", "liburing"], capture_output=True, text=True, check=False
        )
    except OSError:
        return _packaged_version()
    return done.stdout.strip() if not done.returncode else _packaged_version()


def _packaged_version() -> str:
    """The version in a pkg-config file where pkg-config itself is not installed."""
    for folder in (Path("/usr/lib"), Path("/usr/lib64"), Path("/usr/local/lib")):
        for file in [*folder.glob("pkgconfig/liburing.pc"), *folder.glob("*/pkgconfig/liburing.pc")]:
            if found := re.search(r"^Version:\s*(\S+)", file.read_text(), re.MULTILINE):
                return found[1]
    return "unknown"


_check_toolchain()
ffibuilder = cffi.FFI()
ffibuilder.cdef((ROOT / "interface.h").read_text())
ffibuilder.set_source(
    "trio_uring._core",
    '#include "core.h"',
    sources=[os.path.relpath(ROOT / source) for source in SOURCES],
    depends=[os.path.relpath(header) for header in sorted(ROOT.glob("*.h"))],
    include_dirs=[str(ROOT)],
    libraries=["uring"],
    define_macros=[("TU_LIBURING_VERSION", f'"{_liburing_version()}"')],
    extra_compile_args=FLAGS,
)
