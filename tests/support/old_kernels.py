"""The tests as on older kernels, as far as switches go: all that can be switched off and is newer than the
kernel is off. What else such a kernel lacks, as operations of files, only the kernel itself shows.

    python tests/support/old_kernels.py [KERNEL ...] [ARGUMENT ...]

Runs all tests once for each kernel, or for those that are named, and prints what came out. pytest gets
the arguments.
"""

from __future__ import annotations

import sys

import counting

from trio_uring.ring.features import FEATURES, SETUP_FLAGS, SWITCHES

# Of all that have the same features the newest one, but for the first: Debian's 5.10 has io_uring of 5.15.
KERNELS = ("5.10", "5.17", "5.18", "5.19", "6.0", "6.5", "6.14")


def lacked(kernel: str) -> tuple[str, ...]:
    """What this kernel lacks, of that which can be switched off."""
    rows = (row for row in (*SETUP_FLAGS, *FEATURES) if row.name in SWITCHES)
    return tuple(row.name for row in rows if _version(row.since) > _version(kernel))


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def main(arguments: list[str]) -> int:
    kernels = [argument for argument in arguments if argument in KERNELS]
    others = [argument for argument in arguments if argument not in KERNELS]
    outcomes = []
    for kernel in kernels or KERNELS:
        off = ",".join(lacked(kernel))
        print(f"as on Linux {kernel}: TRIO_URING_DISABLE={off}", flush=True)
        outcomes.append(counting.run(kernel, others, {"TRIO_URING_DISABLE": off}))
    return counting.report("as on Linux", outcomes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
