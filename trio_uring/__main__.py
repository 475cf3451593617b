"""The command line, ``python -m trio_uring``."""

import sys

from .program import main

sys.exit(main(sys.argv[1:]))
