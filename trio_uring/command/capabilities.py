"""What this kernel, liburing and container allow, found by trying it.

Nothing is decided by a version. Set-up flags are tried one by one; a feature is a bit of the mask that
io_uring_setup reports; the kernel is asked for its operations with IORING_REGISTER_PROBE; and whether a
run would use io_uring is found out by opening a ring as a run does. The kernel's version only serves to
say why something is missing.
"""

from __future__ import annotations

import errno
import functools
import os
import platform
import re
import resource
import site
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs
import trio

from .. import __version__
from ..ring import features, locked_memory, refusals
from ..ring.errors import UringUnavailableError
from ..ring.native import ffi, lib, missing, unavailable
from ..ring.opcodes import OPCODES
from ..session import children, runs, wanted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ..ring.opcodes import Opcode
    from ..ring.opening import Ring
    from ..ring.options import Fallback, RingOptions


State: TypeAlias = Literal["used", "available", "off", "missing"]


@attrs.frozen
class Capability:
    """A set-up flag, a feature or an operation, and its state on this machine."""

    name: str
    """The name that `RingOptions.features` and ``TRIO_URING_DISABLE`` have for it."""
    state: State
    """``"used"`` by runs; ``"available"``, but used by no run of this version of trio-uring, or by none on
    this machine; ``"off"``, since the user or a rule says so; or ``"missing"``."""
    since: str
    """The first kernel that has it, unless its vendor ported it back."""
    gain: str
    """What it is good for."""
    reason: str = ""
    """Why it is off or missing; else empty."""
    remedy: str = ""
    """What to do about that, if anything; else empty."""


@attrs.frozen(kw_only=True)
class Capabilities:
    """What ``python -m trio_uring doctor`` prints. See `capabilities`."""

    usable: bool
    """Whether a run that starts now uses io_uring."""
    reason: str
    """What is in the way of that; empty if nothing is."""
    remedy: str
    """What to do about it; empty if nothing is in the way."""
    errno: int | None
    """The kernel's refusal; None if there is none, or if it was not the kernel's."""
    fallback: Fallback
    """Whether a run that cannot use io_uring raises an ``"error"`` or uses ``"epoll"``."""
    kernel: str
    """The kernel's release."""
    liburing_built: str
    """The version of liburing whose headers the core was compiled with, or ``"unknown"``."""
    liburing_loaded: str
    """The version of liburing that this process has loaded, or ``"unknown"``."""
    liburing_path: str
    """The file that it was loaded from, links resolved; empty if it is unknown."""
    liburing_inside: bool
    """Whether that file is the core, which was linked with it statically, as in a wheel."""
    python: str
    """The version of Python."""
    trio: str
    """The version of Trio."""
    trio_uring: str
    """The version of trio-uring."""
    entries: int
    """Submissions that a run's ring queues; 0 if there can be no ring."""
    cq_entries: int
    """Completions that a run's ring holds; 0 if there can be no ring."""
    locked_memory: int | None
    """Bytes that the processes of this user may lock together (RLIMIT_MEMLOCK); None: any number."""
    locked_by_ring: int
    """Bytes of locked memory that a run's ring takes, on kernels that count it."""
    locked_by_buffers: int
    """Bytes of locked memory that the buffers of a run's stream sockets take, from the first socket on."""
    open_files: int
    """Descriptors that this process may have open (the soft RLIMIT_NOFILE)."""
    open_files_hard: int
    """What this process may raise that to by itself (the hard RLIMIT_NOFILE)."""
    opened_by_run: int
    """Descriptors that a run has open for itself."""
    options: Mapping[str, int | str]
    """The options of `RingOptions`, without ``features``, that differ from their defaults."""
    start_file: str
    """The file that puts Python processes which a program starts on io_uring; empty if there is none that
    an interpreter would read."""
    knows_reschedule: bool
    """What `UringStatistics.knows_reschedule` would be in a run that starts now."""
    accelerated: bool
    """What `UringStatistics.accelerated` would be in a run that starts now, if it is not a guest run."""
    not_accelerated: str
    """Why it could not be True here; empty if it could."""
    wrapped: tuple[str, ...]
    """What `UringStatistics.wrapped` would be in a run that starts now."""
    setup_flags: tuple[Capability, ...]
    """The flags of ``io_uring_setup``."""
    features: tuple[Capability, ...]
    """The features that ``io_uring_setup`` reports."""
    operations: tuple[Capability, ...]
    """The operations of submissions."""

    @property
    def used(self) -> tuple[str, ...]:
        """The names of the set-up flags and features that a run uses."""
        return tuple(row.name for row in (*self.setup_flags, *self.features) if row.state == "used")


def capabilities() -> Capabilities:
    """What a run that starts now would find and use, with the options that `install` was given, if it
    was called, and that the environment overrides.

    Sets up a few rings and closes them. Any thread, within a run or not. If io_uring cannot be used,
    that is not raised, but part of the answer.

    Raises:
      ValueError: TRIO_URING_FALLBACK or TRIO_URING_DISABLE has a value that it may not have.
    """
    options = runs.resolve_options(None)
    off = {name for name, value in options.features.items() if not value}
    ring, error = _open(options)
    not_accelerated = runs.why_not_accelerated()
    if ring is None:
        used: tuple[str, ...] = ()
        entries = cq_entries = 0
    else:
        used = ring.flags
        statistics = ffi.new("tu_statistics *")
        lib.tu_read_statistics(ring.core, statistics)
        entries, cq_entries = statistics.entries, statistics.cq_entries
        ring.release()
    return Capabilities(
        usable=error is None,
        reason=error.reason if error else "",
        remedy=error.remedy if error else "",
        errno=error.errno if error else None,
        fallback=options.fallback,
        kernel=os.uname().release,
        python=platform.python_version(),
        trio=trio.__version__,
        trio_uring=__version__,
        entries=entries,
        cq_entries=cq_entries,
        locked_memory=locked_memory.limit(),
        locked_by_ring=locked_memory.size_of_ring(
            entries or options.entries, cq_entries or options.cq_entries, has_array="no_sqarray" not in used
        ),
        locked_by_buffers=locked_memory.size_of_buffers(options.buffers),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        open_files_hard=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        opened_by_run=4,
        options=_not_by_default(options),
        start_file=_start_file(),
        knows_reschedule=runs.knows_reschedule(),
        accelerated=options.accelerate and error is None and not not_accelerated,
        not_accelerated=not_accelerated,
        wrapped=runs.wrapped_names(),
        **(_without_core(missing) if missing else _with_core(used, off)),
    )


def _not_by_default(options: RingOptions) -> dict[str, int | str]:
    return {
        field.name: value
        for field in attrs.fields(type(options))
        if field.name != "features"
        if (value := getattr(options, field.name)) != getattr(type(options)(), field.name)
    }


def _start_file() -> str:
    """See `Capabilities.start_file`."""
    folders = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    paths = (PurePath(folder, name) for folder in folders for name in ("trio_uring.start", "trio_uring.pth"))
    return next((str(path) for path in paths if os.path.exists(path)), "")


def _with_core(used: Collection[str], off: Collection[str]) -> dict[str, Any]:
    """The fields of `Capabilities` that the core is needed for."""
    path = _loaded_liburing()
    built = ffi.string(lib.tu_liburing_built()).decode()
    inside = bool(lib.tu_liburing_is_inside())
    return {
        "liburing_built": built,
        "liburing_loaded": built if inside else _version_in(path),
        "liburing_path": path,
        "liburing_inside": inside,
        "setup_flags": tuple(_setup_flag(flag, used, off) for flag in features.SETUP_FLAGS),
        "features": _features(used, off),
        "operations": _operations(used),
    }


def _without_core(missing: ImportError) -> dict[str, Any]:
    """The same fields where the core cannot be loaded, and nothing can be tried."""
    error = unavailable(missing)

    def rows(
        table: Iterable[features.SetupFlag | features.Feature | Opcode],
    ) -> tuple[Capability, ...]:
        return tuple(
            Capability(what.name, "missing", what.since, what.gain, error.reason, error.remedy)
            for what in table
        )

    return {
        "liburing_built": "unknown",
        "liburing_loaded": "unknown",
        "liburing_path": "",
        "liburing_inside": False,
        "setup_flags": rows(features.SETUP_FLAGS),
        "features": rows(features.FEATURES),
        "operations": rows(OPCODES),
    }


def _open(options: RingOptions) -> tuple[Ring | None, UringUnavailableError | None]:
    """A ring as a run would have it; or the error that it would raise."""
    try:
        return runs.open_ring(options), None
    except UringUnavailableError as error:
        return None, error


def _setup_flag(flag: features.SetupFlag, used: Collection[str], off: Collection[str]) -> Capability:
    answer = features.try_flag(flag)
    if flag.name in used:
        return Capability(flag.name, "used", flag.since, flag.gain)
    if answer < 0:
        return _missing(flag, "io_uring_setup", -answer)
    if flag.name in off:
        return Capability(flag.name, "off", flag.since, flag.gain, *_switched_off(flag.name))
    if not used:
        return Capability(flag.name, "available", flag.since, flag.gain)
    return Capability(flag.name, "off", flag.since, flag.gain, _rule_against(flag, used))


def _rule_against(flag: features.SetupFlag, used: Collection[str]) -> str:
    """The rule of the table by which a flag is not used that the kernel accepts."""
    if without := [name for name in flag.needs if name not in used]:
        return f"it needs {' and '.join(without)}, which a run here does not use"
    if instead := [
        other.name
        for other in features.SETUP_FLAGS
        if flag.name in other.excludes or other.name in flag.excludes
    ]:
        return f"{' and '.join(instead)} is used instead"
    return "it is of use only beside coop_taskrun or defer_taskrun"


def _switched_off(name: str) -> tuple[str, str]:
    """Who has switched a feature off, and what to do about that."""
    for source, names in (
        ("TRIO_URING_DISABLE", children.environment().get("TRIO_URING_DISABLE", "")),
        ("--disable", wanted.command_line.get("--disable", "")),
    ):
        if name in names.replace(",", " ").split():
            return f"switched off by {source}", f"Take {name} out of {source}"
    return "switched off by the options of install()", f"Take {name} out of RingOptions.features"


def _features(used: Collection[str], off: Collection[str]) -> tuple[Capability, ...]:
    mask = features.probe(0)

    def row(feature: features.Feature) -> Capability:
        if feature.name in used:
            return Capability(feature.name, "used", feature.since, feature.gain)
        if mask < 0:
            return _missing(feature, "io_uring_setup", -mask)
        if not feature.is_in(mask):
            return _missing(feature)
        if feature.name in off:
            return Capability(feature.name, "off", feature.since, feature.gain, *_switched_off(feature.name))
        return Capability(feature.name, "available", feature.since, feature.gain)

    return tuple(row(feature) for feature in features.FEATURES)


def _operations(used: Collection[str]) -> tuple[Capability, ...]:
    supported = features.probe_operations()

    def row(operation: Opcode) -> Capability:
        if isinstance(supported, int):
            call = "io_uring_setup" if features.probe(0) < 0 else "io_uring_register"
            return _missing(operation, call, -supported)
        if operation.number not in supported:
            return _missing(operation)
        in_use = operation.used and (operation.needs in used if operation.needs else used)
        state: State = "used" if in_use else "available"
        return Capability(operation.name, state, operation.since, operation.gain)

    return tuple(row(operation) for operation in OPCODES)


def _missing(
    what: features.SetupFlag | features.Feature | Opcode, call: str = "", error: int = 0
) -> Capability:
    """The row of what is missing: the kernel has answered ``error`` to ``call``; or, without these, it does
    not list it."""
    release = os.uname().release
    if call and error != errno.EINVAL:
        reason = f"{call} is refused ({_code(error)})"
        remedy = refusals.unavailable(error, call).remedy
    elif _version(release) < _version(what.since):
        reason, remedy = f"it takes Linux {what.since}, this is {release}", f"Use Linux {what.since} or newer"
    else:
        said = f"refuses it ({_code(error)})" if error else "does not list it"
        reason = f"this kernel ({release}) {said}, though Linux {what.since} has it"
        remedy = "Ask whoever built the kernel, or runs the sandbox, why it is left out"
    return Capability(what.name, "missing", what.since, what.gain, reason, remedy)


def _code(error: int) -> str:
    return f"{errno.errorcode.get(error, error)}, {os.strerror(error)}"


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release)[:2])


@functools.cache
def _loaded_liburing() -> str:
    """The path of the liburing that was loaded; empty if it is unknown."""
    path = ffi.new("char[]", 4096)
    return "" if lib.tu_liburing_loaded(path, 4096) < 0 else os.fsdecode(ffi.string(path))


def _version_in(path: str) -> str:
    found = re.search(r"\.so\.([\d.]+)$", PurePath(path).name)
    return found[1] if found else "unknown"
