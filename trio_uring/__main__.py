"""The command line, ``python -m trio_uring``."""

import sys

from .program import main

if status := main(sys.argv[1:]):
    sys.exit(status)
