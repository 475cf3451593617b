"""The options of a run: `RingOptions`. session/settings.py says where else they can be set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from types import MappingProxyType
from typing import Any, Literal

import attrs

from .features import REQUIRED, SWITCHES

Fallback = Literal["error", "epoll"]

# The kernel's limits: IORING_MAX_ENTRIES and IORING_MAX_CQ_ENTRIES.
_MAX_ENTRIES = 32768
_MAX_CQ_ENTRIES = 2 * _MAX_ENTRIES
_MAX_BUFFERS = 32768  # of one group of provided buffers


def _check_number(name: str, value: object, low: int, high: int | None, unit: str) -> None:
    limits = f"an int of at least {low}" if high is None else f"an int from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"RingOptions: {name} has to be {limits} ({unit}), not {value!r}")
    if value < low or (high is not None and value > high):
        raise ValueError(f"RingOptions: {name} has to be {limits} ({unit}), not {value!r}")


def _check_entries(value: int) -> int:
    """Checks ``entries`` before anything else, since the default of cq_entries depends on it."""
    _check_number("entries", value, 1, _MAX_ENTRIES, "submissions")
    return value


def _check_features(features: object) -> Mapping[str, bool]:
    if not isinstance(features, Mapping):
        raise TypeError(f"RingOptions: features has to be a mapping of names to False, not {features!r}")
    for name, value in features.items():
        if name in REQUIRED:
            raise ValueError(f"RingOptions: features: {name!r} cannot be switched off, every ring needs it")
        if name not in SWITCHES:
            raise ValueError(f"RingOptions: features has no {name!r}; it may name {', '.join(SWITCHES)}")
        if value is not False:
            raise ValueError(
                f"RingOptions: features[{name!r}] may only be False (switched off), not {value!r}: "
                "what the kernel has is used anyway"
            )
    return MappingProxyType(dict(features))


@attrs.frozen(kw_only=True, slots=False)
class RingOptions:
    """How the ring of a run is set up. Checked when made.

    Each option that is not given here may be given by the command line of
    ``python -m trio_uring``, and the environment overrides all of them.

    Attributes:
      entries: Submissions that are queued before the kernel is entered. The kernel rounds up to a power of
        two. If more come together in one tick, each ``entries`` of them take a system call of their own; that
        is all.

        *Unit*: submissions, 1 to 32768. *Default*: 64; a server of 500 connections is no faster with more.
        *Cost*: 64 bytes each, in whole pages. With the default of ``cq_entries`` the ring takes two pages,
        8 KiB: eight such rings fit into 64 KiB of locked memory. Where the kernel grants less, a larger ring
        is halved until it fits, but not below 64 submissions and 128 completions.
      cq_entries: Completions that the ring holds. What does not fit waits in the kernel.

        *Unit*: completions, from ``entries`` to 65536. *Default*: 128, or ``entries`` if that is more.
        *Cost*: 16 bytes each, in whole pages.
      fallback: What happens where io_uring cannot be used: ``"error"`` raises `UringUnavailableError`;
        ``"epoll"`` warns with `UringFallbackWarning` and uses Trio's own manager.

        *Unit*: ``"error"`` or ``"epoll"``. *Default*: ``"error"``. *Cost*: with ``"epoll"``, a run may be
        slower than you think; its warning and the log say so.
      checkpoint_budget: How many calls in a row a task may make before it yields, if each completes at once.
        On stream sockets these are receives of what was read ahead, is decrypted, or is there at the first
        receive; accepts of who waits already; closes; and sends that find room, while few tasks run (where
        many run, one system call for all their sends costs less). On datagram sockets, pipes and terminals
        they are calls that need not wait. On files they are reads and lines that come from the page cache or
        the file's buffer, writes that the buffer takes, and moving the position. Each still raises
        `trio.Cancelled` if its scope is cancelled; that a deadline has expired is noticed only when the task
        yields.

        *Unit*: calls, 0 or more. *Default*: 0, Trio's rule that every call yields.
        *Cost*: a task goes on while others wait, so it may take less than its budget: where these calls have
        taken a third of a tick, which is one step of every task that is ready, each yields, as without
        a budget. docs/benchmarks.md tells under "Fairness" how late a light task runs then.
      buffers: Buffers that all stream sockets of the run receive into: a connection has one only while data
        comes. When all are in use, what came is handed out first.

        *Unit*: buffers, a power of two from 2 to 32768. *Default*: 64, which is enough for thousands of
        connections. *Cost*: ``buffer_size`` bytes each once data has filled it, and 16 bytes of locked
        memory each, in whole pages, from the first stream socket on.
      buffer_size: What one receive brings at most. Where even the addresses for all buffers are refused, the
        first call on a stream socket raises OSError (ENOMEM), and so does every later one. Where it is the
        locked memory that announces them, stream sockets of the run wait by readiness, after a
        `UringFallbackWarning`.

        *Unit*: bytes of one buffer, 1024 to 1048576. *Default*: 65536. *Cost*: memory is taken when data
        first fills it; the run's limit is ``buffers * buffer_size``, 4 MiB by default.
      read_ahead: What is received from one connection before a task asks for it. When it has so much, its
        receiving pauses, until it is taken.

        *Unit*: bytes, 1 or more; each piece that came counts 64 more. *Default*: 131072. *Cost*: that much
        memory for each connection whose task is slower than its peer, and one buffer more. Before Linux 6.17
        it may be as many buffers more as one tick brings: up to 32 for each connection.
      accept_ahead: Connections that each listening socket accepts before a task asks for them:
        from the first accept on, the kernel accepts whoever comes (a multishot accept, Linux
        5.19), until so many wait to be taken; whoever else has connected by the tick that learns
        of it, the backlog at most, comes on top. They are given to accepts in the order in which they came,
        and reset when the listening socket is closed, collected, or left by its run's end. Where sockets do
        not work by completions, a run that asks for more than 0 is refused with `UringUnavailableError`.

        *Unit*: connections, 0 or more. *Default*: 0, one accept for each call, which takes
        nothing that nobody asked for. *Cost*: saves a submission per connection and
        gives up back-pressure: a client that would wait in the backlog, or be turned away when
        that is full, sees an accepted connection that nobody serves yet. Each takes a descriptor.
      files: Whether `trio.open_file`, `trio.wrap_file` and the methods of `trio.Path` are those of
        `open_file`, `wrap_file` and `Path` in the run, so that a program that does not know
        trio-uring needs no threads for files either.

        *Unit*: True or False. *Default*: False. *Cost*: what a write has taken
        may be behind it: who looks at the file in another way sees it after ``flush``.
      accelerate: Whether C makes the steps of the run's tasks in the place of Trio's loop, and cancel scopes
        take fewer calls. docs/accelerate.md says what is replaced, and how that was checked. Where it cannot
        be, since this Trio is not among those that are known, or in a guest run, Trio's own code does it: the
        log, the doctor and `UringStatistics.accelerated` say so.

        *Unit*: True or False. *Default*: False: nobody gets another scheduler unasked. *Cost*: calls of the
        tasks' coroutines are not seen by `sys.setprofile`, which sees what the coroutines call.
      features: Features that are not used: their names, as ``python -m trio_uring doctor`` prints them,
        each mapped to False. For tests, and to work around a kernel.

        *Unit*: a mapping of names to False. *Default*: none, so that all that the kernel has is used.
        *Cost*: what the doctor says that the feature is good for.

    Raises:
      TypeError, ValueError: an option has the wrong type or value; the message
        names the option, its value and what is allowed.
    """

    entries: int = attrs.field(default=64, converter=_check_entries)
    cq_entries: int = attrs.field(default=attrs.Factory(lambda self: max(128, self.entries), takes_self=True))
    fallback: Fallback = "error"
    checkpoint_budget: int = 0
    buffers: int = 64
    buffer_size: int = 65536
    read_ahead: int = 131072
    accept_ahead: int = 0
    files: bool = False
    accelerate: bool = False
    features: Mapping[str, bool] = attrs.field(factory=dict, converter=_check_features)

    def __attrs_post_init__(self) -> None:
        _check_number("cq_entries", self.cq_entries, 1, _MAX_CQ_ENTRIES, "completions")
        if self.cq_entries < self.entries:
            raise ValueError(
                f"RingOptions: cq_entries has to be at least entries ({self.entries}), not {self.cq_entries}"
            )
        if self.fallback not in ("error", "epoll"):
            raise ValueError(f"RingOptions: fallback has to be 'error' or 'epoll', not {self.fallback!r}")
        _check_number("checkpoint_budget", self.checkpoint_budget, 0, None, "calls")
        _check_number("buffers", self.buffers, 2, _MAX_BUFFERS, "buffers, a power of two")
        if self.buffers & (self.buffers - 1):
            raise ValueError(f"RingOptions: buffers has to be a power of two, not {self.buffers!r}")
        _check_number("buffer_size", self.buffer_size, 1024, 1 << 20, "bytes")
        _check_number("read_ahead", self.read_ahead, 1, None, "bytes")
        _check_number("accept_ahead", self.accept_ahead, 0, None, "connections")
        for name in ("files", "accelerate"):
            if not isinstance(value := getattr(self, name), bool):
                raise TypeError(f"RingOptions: {name} has to be True or False, not {value!r}")

    def __hash__(self) -> int:
        values = attrs.astuple(self, recurse=False, filter=lambda field, _: field.name != "features")
        return hash((values, frozenset(self.features)))

    def __reduce__(self) -> tuple[Callable[[], RingOptions], tuple[()]]:
        """Makes `copy` and `pickle` work, of which the latter takes no MappingProxyType."""
        values = given(self)
        if "features" in values:
            values["features"] = dict(self.features)
        return partial(RingOptions, **values), ()


def given(options: RingOptions) -> dict[str, Any]:
    """The options that were given when ``options`` was made, and not left to their defaults."""
    return {name: getattr(options, name) for name in vars(options)[_GIVEN]}


_GIVEN = "_given"


def _remember_given(init: Callable[..., None]) -> Callable[..., None]:
    """Wraps ``__init__``, so that `given` knows its arguments."""

    @wraps(init)
    def remembering(self: RingOptions, *args: object, **options: object) -> None:
        init(self, *args, **options)
        vars(self)[_GIVEN] = tuple(options)

    return remembering


RingOptions.__init__ = _remember_given(RingOptions.__init__)  # type: ignore[method-assign]
