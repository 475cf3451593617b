"""Makes the seccomp profiles of this folder: what a profile allows, and the three calls of io_uring.

    python deploy/profiles.py default.json > deploy/seccomp.json              for Docker, Podman and CRI-O
    python deploy/profiles.py --oci default.json > deploy/seccomp-oci.json    for containerd, runc and crun

``default.json`` is Docker's own profile (README.md says of which version), or any other of its form. Such a
profile has rules that hold for some architectures or capabilities only. containerd reads over these
conditions, and then allows mount(2) to everybody: ``--oci`` settles them for a container without any
capability, on x86-64 and 64-bit ARM.
"""

from __future__ import annotations

import argparse
import json
from typing import Any, TypeAlias

Profile: TypeAlias = dict[str, Any]
Rule: TypeAlias = dict[str, Any]

IO_URING: Rule = {
    "names": ["io_uring_enter", "io_uring_register", "io_uring_setup"],
    "action": "SCMP_ACT_ALLOW",
}
ARCHITECTURES = {"amd64", "x86", "x32", "arm64", "arm"}
"""What the rules of a profile call the architectures in `SCMP_ARCHITECTURES`."""
SCMP_ARCHITECTURES = [
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
]


def with_io_uring(profile: Profile) -> Profile:
    return {**profile, "syscalls": [*profile["syscalls"], IO_URING]}


def without_conditions(profile: Profile) -> Profile:
    """The same as the runtime-spec of the OCI has it, which knows no conditions."""
    return {
        **{key: value for key, value in profile.items() if key in ("defaultAction", "defaultErrnoRet")},
        "architectures": SCMP_ARCHITECTURES,
        "syscalls": [
            {key: value for key, value in rule.items() if key in ("names", "action", "errnoRet", "args")}
            for rule in profile["syscalls"]
            if holds(rule)
        ],
    }


def holds(rule: Rule) -> bool:
    """Whether the rule is one for a container without any capability, on one of `ARCHITECTURES`.

    A kernel that is too old for a rule (``minKernel``, 4.8 at most) is too old for io_uring as well.
    """
    only, never = rule.get("includes", {}), rule.get("excludes", {})
    return (
        not only.get("caps")
        and not ARCHITECTURES.isdisjoint(only.get("arches", ARCHITECTURES))
        and ARCHITECTURES.isdisjoint(never.get("arches", ()))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--oci", action="store_true", help="settle the conditions")
    parser.add_argument("profile", type=argparse.FileType())
    arguments = parser.parse_args()
    profile = with_io_uring(json.load(arguments.profile))
    print(json.dumps(without_conditions(profile) if arguments.oci else profile, indent="\t"))


if __name__ == "__main__":
    main()
