"""Boots Debian's kernels under QEMU, and tries in each what the product promises.

    python tests/kernels [KERNEL ...] [--short] [--all] [--rooms ROOM ...] [--minutes MINUTES]

KERNEL: 5.10, 6.1, 6.12, 6.18 or newest, by default all of them. In each guest: what the doctor says, beside
what that kernel has to offer; the mixed workload; the kernel's switch for io_uring; and the tests of the
rooms that touch the kernel, as far as the time lets; the room "trio" is Trio's own suite. What cannot be had
is a line, and no failure.

Everything that is fetched and made is kept in --cache, by default in trio-uring/kernels of the user's cache.
"""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian import KERNELS, Archive, Kernel, Unavailable
from image import ROOT, SOURCES, make_root
from machine import Machine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from findings import Result

_CHECKS: Final = ("doctor", "mixed", "switches")
_SHORT: Final = ("doctor", "mixed")
_ROOMS: Final = ("loop", "ring", "lowlevel", "faults/test_refused_operations.py", "files", "sockets")
_ALL: Final = (*_ROOMS, "session", "command", "oracle", "trio")
_SECONDS_OF_CHECKS: Final = 1200


def main() -> None:
    arguments = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that no guest is left
    rooms = () if arguments.short else arguments.rooms or (_ALL if arguments.all else _ROOMS)
    heading = what_and_when()
    archive = Archive(arguments.cache)
    root = arguments.cache / "root.ext4"
    try:
        for line in archive.fetch(arguments.kernels, again=arguments.fetch):
            print(f"not tried: {line}", flush=True)
        make_root(arguments.cache / "root", archive.tool("busybox"), root)
    except Unavailable as error:
        print(f"nothing was tried: {error}")
        return
    table: list[tuple[Kernel, Result]] = []
    for name in arguments.kernels:
        kernel = archive.kernel(name)
        if kernel is None or kernel.release in (tried.release for tried, _ in table):
            continue
        machine = Machine(archive, kernel, root, arguments.cache / "ran" / name)
        print(f"{kernel.release}: {machine.folder / 'output'}", flush=True)
        for result in machine.run(job(rooms, arguments), arguments.minutes * 60 + _SECONDS_OF_CHECKS):
            table.append((kernel, result))
            print(f"  {result.check}: {result.outcome}: {result.figures}", flush=True)
            if result.outcome == "failed":
                print(result.details, flush=True)
    text = heading + as_table(table)
    print(text)
    if arguments.write:
        arguments.write.write_text(text)
    if any(result.outcome == "failed" for _, result in table):
        sys.exit(1)


def job(rooms: Sequence[str], arguments: argparse.Namespace) -> list[str]:
    """The command in a guest."""
    checks = _SHORT if arguments.short else _CHECKS
    inside = SOURCES / "tests/kernels/inside/checks.py"
    options = [f"--seconds={arguments.minutes * 60:.0f}", *(["--rooms", *rooms] if rooms else [])]
    return [sys.executable, str(inside), *checks, *options]


def what_and_when() -> str:
    """The command, the day and the commit, which may be others when the last guest has ended."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    command = " ".join(["nox -s kernels", *(["--", *sys.argv[1:]] if sys.argv[1:] else [])])
    today = datetime.datetime.now(datetime.timezone.utc)
    return f"`{command}`, {today:%Y-%m-%d}, {commit or 'not of a repository'}\n\n"


def as_table(table: Sequence[tuple[Kernel, Result]]) -> str:
    """What was tried and how it ended, for docs/kernels.md."""
    lines = ["| kernel | what ran | result | |", "| --- | --- | --- | --- |"]
    release = ""
    for kernel, result in table:
        shown = kernel.release.removesuffix("-cloud-amd64") if kernel.release != release else ""
        release = kernel.release
        lines.append(f"| {shown} | {result.check} | {result.outcome} | {result.figures} |")
    return "\n".join(lines) + "\n"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trio-uring" / "kernels"
    parser = argparse.ArgumentParser(prog="tests/kernels")
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=", ".join(KERNELS))
    parser.add_argument("--short", action="store_true", help="only the doctor and the mixed workload")
    parser.add_argument(
        "--rooms", nargs="+", metavar="ROOM", help=f"of tests/; by default {' '.join(_ROOMS)}"
    )
    parser.add_argument("--all", action="store_true", help=f"these rooms: {' '.join(_ALL)}")
    parser.add_argument("--minutes", type=float, default=40, help="that the rooms of a kernel may take (40)")
    parser.add_argument("--fetch", action="store_true", help="look for newer kernels than those in the cache")
    parser.add_argument("--cache", type=Path, default=cache, help="a folder for all that is fetched and made")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table there as well")
    found = parser.parse_args(arguments)
    found.kernels = found.kernels or list(KERNELS)
    if unknown := [name for name in found.kernels if name not in KERNELS]:
        parser.error(f"there is no {' and no '.join(unknown)}: {', '.join(KERNELS)}")
    found.cache = found.cache.absolute()
    return found


if __name__ == "__main__":
    main()
