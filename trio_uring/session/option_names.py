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

PREFIX = "TRIO_URING_"
VARIABLES = {f"{PREFIX}{name.upper()}": name for name in (*OPTIONS, DISABLE)}
NO_OPTIONS = {
    f"{PREFIX}{name}"
    for name in (
        "FAULTS_SECONDS",
        "FAULTS_SEED",
        "FUZZ_EXAMPLES",
        "INTERSPHINX",
        "LIBURING",
        "ORACLE_EXAMPLES",
        "STRESS_SECONDS",
        "STRESS_SEED",
    )
}
"""The variables of the build, the tests and the documentation. Whoever has set any other has mistyped it."""
FLAGS = {f"--{name.replace('_', '-')}": name for name in (*OPTIONS, DISABLE)}
SWITCHED = ("files", "accelerate")
"""The options that are True or False."""
WITHOUT_VALUE = {"--files": "1", "--accelerate": "1"}
"""The options of the command line that take no value, and what each then means."""
