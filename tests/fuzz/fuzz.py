"""Has a fuzzer choose the arguments of the tests in this folder, by which lines of the code they reach.

    python tests/fuzz/fuzz.py [SECONDS] [--targets TARGET ...] [--inputs FOLDER]

Each target has its SECONDS (600), one after the other, in a process of its own. Those in Python are driven
by Atheris, and Hypothesis makes their arguments of its bytes; completions.c is a program of libFuzzer's. What
has reached something new is kept in FOLDER, from where the next call goes on. A failure ends its target, and
is repeated with

    python tests/fuzz/fuzz.py --targets TARGET --repeat FILE
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path[1:1] = [str(HERE.parent / "support")]

if TYPE_CHECKING:
    from collections.abc import Sequence

TARGETS = {
    "options": ("test_options", "test_options_are_made_or_refused"),
    "variables": ("test_options", "test_variables_are_read_or_refused_by_their_names"),
    "told": ("test_options", "test_what_a_parent_process_says_is_read_or_refused"),
    "tasks": ("test_tasks", "call_with"),
    "datagrams": ("test_tasks", "exchange_with"),
    "text": ("test_text", "test_text_is_decoded_as_by_the_standard_library"),
    "records": ("test_records", "test_damaged_records_are_taken_as_on_epoll"),
    "completions": None,  # which is C
}


def drive(target: str, arguments: Sequence[str]) -> None:
    """Called in the target's process, which it ends."""
    import atheris

    module, name = TARGETS[target] or ("", "")
    with atheris.instrument_imports(include=["trio_uring", module]):  # some are imported late
        test: Any = importlib.import_module(module)
        atheris.Setup([sys.argv[0], *arguments], getattr(test, name).hypothesis.fuzz_one_input)
        getattr(test, "in_the_world", lambda call: call())(atheris.Fuzz)


def command_of(target: str, programs: Path) -> list[str]:
    if TARGETS[target] is not None:
        return [sys.executable, __file__, "--drive", target]
    from fuzzing import build_completions

    refused = build_completions(programs / target)
    if refused:
        raise SystemExit(refused)
    return [str(programs / target)]


def fuzz(target: str, inputs: Path, options: argparse.Namespace) -> bool:
    """Whether the target went well."""
    folder = inputs / target
    folder.mkdir(parents=True, exist_ok=True)
    env = dict(os.environ)
    if TARGETS[target] is None:
        env["LD_PRELOAD"] = ""  # it has a sanitizer of its own
    limits = [
        f"-max_total_time={options.seconds}",
        f"-artifact_prefix={inputs}/{target}-",
        "-print_final_stats=1",
    ]
    what = (
        [str(options.repeat)] if options.repeat else [*limits, "-timeout=120", "-len_control=0", str(folder)]
    )
    with tempfile.TemporaryDirectory() as programs:
        command = [*command_of(target, Path(programs)), *what]
        print(f"== {target}", flush=True)
        return subprocess.run(command, env=env, check=False).returncode == 0


def main() -> None:
    if sys.argv[1:2] == ["--drive"]:
        drive(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", nargs="?", type=int, default=600)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--inputs", type=Path, default=Path(tempfile.gettempdir(), "trio-uring-fuzz"))
    parser.add_argument("--repeat", type=Path)
    options = parser.parse_args()
    failed = [target for target in options.targets if not fuzz(target, options.inputs, options)]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; see {options.inputs}")


if __name__ == "__main__":
    main()
