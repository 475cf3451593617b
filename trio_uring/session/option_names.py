"""The names of the options, for the command line and the environment.

Those of `RingOptions`, once more: the command line is read before anything is imported that is
not Python's own, since it decides from where.
"""

OPTIONS = (
    "entries",
    "cq_entries",
    "fallback",
    "checkpoint_budget",
    "buffers",
    "buffer_size",
    "read_ahead",
    "accept_ahead",
    "files",
)
DISABLE = "disable"
"""For `RingOptions.features`: the names that are switched off."""

VARIABLES = {f"TRIO_URING_{name.upper()}": name for name in (*OPTIONS, DISABLE)}
FLAGS = {f"--{name.replace('_', '-')}": name for name in (*OPTIONS, DISABLE)}
WITHOUT_VALUE = {"--files": "1"}
"""What an option of the command line means that is given alone."""
