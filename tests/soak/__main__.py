"""A server under load for a long time, and what it holds then.

    python tests/soak [MINUTES] [--backend epoll] [--cpu SHARE] [--folder FOLDER] ...

See `soak.py`. What it shares with others is in tests/faults and in benchmarks.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDERS = [str(HERE), str(ROOT / "tests" / "faults"), str(ROOT / "benchmarks")]


def main() -> int:
    sys.path[:0] = FOLDERS
    os.environ["PYTHONPATH"] = os.pathsep.join(FOLDERS)  # of the children
    import soak

    return soak.main()


if __name__ == "__main__":
    sys.exit(main())
