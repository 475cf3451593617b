"""The command line, ``python -m trio_uring`` or ``trio-uring``."""

import sys

from .command.command_line import main


def command() -> None:
    """The entry point of ``trio-uring``."""
    if status := main(sys.argv[1:]):
        sys.exit(status)


if __name__ == "__main__":
    command()
