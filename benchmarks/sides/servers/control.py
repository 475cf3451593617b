"""The server's talk with the suite.

The first line on standard output tells the port and the backend; each line on standard
input asks for the backend again, and for what the server has counted; at its end the
server ends with status 0 and drops its connections. trio_control.py and
asyncio_control.py do so in the loop that serves: it is that loop which is asked, and no
thread waits for the question.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

STDIN = 0


def tell(**facts: object) -> None:
    json.dump(facts, sys.stdout)
    print(flush=True)


def answer(facts: Callable[[], dict[str, object]]) -> bool:
    """Answers each line that has come; false at the end of standard input."""
    questions = os.read(STDIN, 4096)
    for _ in range(questions.count(b"\n")):
        tell(**facts())
    return bool(questions)
