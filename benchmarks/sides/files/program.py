"""The measured program of the files group.

    python -m sides.files.program SIDE

Says what it runs on, {"backend": ...}. Then each work takes three lines on standard
input, each of which it answers: a work.Work, for which it opens what has to be open;
an empty object, at which it does the work and tells what work.Record kept of it; and,
when it has been looked at, another one, at which it closes its files.
"""

from __future__ import annotations

import json
import sys

from sides.files import plain, tasks
from sides.files.libraries import Library, library
from sides.files.work import Record, Work

PLAIN = "open"


def main(side: str) -> None:
    if side == PLAIN:
        _in_one_thread()
    else:
        _in_tasks(library(side))


def _in_one_thread() -> None:
    _say({"backend": "one thread"})
    for line in sys.stdin:
        work = Work(**json.loads(line))
        record = Record(work)
        with plain.WORKS[work.kind](work, record) as run:
            _say({})
            if not sys.stdin.readline():
                return
            record.begin()
            run()
            _say(record.end())
            sys.stdin.readline()
        _say({})


def _in_tasks(used: Library) -> None:
    async def serve() -> None:
        _say({"backend": used.backend()})
        # Nothing else runs between works, so to block here holds nobody up.
        for line in sys.stdin:
            work = Work(**json.loads(line))
            record = Record(work)
            async with tasks.WORKS[work.kind](used, work, record) as run:
                _say({})
                if not sys.stdin.readline():
                    return
                record.begin()
                await run()
                _say(record.end())
                sys.stdin.readline()
            _say({})

    used.run(serve)


def _say(answer: dict[str, str] | dict[str, float]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
