"""The code on the pages runs, and prints what the pages say.

A block of Python is a whole program. It is run, has to end without an error or a warning, and prints what
the block ``text`` behind it shows, if there is one; ``...`` there stands for anything. A comment above
a block says what else it is:

  <!-- file: NAME -->       it is written to a file, which later blocks of the page use
  <!-- run -->              commands for a shell, which end without an error
  <!-- served: TEXT -->     commands that start servers: each, told a free port, answers ``GET /`` with TEXT
  <!-- port: NUMBER -->     a program that listens on this port; a free one takes its place

Other blocks are not run.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
from picture import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 100
_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$"
    r"(?:\n\n```text\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
_PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("TRIO_URING")}
_PLAIN["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{_PLAIN['PATH']}"


@attrs.frozen
class Block:
    """A block of a page that is tried."""

    language: str
    text: str
    mark: str
    value: str
    output: str | None


def blocks(page: Path) -> Iterator[Block]:
    for found in _BLOCK.finditer(page.read_text()):
        mark, _, value = (found["mark"] or "").partition(": ")
        if found["language"] == "python" or mark:
            yield Block(found["language"], found["text"], mark, value, found["output"])


PAGES = [page for page in (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))) if any(blocks(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_of_a_page(page: Path, tmp_path: Path, port: int) -> None:
    for block in blocks(page):
        if block.mark == "file":
            (tmp_path / block.value).write_text(block.text)
        elif block.mark == "served":
            for command in block.text.strip().splitlines():
                assert answer_of(command, port, tmp_path) == block.value, command
        elif block.mark == "run":
            check(["sh", "-e", "-c", block.text], block.output, tmp_path)
        else:
            assert block.mark in ("", "port"), block.mark
            text = block.text.replace(block.value, str(port)) if block.mark else block.text
            (tmp_path / "program.py").write_text(text)
            check([sys.executable, "-W", "error", "program.py"], block.output, tmp_path)


def check(command: list[str], output: str | None, folder: Path) -> None:
    """Runs a command, which has to end well and, unless ``output`` is None, to print this."""
    done = subprocess.run(
        command, cwd=folder, env=_PLAIN, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, (command[-1], done.stdout, done.stderr)
    if output is not None:
        pattern = re.escape(output).replace(re.escape("..."), ".*?")
        assert re.fullmatch(pattern, done.stdout, re.DOTALL), (done.stdout, output)


def answer_of(command: str, port: int, folder: Path) -> str:
    """What a server that a command starts answers."""
    assignments = re.match(r"(?:[A-Z_]+=\S+ )*", command)
    assert assignments is not None
    environment = dict(word.split("=", 1) for word in assignments[0].split())
    words = shlex.split(command[assignments.end() :], comments=True)
    with (folder / "log").open("w+") as log:
        server = subprocess.Popen(
            [*words, "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "0"],
            cwd=folder,
            env={**_PLAIN, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return asked(f"http://127.0.0.1:{port}/", server, folder / "log")
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(PATIENCE)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)  # what it has left behind
            server.wait()


def asked(address: str, server: subprocess.Popen[bytes], log: Path) -> str:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError),
            urllib.request.urlopen(address, timeout=PATIENCE) as answer,
        ):
            text: str = answer.read().decode()
            return text
        assert server.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())
