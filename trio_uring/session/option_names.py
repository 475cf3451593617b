"""The names of the options, for the command line and the environment.

They are those of `RingOptions`, and are repeated here because the command line is read before `attrs`,
which `RingOptions` needs, may be imported: the program to be run decides what `sys.path` is.
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
    "accelerate",
)
DISABLE = "disable"
"""The option that stands for `RingOptions.features`: the names of features to switch off."""

VARIABLES = {f"TRIO_URING_{name.upper()}": name for name in (*OPTIONS, DISABLE)}
FLAGS = {f"--{name.replace('_', '-')}": name for name in (*OPTIONS, DISABLE)}
SWITCHED = ("files", "accelerate")
"""The options that are True or False."""
WITHOUT_VALUE = {"--files": "1", "--accelerate": "1"}
"""The options of the command line that take no value, and what each then means."""
