"""The command line, ``python -m trio_uring`` or ``trio-uring``."""

import sys

from .command.command_line import main


def command() -> None:
    if status := main(sys.argv[1:]):
        sys.exit(status)


if __name__ == "__main__":
    command()
