"""The tests of all that touches the ring, on a core that is built with another liburing than the system's.

    python tests/support/liburings.py [SUITE ...] [ARGUMENT ...]

Takes the packages of each suite, or of those that are named, from Debian's archive, and unpacks them in the
cache; nothing is installed. Builds a copy of the checkout with them, and runs the tests there. pytest gets
the arguments; a folder among them takes the place of all. A suite that is neither in the archive, as it is
reached from here, nor in the cache is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import counting

# The oldest that the core is built with, 2.3, and the newest.
SUITES = ("bookworm", "sid")
ROOMS = ("ring", "loop", "lowlevel", "files", "sockets")
# The kernel's headers too: liburing includes what the kernel that it was built for has.
PACKAGES = ("liburing2", "liburing-dev", "linux-libc-dev")
ARCHIVE = "http://deb.debian.org/debian"
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "trio-uring", "liburing")
NOT_COPIED = shutil.ignore_patterns(".*", "*.so", "build", "*.egg-info", "__pycache__")
ASKED = """
import trio_uring
found = trio_uring.capabilities()
print(found.liburing_built, found.liburing_loaded, found.liburing_path)
"""


def main(arguments: list[str]) -> int:
    suites = [argument for argument in arguments if argument in SUITES]
    others = [argument for argument in arguments if argument not in SUITES]
    if not any(argument.startswith("tests") for argument in others):
        others += [f"tests/{room}" for room in ROOMS]
    outcomes = []
    for suite in suites or SUITES:
        root = unpacked(suite)
        if root is None:
            print(f"{suite} is skipped: {ARCHIVE} cannot be reached from here by apt-get", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            checkout = shutil.copytree(counting.ROOT, Path(folder, "checkout"), ignore=NOT_COPIED)
            version = build(checkout, root)
            outcomes.append(counting.run(f"{version} ({suite})", others, {}, checkout))
    return counting.report("liburing", outcomes)


def unpacked(suite: str) -> Path | None:
    """The folder that has the suite's liburing, and its headers; None if there is no way to get them."""
    folder = CACHE / suite
    root = folder / "root"
    if _downloaded(suite, folder):
        shutil.rmtree(root, ignore_errors=True)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, root], check=True)
    return root if root.exists() else None


def _downloaded(suite: str, folder: Path) -> bool:
    """Brings the suite's packages into the folder, by an apt-get that knows neither what is installed nor
    where the system's packages come from. False if that fails."""
    if not shutil.which("apt-get") or not KEYS.exists():
        return False
    (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    sources = folder / "sources.list"
    sources.write_text(f"deb [signed-by={KEYS}] {ARCHIVE} {suite} main\n")
    options = {
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": folder,
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Acquire::Check-Valid-Until": "false",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
    }
    for package in folder.glob("*.deb"):
        package.unlink()
    command = ["apt-get", "-qq", *(word for name in options for word in ("-o", f"{name}={options[name]}"))]
    return not any(
        subprocess.run([*command, *words], cwd=folder, check=False).returncode
        for words in (["update"], ["download", *PACKAGES])
    )


def build(checkout: Path, root: Path) -> str:
    """Builds the core with what is in the folder, and returns the version of liburing that it has loaded;
    raises if that is another one, or if the doctor would tell another one."""
    (library,) = root.glob("usr/lib/*/liburing.so")
    headers = root / "usr" / "include"
    environment = {
        **os.environ,
        "CFLAGS": f"-I{headers} -I{headers / library.parent.name}",
        "LDFLAGS": f"-L{library.parent} -Wl,-rpath,{library.parent}",
    }
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--editable", checkout],
        env=environment,
        check=True,
    )
    asked = subprocess.run(
        [sys.executable, "-c", ASKED], cwd=checkout, stdout=subprocess.PIPE, text=True, check=True
    )
    version = library.resolve().name.removeprefix("liburing.so.")
    wanted = [version, version, str(library.resolve())]
    if asked.stdout.split() != wanted:
        raise SystemExit(f"wanted {' '.join(wanted)}, and the core has {asked.stdout}")
    print(f"liburing {version}: {library.resolve()}", flush=True)
    return version


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
