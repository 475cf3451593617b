"""A server under load for a long time, and what it holds then.

`server.py` and `clients.py` are processes of their own; every byte is checked. What the server holds is
sampled, judged by `judging.py` and drawn: FOLDER gets samples.json, soak.svg and soak.png. Memory that grows
on epoll as well is not ours.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs
from drawing import draw
from judging import LEAST, grown, growth, left, still_open
from planted import PLANTED
from wire import WHERE

from measure.processes import Child, ChildError

HERE = Path(__file__).parent
_PATIENCE_AT_THE_END = 5
"""Rests, until what is left of the load has to be gone."""


@attrs.define
class Seen:
    """What was seen of the server and its clients."""

    backend: str
    samples: list[dict[str, Any]] = attrs.field(factory=list)
    """Under load, with the time."""
    rests: list[dict[str, Any]] = attrs.field(factory=list)
    """At rest: before the load, again and again, and at its end."""
    end: dict[str, Any] = attrs.field(factory=dict)
    """What the run has left."""

    def wrong(self, allowed: float) -> list[str]:
        return [*grown(self.rests, allowed), *left(self.rests[0], self.rests[-1]), *still_open(self.end)]


def main() -> int:
    arguments = parse()
    arguments.folder = arguments.folder.resolve()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    seen = Seen(arguments.backend)
    try:
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            watch(arguments, Path(folder), seen)
        wrong = seen.wrong(arguments.growth / 100)
    except (ChildError, KeyboardInterrupt) as error:
        wrong = [str(error) or "interrupted"]
        wrong += [f"see {path}" for path in arguments.folder.glob("*-stacks.txt") if path.stat().st_size]
    (arguments.folder / "samples.json").write_text(json.dumps(attrs.asdict(seen)))
    if seen.samples:
        draw(seen.samples, seen.rests, seen.backend, arguments.folder)
    tell(seen)
    for line in wrong:
        print(f"FAILED: {line}")
    return bool(wrong)


def watch(arguments: argparse.Namespace, folder: Path, seen: Seen) -> None:
    def command(name: str, *more: str) -> list[str]:
        return [
            sys.executable,
            str(HERE / f"{name}.py"),
            *more,
            str(folder),
            f"--stacks={arguments.folder / name}-stacks.txt",
            f"--pause={arguments.pause}",
            f"--patience={arguments.patience}",
        ]

    server_command = command("server", arguments.backend)
    server_command += [f"--seed={arguments.seed}", "--plant", *arguments.plant]
    with Child(server_command) as server:
        (folder / WHERE).write_text(json.dumps(server.ready["where"]))
        with Child(command("clients")) as clients:
            go_through(arguments.minutes * 60, server, clients, seen)
        server.ask({"ask": "end"})
        seen.end = server.ask()


def go_through(seconds: float, server: Child, clients: Child, seen: Seen) -> None:
    """Under load, but for a rest every half minute or minute; in a short time for so many that they tell
    something."""
    rests = int(min(60, max(LEAST, seconds / 30)))
    began = time.monotonic()
    interval = min(6, max(0.2, seconds / 600))

    def rest() -> dict[str, Any]:
        return {**ask_both("rest", server, clients), "time": time.monotonic() - began}

    for number in range(rests):
        seen.rests.append(rest())
        ask_both("go on", server, clients)
        end = began + seconds * (number + 1) / rests
        while True:
            time.sleep(interval)
            seen.samples.append({**ask_both("look", server, clients), "time": time.monotonic() - began})
            if time.monotonic() > end:
                break
        tell_sample(seen.samples[-1])
    last = rest()
    for _ in range(_PATIENCE_AT_THE_END):  # on a busy machine some of the load may be left
        if left(seen.rests[0], last):
            last = rest()
    seen.rests.append(last)


def ask_both(question: str, server: Child, clients: Child) -> dict[str, Any]:
    """What both say, the clients first. If they have failed, perhaps since the server has."""
    try:
        return {**clients.ask({"ask": question}), **server.ask({"ask": question})}
    except ChildError as error:
        try:
            server.ask({"ask": "look"})
        except ChildError as other:
            if str(other) != str(error):
                raise ChildError(f"{other}\n{error}") from None
        raise


def tell_sample(sample: dict[str, Any]) -> None:
    checked = (sample["checked"] + sample["received and checked"]) / 1e6
    print(
        f"{sample['time'] / 60:6.1f} min  {sample['memory'] / 1e6:.1f} MB, "
        f"{sample['descriptors']} descriptors, {checked:,.0f} MB checked, "
        f"{sum(sample['requests'].values()):,} rounds of clients, "
        f"{sum(sample['rounds'].values()):,} of the server",
        flush=True,
    )


def tell(seen: Seen) -> None:
    for name, before, after, spread in growth(seen.rests):
        print(f"{name:22} {before:>14,.0f} -> {after:>14,.0f}  ({spread:,.0f})")
    if seen.end:
        last = seen.rests[-1]
        print(f"rounds of the server: {last['rounds']}")
        print(f"rounds of clients: {last['requests']}")
        print(f"{last['cpu']:.0f} s of CPU for the server and its children")
        print(f"descriptors: {seen.end['before']} before the run, {seen.end['after']} after it")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/soak")
    parser.add_argument("minutes", type=float, nargs="?", default=10)
    parser.add_argument("--backend", choices=["io_uring", "epoll"], default="io_uring")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between rounds, on the average")
    parser.add_argument("--growth", type=float, default=5, help="per cent that are allowed")
    parser.add_argument("--patience", type=float, default=60, help="seconds for a round of anything")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--folder", type=Path, default=Path("soak-results"), help="gets what was seen")
    parser.add_argument("--plant", choices=PLANTED, nargs="+", default=[], help="faults, to be noticed")
    return parser.parse_args()
