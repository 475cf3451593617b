"""The model of the interrupt: the C of native/, its surroundings, and the threads of each scenario.

What is asked of every state is in `explore`. Of an end, in which no thread can go on: nobody sleeps who was
signalled; every job was taken, every submission submitted, every completion reaped; who was closed is
closed. The waits of the model have no end by time, which would hide a lost wake-up.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from exploring import BLOCKED, Model, World, WrongStepError
from translating import Translator, functions_of, source

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

HERE = Path(__file__).parent
NATIVE = HERE.parent.parent / "native"
FILES = ("interrupt.c", "ring.h", "ring.c", "core.h", "core.c", "tick.c")
SIGNALLED = "core.interrupt.signalled"
SLEEPERS = "core.interrupt.sleepers"
USERS = "core.interrupt.users"
FD = "core.interrupt.fd"
TAIL = "core.ring.tail"
SUBMISSION_FLAGS = "core.ring.uring.sq.kflags"
COMPLETION_FLAGS = "core.ring.uring.cq.kflags"


# The kernel and Python, as primitives: each is one step


def check_open(world: World, fd: int) -> None:
    if fd in world["kernel.closed"]:
        raise WrongStepError("a descriptor is used that was closed, and may be another file's")


def add(world: World, fd: int, more: int) -> None:
    counters = list(world["kernel.counters"])
    counters[fd] = min(counters[fd] + more, 2) if more else 0
    world["kernel.counters"] = tuple(counters)
    world.synchronize()


def eventfd(world: World, *_: int) -> int:
    world["kernel.counters"] = (*world["kernel.counters"], 0)
    return len(world["kernel.counters"]) - 1


def write(world: World, fd: int, _: int) -> int:
    check_open(world, fd)
    add(world, fd, 1)
    if world["kernel.armed"]:
        world["kernel.written"] = 1
    return 8


def read(world: World, fd: int, _: int) -> int:
    check_open(world, fd)
    add(world, fd, 0)
    return 8


def close(world: World, fd: int) -> int:
    check_open(world, fd)
    world["kernel.closed"] = world["kernel.closed"] | {fd}
    return 0


def notify(world: World) -> int:
    """The kernel writes to the eventfd that was registered, which it knows as a file."""
    add(world, 0, 1)
    return 0


def ppoll(world: World, fd: int) -> Any:
    check_open(world, fd)
    if not world["kernel.counters"][fd]:
        return BLOCKED
    world.synchronize()
    return 1


def arm(world: World) -> int:
    if not world["kernel.armed"]:
        world["kernel.armed"] = 1
        world["kernel.written"] = int(world["kernel.counters"][0] > 0)
    return 0


def wait_for_write(world: World) -> Any:
    if not world["kernel.written"]:
        return BLOCKED
    world["kernel.written"] = 0
    world.synchronize()
    return 0


def push_work(world: World) -> int:
    """Whether there was work already."""
    was, world["kernel.work"] = world["kernel.work"], 1
    world.synchronize()
    return int(was)


def has_work(world: World) -> int:
    return int(world["kernel.work"])


def take_work(world: World) -> int:
    world["kernel.work"] = 0
    world.synchronize()
    return 0


def acquire(world: World, lock: int) -> Any:
    if lock in world["locked"]:
        return BLOCKED
    world["locked"] = world["locked"] | {lock}
    world.synchronize()
    return 0


def release(world: World, lock: int) -> int:
    world["locked"] = world["locked"] - {lock}
    world.synchronize()
    return 0


def next_call(world: World) -> Any:
    """What the host calls next: one of its own callbacks, or 0, the tick."""
    if world["host.calls"]:
        call, *rest = world["host.calls"]
        world["host.calls"] = tuple(rest)
        return call
    if world["python.worker"] != 3:
        return BLOCKED
    world["python.worker"] = 0
    world.synchronize()
    return 0


def wait_for_tick(world: World) -> Any:
    if world["python.worker"] != 1:
        return BLOCKED
    world["python.worker"] = 2
    world.synchronize()
    return 0


def wait_for_fork(world: World) -> Any:
    return 0 if world["core.forked"] else BLOCKED


def nothing(_: World, *__: object) -> int:
    return 0


def true(_: World, *__: object) -> int:
    return 1


PRIMITIVES: dict[str, Callable[..., Any]] = {
    **{
        function.__name__: function
        for function in (
            eventfd, write, read, close, notify, ppoll, arm, wait_for_write, push_work, has_work, take_work,
            acquire, release, next_call, wait_for_tick, wait_for_fork,
        )
    },
    "sched_yield": nothing,
    "tu_identify": nothing,
    "tu_identity_is": true,
}  # fmt: skip


BLOCKING = ("ppoll", "wait_for_write", "acquire", "next_call", "wait_for_tick", "wait_for_fork")
GROUPS = {
    **dict.fromkeys(
        ("eventfd", "write", "read", "close", "notify", "ppoll", "arm", "wait_for_write"), "eventfd"
    ),
    **dict.fromkeys(("push_work", "has_work", "take_work"), "work"),
    **dict.fromkeys(("acquire", "release"), "locks"),
    **dict.fromkeys(("next_call", "wait_for_tick"), "ticks"),
}


# What must be so when nobody can go on


def all_was_taken(values: dict[str, Any], ended: dict[str, bool]) -> str:
    if not values["core.ring.open"] and not values["core.forked"]:
        return ""
    faults = {
        "somebody sleeps who was signalled": values[SIGNALLED],
        "a job is left, and nobody wakes the loop for it": values["python.jobs"],
        "a task can run, and nobody makes a tick": values["python.runnable"],
        "something was queued, and nobody submits it": values["core.ring.submissions"],
        "something has completed, and nobody reaps it": values["kernel.work"]
        or values.get(TAIL, 0) != values["core.ring.head"],
    }
    return next((fault for fault, is_so in faults.items() if is_so), "")


def all_is_closed(values: dict[str, Any], ended: dict[str, bool]) -> str:
    if not all(over for name, over in ended.items() if name != "worker"):
        return "somebody waits for ever while the interrupt is closed"
    if values["kernel.closed"] != frozenset([0]):
        return "the eventfd is left open"
    if values.get("python.worker") == 2:
        return "the worker thread sleeps, and nobody wakes it"
    return ""


def model(
    threads: dict[str, str],
    is_final: Callable[[dict[str, Any], dict[str, bool]], str] = all_was_taken,
    *,
    change: Callable[[str], str] = str,
    calls: Collection[int] = (),
    guest: bool = False,
    is_weak: bool = False,
    words: dict[str, int] | None = None,
) -> Model:
    """A model with these threads, by the functions that they run. ``change`` is made to the C first."""
    surroundings = source(HERE / "surroundings.c")
    functions, constants = functions_of(
        surroundings, *(change(source(NATIVE / name)) for name in FILES), change(surroundings)
    )
    plain: dict[str, int] = {}
    values = {
        "kernel.counters": (0,), "kernel.closed": frozenset(), "kernel.armed": 0, "kernel.written": 0,
        "kernel.work": 0, "locked": frozenset(), "host.calls": tuple(calls), "core.started": 1,
        "core.ring.open": 1, "core.ring.enabled": 1, "core.guest": int(guest), "core.forked": 0,
        "core.ring.submissions": 0, "core.ring.head": 0, "python.worker": 0, "python.runnable": 0,
        "python.jobs": 0, COMPLETION_FLAGS: int(guest), **(words or {}),
    }  # fmt: skip
    for name in values:
        plain.setdefault(name, len(plain))
    programs = {
        name: Translator(functions, constants, PRIMITIVES, plain).program(entry)
        for name, entry in threads.items()
    }
    return Model(programs, plain, values, PRIMITIVES, GROUPS, BLOCKING, is_weak, is_final)
