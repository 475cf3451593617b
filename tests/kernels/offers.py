"""What each kernel has to offer: the doctor's answers for it, that is which flags, features and operations
are used, available, off by a rule, or missing.

Written down as each kernel's difference from the one before. A vendor's kernel may have more than its
version says; Debian's have not.
"""

from __future__ import annotations

from typing import Any, Final

_OLDEST: Final = {
    "setup_flags": {
        "cqsize": "used",
        "r_disabled": "used",
        "submit_all": "missing",
        "taskrun_flag": "missing",
        "coop_taskrun": "missing",
        "single_issuer": "missing",
        "defer_taskrun": "missing",
        "no_sqarray": "missing",
    },
    "features": {
        "nodrop": "used",
        "ext_arg": "used",
        "rsrc_tags": "used",
        "cqe_skip": "missing",
        "completions": "missing",
        "tls": "missing",
        "pipes": "used",
        "no_iowait": "missing",
    },
    "operations": {
        **dict.fromkeys(("poll_add", "async_cancel", "nop"), "used"),
        **dict.fromkeys(("splice", "openat", "read", "write", "readv", "writev"), "used"),
        **dict.fromkeys(("fsync", "fallocate", "statx", "unlinkat", "renameat"), "used"),
        **dict.fromkeys(("accept", "recv", "send"), "available"),
        **dict.fromkeys(("connect", "recvmsg", "sendmsg"), "available"),
        **dict.fromkeys(("ftruncate", "mkdirat", "symlinkat", "linkat"), "missing"),
        **dict.fromkeys(("send_zc", "sendmsg_zc", "waitid"), "missing"),
    },
}
_STEPS: Final = {
    "6.1": {
        "setup_flags": {
            "submit_all": "used",
            "taskrun_flag": "used",
            "coop_taskrun": "off",
            "single_issuer": "used",
            "defer_taskrun": "used",
        },
        "features": {"cqe_skip": "used", "completions": "used", "tls": "used"},
        "operations": {
            **dict.fromkeys(("accept", "recv", "send", "mkdirat", "symlinkat", "linkat"), "used"),
            **dict.fromkeys(("send_zc", "sendmsg_zc"), "available"),
        },
    },
    "6.12": {
        "setup_flags": {"no_sqarray": "used"},
        "operations": {"ftruncate": "used", "waitid": "available"},
    },
    "6.15": {"features": {"no_iowait": "used"}},
}


def expected(version: tuple[int, ...]) -> dict[str, dict[str, str]]:
    """The state of each name of each group on a kernel of this version."""
    offered = {group: dict(states) for group, states in _OLDEST.items()}
    for step, groups in _STEPS.items():
        if version >= tuple(map(int, step.split("."))):
            for group, states in groups.items():
                offered[group].update(states)
    return offered


def differences(report: dict[str, Any], version: tuple[int, ...]) -> list[str]:
    """What a doctor's report says otherwise, a line each."""
    found = []
    for group, states in expected(version).items():
        said = {row["name"]: row["state"] for row in report[group]}
        for name in sorted(said.keys() | states.keys()):
            if said.get(name) != states.get(name):
                found.append(f"{name} is {said.get(name, 'not told')}, not {states.get(name, 'known')}")
    if not report["usable"]:
        found.append(f"io_uring cannot be used: {report['reason']}")
    return found
