"""On what the benchmarks ran: what a report's header tells."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sysconfig
from importlib.metadata import version
from pathlib import Path

import trio

import trio_uring
from sides.packages import PACKAGES, installed
from sides.servers.start import congestion_control

TOOLS = {"wrk": ["wrk", "--version"], "fio": ["fio", "--version"], "strace": ["strace", "--version"]}


def describe() -> dict[str, str]:
    return {
        "machine": _machine(),
        "kernel": f"{platform.system()} {platform.release()}, {_distribution()}",
        "Python": _python(),
        "trio-uring": f"{version('trio-uring')}, {_commit()}",
        "io_uring": _ring(),
        "TCP": f"{congestion_control()}, by the loopback interface",
        "packages": ", ".join(
            map(_package, ("trio", *PACKAGES.values(), "hypercorn", "httpx", "cffi", "pyperf"))
        ),
        "tools": ", ".join(_tool(name) for name in TOOLS),
    }


def missing_tools() -> list[str]:
    return [name for name in TOOLS if not shutil.which(name)]


def _machine() -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    guest = ", a virtual machine" if re.search(r"^flags\b.*\bhypervisor\b", cpuinfo, re.MULTILINE) else ""
    cpus = len(os.sched_getaffinity(0))
    return f"{model[1] if model else platform.machine()}, {cpus} CPUs, {memory:.0f} GiB{guest}"


def _distribution() -> str:
    release = Path("/etc/os-release")
    name = (
        re.search(r'^PRETTY_NAME="?(.*?)"?$', release.read_text(), re.MULTILINE) if release.exists() else None
    )
    return name[1] if name else "distribution unknown"


def _python() -> str:
    name = f"{platform.python_implementation()} {platform.python_version()}"
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    shared = bool(sysconfig.get_config_var("Py_ENABLE_SHARED"))
    return f"{name}, {how_built(arguments, shared=shared, mapped=Path('/proc/self/maps').read_text())}"


def how_built(arguments: str, *, shared: bool, mapped: str) -> str:
    """From what sysconfig says, and the files that the interpreter has mapped.

    A distribution may build the program and the shared library by different configurations, and tell
    only that of the library: Debian's program is optimised, but not what it tells of.
    """
    if shared and "/libpython" not in mapped:
        return "a build of the distribution's own, which sysconfig does not describe"
    return (
        f"configured {'with' if '--enable-optimizations' in arguments else 'without'} --enable-optimizations"
    )


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return f"commit {git('rev-parse', '--short', 'HEAD')}{', with changes' if changed else ''}"
    except (OSError, subprocess.CalledProcessError):
        return "not from a git checkout"


def _ring() -> str:
    """The flags of the ring of a real run."""

    async def flags() -> tuple[str, ...]:
        counted = trio.lowlevel.current_statistics().io_statistics
        assert isinstance(counted, trio_uring.UringStatistics)
        return counted.flags

    return ", ".join(trio_uring.run(flags))


def _package(name: str) -> str:
    return f"{name} {found}" if (found := installed(name)) else f"{name} is not installed"


def _tool(name: str) -> str:
    if not shutil.which(name):
        return f"{name} is not installed"
    done = subprocess.run(TOOLS[name], capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return f"{name} {found[0] if found else 'of unknown version'}"
