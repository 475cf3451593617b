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


@attrs.define
class Seen:
    """What was seen of the server and its clients."""

    samples: list[dict[str, Any]] = attrs.field(factory=list)
    before: dict[str, Any] = attrs.field(factory=dict)
    after: dict[str, Any] = attrs.field(factory=dict)
    """At rest, before the load and after it."""
    end: dict[str, Any] = attrs.field(factory=dict)
    """What the run has left."""


def main() -> int:
    arguments = parse()
    arguments.folder = arguments.folder.resolve()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    seen = Seen()
    try:
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            watch(arguments, Path(folder), seen)
        wrong = [
            *grown(seen.samples, arguments.growth / 100),
            *left(seen.before, seen.after),
            *still_open(seen.end),
        ]
    except (ChildError, KeyboardInterrupt) as error:
        wrong = [str(error) or "interrupted"]
    (arguments.folder / "samples.json").write_text(json.dumps(attrs.asdict(seen)))
    if seen.samples:
        draw(seen.samples, arguments.backend, arguments.folder)
    tell(seen)
    for line in wrong:
        print(f"FAILED: {line}")
    return bool(wrong)


def watch(arguments: argparse.Namespace, folder: Path, seen: Seen) -> None:
    def command(name: str, share: float, *more: str) -> list[str]:
        return [
            sys.executable,
            str(HERE / f"{name}.py"),
            *more,
            str(folder),
            f"--stacks={arguments.folder / name}-stacks.txt",
            f"--share={arguments.cpu * share}",
            f"--patience={arguments.patience}",
        ]

    server_command = command("server", 0.65, arguments.backend)
    server_command += [f"--seed={arguments.seed}", "--plant", *arguments.plant]
    with Child(server_command) as server:
        (folder / WHERE).write_text(json.dumps(server.ready["where"]))
        seen.before = server.ready["at rest"]
        server.ask({"ask": "start"})
        with Child(command("clients", 0.35)) as clients:
            sample(arguments, server, clients, seen)
            clients.ask({"ask": "end"})
        seen.after = server.ask({"ask": "stop"})
        seen.end = server.ask({"ask": "end"})


def sample(arguments: argparse.Namespace, server: Child, clients: Child, seen: Seen) -> None:
    seconds = arguments.minutes * 60
    interval = min(10, max(0.1, seconds / 600))
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds or len(seen.samples) < LEAST:
        answer = {**look(server, clients), "time": now}
        seen.samples.append(answer)
        if len(seen.samples) % 10 == 0:
            tell_sample(answer)
        time.sleep(max(0.0, began + len(seen.samples) * interval - time.monotonic()))


def look(server: Child, clients: Child) -> dict[str, Any]:
    """What both say. If the clients have failed, perhaps since the server has."""
    try:
        return {**clients.ask({"ask": "look"}), **server.ask({"ask": "look"})}
    except ChildError as error:
        try:
            server.ask({"ask": "look"})
        except ChildError as other:
            raise ChildError(f"{other}\n{error}") from None
        raise


def tell_sample(sample: dict[str, Any]) -> None:
    checked = (sample["checked"] + sample["received and checked"]) / 1e6
    print(
        f"{sample['time'] / 60:6.1f} min  {sample['memory'] / 1e6:.1f} MB, "
        f"{sample['descriptors']} descriptors, {checked:,.0f} MB checked, "
        f"{sample['requests']:,} rounds of clients, {sample['rounds']:,} of the server",
        flush=True,
    )


def tell(seen: Seen) -> None:
    for name, before, after, spread in growth(seen.samples):
        print(f"{name:22} {before:>14,.0f} -> {after:>14,.0f}  ({spread:,.0f})")
    if seen.end:
        last = seen.samples[-1]
        print(
            f"server: {seen.after['cpu']:.0f} s of CPU, {last['rounds']:,} rounds: {seen.after['of parts']}"
        )
        print(f"descriptors: {seen.end['before']} before the run, {seen.end['after']} after it")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/soak")
    parser.add_argument("minutes", type=float, nargs="?", default=10)
    parser.add_argument("--backend", choices=["io_uring", "epoll"], default="io_uring")
    parser.add_argument("--cpu", type=float, default=0.5, help="CPUs that server and clients may take")
    parser.add_argument("--growth", type=float, default=5, help="per cent that are allowed")
    parser.add_argument("--patience", type=float, default=60, help="seconds for a round of anything")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--folder", type=Path, default=Path("soak"), help="where samples and pictures go")
    parser.add_argument("--plant", choices=PLANTED, nargs="+", default=[], help="faults, to be noticed")
    return parser.parse_args()
