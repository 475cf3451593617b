"""Counts the requests in logs of web servers by their status; the logs may be larger than the memory.

    python -m trio_uring --checkpoint-budget 16 log_lines.py /var/log/nginx/*.log

With a budget, 15 of 16 lines are handed over without a pass through Trio's scheduler, which takes longer than
the line does. Several logs are read at a time, so that what has to come from the disk is waited for
together. A log that cannot be read is named, and the others are counted; the exit status is 1 then. Ctrl-C
ends it, with what was counted so far.
"""

import re
import signal
import sys
from collections import Counter

import trio

import trio_uring

AT_A_TIME = 8
STATUS = re.compile(rb'" ([1-5]\d\d) ')  # behind the request: "GET / HTTP/1.1" 200 512


async def count(path: str, counts: Counter[str], unread: list[str], turns: trio.CapacityLimiter) -> None:
    try:
        async with turns, await trio_uring.open_file(path, "rb") as log:
            async for line in log:
                found = STATUS.search(line)
                counts[found[1].decode() if found else "no status"] += 1
    except OSError as error:
        unread.append(f"{path}: {error.strerror}")


async def cancel_at_signal(scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        await anext(signals)
        scope.cancel()


async def main(paths: list[str]) -> str | None:
    """Returns what could not be read, for `sys.exit`."""
    counts: Counter[str] = Counter()
    unread: list[str] = []
    turns = trio.CapacityLimiter(AT_A_TIME)
    async with trio.open_nursery() as watching:
        await watching.start(cancel_at_signal, watching.cancel_scope)
        async with trio.open_nursery() as nursery:
            for path in paths:
                nursery.start_soon(count, path, counts, unread, turns)
        watching.cancel_scope.cancel()
    for status, number in sorted(counts.items()):
        print(f"{status} {number}")
    return "\n".join(unread) or None


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    sys.exit(trio.run(main, sys.argv[1:]))
