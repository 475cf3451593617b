"""Makes what a release consists of, in dist/, and checks and tries it.

``nox -s wheels`` runs this: a source distribution and, built from that, a wheel for each
interpreter that is found, or for those that are named. ``--manylinux`` leaves the wheels to
cibuildwheel, which makes them in containers, as pyproject.toml says.

Each wheel has liburing inside, and is tried by smoke.py: by cibuildwheel in its container; here in
a new environment, where neither compiler nor headers nor liburing can be seen (hidden.sh).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
# What serves only the repository.
NOT_IN_SDIST = re.compile(r"\.ci/|\.github/|\.gitignore$")
TRIED_WITH = ("hypercorn[trio]>=0.17", "trustme>=1")
USABLE = "import os, sysconfig; print(os.path.exists(sysconfig.get_path('include') + '/Python.h'))"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--manylinux", action="store_true")
    parser.add_argument("interpreters", nargs="*", metavar="PYTHON")
    arguments = parser.parse_args()
    make(arguments.interpreters, manylinux=arguments.manylinux)


def make(interpreters: list[str], *, manylinux: bool) -> None:
    DIST.mkdir(exist_ok=True)
    for old in DIST.glob("trio_uring-*"):
        old.unlink()
    sdist = make_sdist()
    if manylinux:
        run(
            sys.executable, "-m", "cibuildwheel", "--platform", "linux", "--output-dir", str(DIST), str(sdist)
        )
    else:
        chosen = [shutil.which(name) or name for name in interpreters] or find_interpreters()
        made = [(make_wheel(sdist, interpreter), interpreter) for interpreter in chosen]
        for wheel, interpreter in made:  # when all are there, since not every place lets them be tried
            try_wheel(wheel, interpreter)
    for wheel in DIST.glob("*.whl"):
        check_wheel(wheel)
    files = sorted(DIST.glob("trio_uring-*"))
    run(sys.executable, "-m", "twine", "check", "--strict", *map(str, files))
    print("made, checked and tried:", *(file.relative_to(ROOT) for file in files), sep="\n    ")


def make_sdist() -> Path:
    """Of the files that git knows, as they are in the checkout; it has to have them all."""
    listed = output("git", "-C", str(ROOT), "ls-files", "-z").split("\0")
    files = [file for file in listed if file and (ROOT / file).is_file()]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "checkout")
        for file in files:
            target = copy / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, target)
        run(sys.executable, "-m", "build", "--quiet", "--sdist", "--outdir", str(DIST), str(copy))
    (sdist,) = DIST.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    missing = [file for file in files if file not in inside and not NOT_IN_SDIST.match(file)]
    if missing:
        raise SystemExit(f"not in {sdist.name}, by MANIFEST.in: {', '.join(missing)}")
    return sdist


def find_interpreters() -> list[str]:
    """Of each CPython that trio-uring is for, the first in PATH that runs and has headers."""
    classifiers = (ROOT / "pyproject.toml").read_text()
    own = Path(sys.executable).parent
    folders = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != own]
    found = []
    for version in re.findall(r"Python :: (3\.\d+)", classifiers):
        paths = [Path(folder, f"python{version}") for folder in folders]
        usable = next((str(path) for path in paths if is_usable(path)), None)
        print(f"CPython {version}: {usable or 'none with headers in PATH, and so no wheel'}", flush=True)
        found += [usable] if usable else []
    if not found:
        raise SystemExit("found no interpreter to make a wheel for")
    return found


def is_usable(python: Path) -> bool:
    if not os.access(python, os.X_OK):
        return False
    done = subprocess.run([python, "-c", USABLE], capture_output=True, text=True, check=False)
    return done.stdout == "True\n"


def make_wheel(sdist: Path, interpreter: str) -> Path:
    """With liburing inside, and with the oldest manylinux tag that is true of it."""
    with tempfile.TemporaryDirectory() as folder:
        pip(
            interpreter, "wheel", "--no-deps", "--wheel-dir", folder, str(sdist), TRIO_URING_LIBURING="static"
        )
        (built,) = Path(folder).glob("*.whl")
        repaired = Path(folder, "repaired")
        run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", str(repaired), str(built))
        (wheel,) = repaired.glob("*.whl")
        return Path(shutil.move(wheel, DIST / wheel.name))


def try_wheel(wheel: Path, interpreter: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, "-m", "virtualenv", "--quiet", "--python", interpreter, folder)
        python = f"{folder}/bin/python"
        pip(python, "install", "--only-binary", ":all:", str(wheel), *TRIED_WITH)
        run("sh", str(ROOT / "release/hidden.sh"), python, str(ROOT / "release/smoke.py"))


def check_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    for wanted in (r"/licenses/LICENSE\.liburing", r"trio_uring/_core\..*so", r"trio_uring/_tasks\..*so"):
        if not any(re.search(f"{wanted}$", name) for name in names):
            raise SystemExit(f"{wheel.name} has nothing that ends as {wanted}")
    if any(".libs/" in name for name in names):
        raise SystemExit(f"{wheel.name} has a shared library beside the core")
    if links := re.findall(r"\]\((?!https?:|#)[^)]*\)", text):
        raise SystemExit(f"{wheel.name} has links that lead nowhere on PyPI: {links}")


def pip(python: str, *arguments: str, **environment: str) -> None:
    run(sys.executable, "-m", "pip", "--python", python, "--quiet", *arguments, **environment)


def run(*command: str, **environment: str) -> None:
    print("$", *command, flush=True)
    status = subprocess.run(command, env={**os.environ, **environment}, check=False).returncode
    if status:
        raise SystemExit(f"{command[0]} ended with {status}")


def output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    main()
