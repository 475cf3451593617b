"""What a file has accepted when the program ends, and how that ends."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from equivalence import python

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """
import atexit, gc, logging, os, queue, sys, threading, time, trio, trio_uring
path, mode, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
data = "x" * size if mode in ("w", "a", "r+") else b"x" * size
open(path, "wb").close()

class Holder:
    pass

async def opened():
    file = await trio_uring.open_file(path, mode, -1)
    for start in range(0, size, 1 << 20):
        await file.write(data[start : start + (1 << 20)])
    return file
"""

ALIVE = {
    "a global": "file = trio_uring.run(opened)",
    "a log handler": """
handler = logging.Handler()
handler.file = trio_uring.run(opened)
logging.getLogger().addHandler(handler)
del handler
""",
    "a cycle": """
gc.disable()
holder = Holder()
holder.file, holder.holder = trio_uring.run(opened), holder
holder.file.holder = holder
del holder
""",
    "an attribute of a module": "sys.kept = trio_uring.run(opened)",
    "an attribute of trio": "trio.kept = trio_uring.run(opened)",
    "a class": "class Kept:\n    file = trio_uring.run(opened)",
    "a function to be called at exit": "atexit.register(lambda file: None, trio_uring.run(opened))",
    "another thread": """
kept = []
thread = threading.Thread(target=lambda: kept.append(trio_uring.run(opened)))
thread.start()
""",
    "a daemon": """
started = threading.Event()
async def daemon():
    file = await opened()
    started.set()
    await trio.sleep_forever()
threading.Thread(target=trio_uring.run, args=(daemon,), daemon=True).start()
started.wait()
""",
    "a busy daemon": """
started = threading.Event()
async def daemon():
    file = await opened()
    started.set()
    time.sleep(600)
threading.Thread(target=trio_uring.run, args=(daemon,), daemon=True).start()
started.wait()
""",
    "a guest run that is left behind": """
todo, kept = queue.SimpleQueue(), []
async def guest():
    kept.append(await opened())
    await trio.sleep_forever()
trio_uring.start_guest_run(guest, run_sync_soon_threadsafe=todo.put, done_callback=print)
while not kept:
    todo.get()()
""",
    "nobody": "file = trio_uring.run(opened)\ndel file",
    "garbage": """
holder = Holder()
holder.file, holder.holder = trio_uring.run(opened), holder
holder.file.holder = holder
del holder
gc.collect()
assert os.stat(path).st_size == size
""",
    "an error": "file = trio_uring.run(opened)\nsys.stderr = open(os.devnull, 'w')\nsys.exit(0)",
}


CASES = [
    *((alive, "w", 25) for alive in ALIVE),
    *(
        (alive, mode, size)
        for alive in ("a log handler", "a cycle")
        for mode, size in (("ab", 25), ("wb", 3_000_025))
    ),
    *(
        (alive, mode, 8_000_000)
        for alive in ("a busy daemon", "a guest run that is left behind")
        for mode in ("ab", "wb")
    ),
]


@pytest.mark.parametrize(("alive", "mode", "size"), CASES)
def test_what_a_file_had_accepted_is_written_when_the_interpreter_ends(
    tmp_path: Path, alive: str, mode: str, size: int
) -> None:
    path = tmp_path / "file"
    python(HEAD + ALIVE[alive], str(path), mode, str(size))
    assert path.read_bytes() == b"x" * size


def test_nothing_odd_is_said(tmp_path: Path) -> None:
    code = HEAD + ALIVE["a log handler"] + ALIVE["an attribute of a module"]
    child = "import subprocess, sys\nprint(subprocess.run(sys.argv[1:], capture_output=True).stderr)"
    said = python(child, sys.executable, "-c", code, str(tmp_path / "file"), "w", "25")
    assert said == "b''\n"


def test_a_process_that_leaves_at_once_loses_what_is_buffered_and_nothing_that_was_flushed(
    tmp_path: Path,
) -> None:
    code = """
import os, sys, trio_uring
async def main():
    raw = await trio_uring.open_file(sys.argv[1] + " raw", "wb", 0)
    await raw.write(b"x" * 3_000_000)
    file = await trio_uring.open_file(sys.argv[1], "w")
    await file.write("x" * 3_000_000)
    await file.flush()
    await file.write("lost")
    os._exit(0)
trio_uring.run(main)
"""
    path = tmp_path / "file"
    python(code, str(path))
    assert path.read_bytes() == (tmp_path / "file raw").read_bytes() == b"x" * 3_000_000
