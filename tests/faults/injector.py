"""The library that stands before liburing: how it is built, and how Python tells it what to do."""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import subprocess
import sysconfig
from pathlib import Path

from trio_uring import _core

SOURCE = Path(__file__).with_name("injector.c")
_FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
_NO_LIMIT = (1 << 64) - 1


def compiler() -> list[str]:
    """The command that compiles."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def build(folder: Path) -> Path:
    """The library, compiled into a folder."""
    library = folder / "injector.so"
    libraries = ["-Wl,--no-as-needed", "-luring", "-ldl"]
    command = [*compiler(), *_FLAGS, str(SOURCE), "-o", str(library), *libraries]
    subprocess.run(command, check=True, timeout=120)
    return library


def obstacle(library: Path) -> str:
    """Why there can be no faults here; empty if there can."""
    if not re.search(rb"liburing[^\0/]*\.so", Path(_core.__file__).read_bytes()):
        return "this build has liburing inside, and nothing can stand before that"
    if not Injector(library).possible:
        return "this kernel's NOP answers nothing that it is told to (Linux 6.10)"
    return ""


class Injector:
    """Of this process, where the library was preloaded."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.faults_begin.argtypes = (
            ctypes.c_char_p,
            ctypes.c_uint64,
            ctypes.c_uint,
            ctypes.c_uint64,
        )
        self._library.faults_count.argtypes = (ctypes.c_char_p,)
        self._library.faults_count.restype = ctypes.c_uint64
        self._library.faults_rings.restype = ctypes.c_uint64

    @property
    def possible(self) -> bool:
        return bool(self._library.faults_possible())

    @property
    def rings(self) -> int:
        """Rings that it has stood before, since the process began."""
        return int(self._library.faults_rings())

    @property
    def last_operation(self) -> int:
        """The number (IORING_OP_) of the submission that was changed last."""
        return int(self._library.faults_last_operation())

    def begin(self, *rules: str, seed: int, rate: int, most: int = _NO_LIMIT) -> None:
        """``rate``: of 1,000 chances. ``most``: faults altogether."""
        if self._library.faults_begin(",".join(rules).encode(), seed, rate, most):
            raise ValueError(f"one of {rules} is no rule")

    def end(self) -> None:
        self._library.faults_begin(b"", 0, 0, 0)

    def forbid(self, opcode: int, error: int) -> None:
        """From now on each submission of this opcode has this errno for an answer."""
        self._library.faults_forbid(opcode, error)

    def count(self, rule: str) -> int:
        """How often the rule was kept since the process began."""
        return int(self._library.faults_count(rule.encode()))
