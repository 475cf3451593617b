"""The runtimes that are compared: how a program starts on one, and which one it is on.

Only what a runtime needs is imported: the memory of its process is measured.

A measured program is told its runtime by key and starts on it with `run_trio` or
`run_asyncio`. Which backend it got is asked of the running loop, by `trio_backend` or
`asyncio_backend`, and looked at from outside, by `seen`: what a process has open in
/proc cannot be claimed. Whether streams were received by multishot is counted by the run,
and read when a server has been under load. Where one of these is not what RUNTIMES
expects, the benchmark fails.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    import asyncio


class WrongBackendError(Exception):
    """A program runs on another backend than its label says: nothing that it measured counts."""


@attrs.frozen
class Runtime:
    label: str
    family: str
    """A key of report.style.COLOURS."""
    backend: str
    """What the running loop answers."""
    opens: str
    """The kind of descriptor that it cannot work without."""
    never_opens: frozenset[str]
    multishot: bool = False
    """Whether a connection that receives more than once does so by multishot."""


def _trio_uring(variant: str, backend: str, *, multishot: bool) -> Runtime:
    label = f"Trio, trio-uring{variant}"
    return Runtime(label, "trio-uring", backend, "io_uring", frozenset({"eventpoll"}), multishot)


RUNTIMES = {
    "trio-epoll": Runtime("Trio, epoll", "trio-epoll", "epoll", "eventpoll", frozenset({"io_uring"})),
    "trio-uring": _trio_uring("", "io_uring, completions", multishot=True),
    "trio-uring-budget": _trio_uring(", budget 16", "io_uring, completions, budget 16", multishot=True),
    "trio-uring-accelerate": _trio_uring(
        ", accelerate", "io_uring, completions, accelerated", multishot=True
    ),
    "trio-uring-accelerate-budget": _trio_uring(
        ", accelerate, budget 16", "io_uring, completions, accelerated, budget 16", multishot=True
    ),
    "trio-uring-readiness": _trio_uring(", readiness only", "io_uring, readiness only", multishot=False),
    "trio-uring-trios-tls": _trio_uring(", Trio's TLS", "io_uring, completions, Trio's TLS", multishot=True),
    "asyncio": Runtime("asyncio", "asyncio", "asyncio, EpollSelector", "eventpoll", frozenset({"io_uring"})),
    # libuv keeps a ring beside its epoll, for files.
    "uvloop": Runtime("uvloop", "uvloop", "uvloop.Loop", "eventpoll", frozenset()),
    "rloop": Runtime("rloop", "rloop", "rloop.loop.RLoop", "eventpoll", frozenset({"io_uring"})),
    "aiofastnet": Runtime(
        "aiofastnet, asyncio",
        "asyncio",
        "asyncio, EpollSelector, aiofastnet",
        "eventpoll",
        frozenset({"io_uring"}),
    ),
    # Without io_uring it would be on epoll.
    "blazio": Runtime("blazio", "blazio", "blazio._loop.EventLoop", "io_uring", frozenset({"eventpoll"})),
}
ACCELERATED = ("trio-uring-accelerate", "trio-uring-accelerate-budget")
TRIO_URING = (
    "trio-uring",
    "trio-uring-budget",
    *ACCELERATED,
    "trio-uring-readiness",
    "trio-uring-trios-tls",
)
TRIO = ("trio-epoll", *TRIO_URING)
ASYNCIO = ("asyncio", "uvloop", "rloop")
"""Those that are measured wherever asyncio is."""
ON_ASYNCIO = (*ASYNCIO, "aiofastnet", "blazio")


def run_trio(runtime: str, main: Callable[[], Awaitable[None]]) -> None:
    import trio

    if runtime in TRIO_URING:
        from trio_uring import RingOptions, install

        options = {
            "trio-uring": RingOptions(),
            "trio-uring-budget": RingOptions(checkpoint_budget=16),
            "trio-uring-accelerate": RingOptions(accelerate=True),
            "trio-uring-accelerate-budget": RingOptions(accelerate=True, checkpoint_budget=16),
            "trio-uring-readiness": RingOptions(features={"completions": False}),
            "trio-uring-trios-tls": RingOptions(features={"tls": False}),
        }
        install(options[runtime])
    trio.run(main)


def run_asyncio(runtime: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    import asyncio

    loop = _new_loop(runtime)
    asyncio.set_event_loop(loop)
    loop.run_until_complete(main())


def _new_loop(runtime: str) -> asyncio.AbstractEventLoop:
    import asyncio

    loop: asyncio.AbstractEventLoop
    if runtime == "uvloop":
        import uvloop

        loop = uvloop.new_event_loop()
    elif runtime == "rloop":
        import rloop

        loop = rloop.new_event_loop()
    elif runtime == "blazio":
        import blazio

        loop = blazio.new_event_loop()
    else:
        loop = asyncio.SelectorEventLoop()
    if runtime == "aiofastnet":
        import aiofastnet

        aiofastnet.patch_loop(loop)
    return loop


def trio_backend() -> str:
    """To be called in the running loop, as `asyncio_backend`."""
    import trio

    statistics: Any = trio.lowlevel.current_statistics().io_statistics
    backend: str = statistics.backend
    if backend != "io_uring":
        return backend
    from trio_uring.loop.current import current_run

    run = current_run()
    assert run is not None
    how = "completions" if "completions" in statistics.flags else "readiness only"
    if how == "completions" and "tls" not in statistics.flags:
        how += ", Trio's TLS"
    if statistics.accelerated:
        how += ", accelerated"
    budget = run.budget
    return f"{backend}, {how}, budget {budget}" if budget else f"{backend}, {how}"


def trio_multishots() -> int:
    """Multishot receives of the run that have ended, as they do with their connections."""
    import trio

    return getattr(trio.lowlevel.current_statistics().io_statistics, "multishot_terminations", 0)


def asyncio_backend() -> str:
    import asyncio

    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.SelectorEventLoop):
        # One that aiofastnet works for has the functions in which its own are called with the loop.
        creator = getattr(vars(loop).get("create_server"), "func", None)
        patched = ", aiofastnet" if getattr(creator, "__module__", "").startswith("aiofastnet.") else ""
        return f"asyncio, {type(vars(loop)['_selector']).__name__}{patched}"
    return f"{type(loop).__module__}.{type(loop).__qualname__}"


def seen(runtime: str, backend: str, pid: int) -> str:
    """What ``pid`` runs on, in words for the report.

    Raises WrongBackendError if its loop answered another ``backend`` than ``runtime``
    has, or if it has not open what that backend works with, or has open what it never
    would.
    """
    expected = RUNTIMES[runtime]
    opened = polled_with(pid)
    text = (
        f"its loop says {backend!r}; it has open: {', '.join(sorted(opened)) or 'neither epoll nor io_uring'}"
    )
    if backend != expected.backend or expected.opens not in opened or opened & expected.never_opens:
        raise WrongBackendError(f"this was to be {expected.label}, but {text}")
    return text


def polled_with(pid: int) -> set[str]:
    """Of "eventpoll" and "io_uring", what the process has open."""
    kinds = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except FileNotFoundError:
            continue
        for kind in ("eventpoll", "io_uring"):
            if target == f"anon_inode:[{kind}]":
                kinds.add(kind)
    return kinds
