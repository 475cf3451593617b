"""The checks in a guest: runs those that are named, and writes a line for each result to the third serial
port. What they print goes to the second one."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import doctor
import mixed
import rooms
import switches
from findings import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_PORT: Final = "/dev/ttyS2"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2400, help="for the rooms, all together")
    parser.add_argument("--rooms", nargs="*", default=[])
    parser.add_argument("checks", nargs="*")
    arguments = parser.parse_args()
    for name in arguments.checks:
        checks = {"doctor": doctor.check, "mixed": mixed.check, "switches": switches.check}
        write(attempt(name, checks[name]))
    deadline = time.monotonic() + arguments.seconds
    for room in arguments.rooms:
        write([rooms.check(room, deadline)])


def attempt(name: str, check: Callable[[], Iterable[Result]]) -> Iterator[Result]:
    try:
        yield from check()
    except Exception as error:
        yield Result(name, "failed", f"{type(error).__name__}: {error}", traceback.format_exc())


def write(results: Iterable[Result]) -> None:
    for result in results:
        print(f"{result.check}: {result.outcome}: {result.figures}\n{result.details}", flush=True)
        with open(_PORT, "w") as port:
            port.write(result.to_line())


if __name__ == "__main__":
    main()
