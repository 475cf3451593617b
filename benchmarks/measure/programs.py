"""The native programs, compiled: ``load``, the load generator, and ``limit``, the limit on io_uring.

What was compiled is kept in a folder under a key of the sources, the compiler and its flags,
so it is compiled again only if one of them changes. TLS is in if libssl is found; until
it is found it is looked for again. ``python -m measure.programs``, in the folder of the benchmarks,
prints the paths.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
import subprocess
import tempfile
from pathlib import Path

import attrs

SOURCES = Path(__file__).resolve().parent.parent / "native"
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-O2"]
TLS = ["-DWITH_TLS", "-lssl", "-lcrypto"]


class NativeBuildError(Exception):
    """The native programs cannot be compiled; the message says what to install."""


@attrs.frozen
class Programs:
    load: Path
    limit: Path
    tls: bool


def build(folder: Path) -> Programs:
    key = _key()
    with_tls, without_tls = folder / f"{key}-tls", folder / key
    if with_tls.is_dir():
        return _programs(with_tls, tls=True)
    _require("", "a C compiler", "gcc libc6-dev")
    _require("#include <liburing.h>", "liburing and its headers", "liburing-dev", "-luring")
    tls = _compile_error("#include <openssl/ssl.h>", *TLS) is None
    target = with_tls if tls else without_tls
    if not target.is_dir():
        _compile_all(target, TLS if tls else [])
    return _programs(target, tls=tls)


def default_folder() -> Path:
    """One of the user's own in the folder for temporary files, which all users share."""
    folder = Path(tempfile.gettempdir(), f"trio-uring-benchmarks-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    # One look: between two of them, whoever has made it first could put a link to a folder of ours there.
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise NativeBuildError(f"{folder} is not the user's alone")
    return folder


def _programs(folder: Path, *, tls: bool) -> Programs:
    return Programs(load=folder / "load", limit=folder / "limit", tls=tls)


def _compiler() -> list[str]:
    return [
        *shlex.split(os.environ.get("CC") or "cc"),
        *FLAGS,
        *shlex.split(os.environ.get("CFLAGS", "")),
    ]


def _key() -> str:
    digest = hashlib.sha256(shlex.join(_compiler()).encode())
    for path in sorted(SOURCES.glob("*/*.[ch]")):
        digest.update(f"\0{path.relative_to(SOURCES)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _run(command: list[str]) -> str | None:
    """What went wrong, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return (done.stderr.strip() or "no message") if done.returncode else None


def _compile_error(text: str, *flags: str) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(f"{text}\nint main(void) {{ return 0; }}\n")
        return _run([*_compiler(), str(source), "-o", str(source.with_suffix("")), *flags])


def _require(text: str, missing: str, package: str, *flags: str) -> None:
    if error := _compile_error(text, *flags):
        reason = error.splitlines()[0]
        raise NativeBuildError(
            f"the benchmarks need {missing} ({reason}); Debian and Ubuntu: apt-get install {package}"
        )


def _compile_all(target: Path, tls: list[str]) -> None:
    """Into a folder beside the target, so that the target is there only when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        for program, flags in (("load", tls), ("limit", ["-luring"])):
            sources = map(str, sorted((SOURCES / program).glob("*.c")))
            if error := _run([*_compiler(), *sources, "-o", str(Path(name, program)), *flags]):
                raise NativeBuildError(f"{program} cannot be compiled:\n{error}")
        folder = Path(name, "complete")
        folder.mkdir()
        for program in ("load", "limit"):
            Path(name, program).rename(folder / program)
        if not target.is_dir():
            folder.rename(target)


def main() -> None:
    programs = build(default_folder())
    print(programs.load)
    print(programs.limit)
    print("TLS" if programs.tls else "no TLS: libssl was not found; Debian and Ubuntu: libssl-dev")


if __name__ == "__main__":
    main()
