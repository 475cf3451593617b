"""The interrupt, proved: every order of steps in which threads can signal, sleep, wake and close.

The C is that of native/ itself (`translating.py`), so that the model cannot fall behind it; `surroundings.c`
has the rest. Each planted fault is a change of that C, and has to be found.
"""

from __future__ import annotations

import gc
import inspect
import re
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from exploring import Found, explore
from interrupt import FD, HERE, SIGNALLED, SLEEPERS, USERS, all_is_closed, all_was_taken, model

from trio_uring.loop.closing import Closing
from trio_uring.loop.manager import UringManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CANCEL, FLUSH, WAKE_AND_REAP, CLOSE = 1, 2, 3, 4
GUEST = {"host": "host", "worker": "worker"}


@attrs.frozen
class Scenario:
    threads: dict[str, str]
    arguments: dict[str, Any] = attrs.field(factory=dict)

    def explored(self, change: Callable[[str], str] = str) -> Found:
        return explore(model(self.threads, change=change, **self.arguments))


closing = {"is_final": all_is_closed, "words": {SLEEPERS: 1}}
SCENARIOS = {
    "a run, two threads post": Scenario({"owner": "owner", "a": "post_once", "b": "post_once"}),
    "a run, one thread posts and one forces a tick": Scenario(
        {"owner": "owner", "a": "post_once", "b": "forcer"}
    ),
    "a run, one thread posts twice; C11": Scenario({"owner": "owner", "a": "poster"}, {"is_weak": True}),
    "a run, closed while two threads signal": Scenario(
        {"a": "forcer", "b": "forcer", "closer": "closer"}, closing
    ),
    "the same; C11": Scenario(
        {"a": "forcer", "b": "forcer", "closer": "closer"}, {**closing, "is_weak": True}
    ),
    "a guest run, the kernel completes; C11": Scenario(
        {**GUEST, "device": "device"}, {"guest": True, "is_weak": True}
    ),
    "a guest run, the kernel completes and a thread posts": Scenario(
        {**GUEST, "device": "device_once", "a": "post_once"}, {"guest": True}
    ),
    "a guest run, the host cancels": Scenario(
        {**GUEST, "device": "device"}, {"guest": True, "calls": [CANCEL]}
    ),
    "a guest run, the host flushes; C11": Scenario(
        {**GUEST, "device": "device_once"}, {"guest": True, "calls": [FLUSH], "is_weak": True}
    ),
    "a guest run, the host wakes a task and reaps": Scenario(
        {**GUEST, "a": "post_once"}, {"guest": True, "calls": [WAKE_AND_REAP]}
    ),
    "a guest run, closed while the worker thread waits": Scenario(
        {**GUEST, "a": "forcer"}, {"guest": True, "calls": [CLOSE], "is_final": all_is_closed}
    ),
}


@pytest.fixture(autouse=True)
def without_collections() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def said(found: Found) -> str:
    return "\n".join([found.fault, *found.steps])


@pytest.mark.parametrize("name", SCENARIOS)
def test_nobody_sleeps_on_uses_what_is_closed_or_goes_round_in_a_circle(name: str) -> None:
    found = SCENARIOS[name].explored()
    print(f"{name}: {found.states:,} states")
    assert not found.fault, said(found)
    assert found.states > 100


def test_a_forked_child_signals_nobody_and_closes_whatever_the_parents_threads_did() -> None:
    """Forked at any moment; of the parent's threads it has none."""
    words: set[tuple[int, ...]] = set()

    def note(values: dict[str, Any]) -> None:
        words.add(tuple(values[path] for path in (SIGNALLED, SLEEPERS, USERS, FD)))

    parent = SCENARIOS["a run, closed while two threads signal"]
    explore(model(parent.threads, **parent.arguments), visit=note)
    assert len(words) >= 10
    for values in words:
        found = explore(forked(values))
        assert not found.fault, said(found)


def forked(values: tuple[int, ...], change: Callable[[str], str] = str) -> Any:
    words = {**dict(zip((SIGNALLED, SLEEPERS, USERS, FD), values, strict=True)), "core.ring.open": 0}
    return model({"child": "child", "thread": "child_thread"}, all_was_taken, words=words, change=change)


def replaced(old: str, new: str) -> Callable[[str], str]:
    """Has C changed, in which "&@" stands for "&interrupt->"."""

    def change(text: str) -> str:
        return text.replace(old.replace("&@", "&interrupt->"), new.replace("&@", "&interrupt->"))

    return change


def relaxed(old: str, order: str) -> Callable[[str], str]:
    """The same access by a weaker order."""
    name, rest = old.split("(", 1)
    return replaced(old, f"{name}_explicit({rest.removesuffix(')')}, memory_order_{order})")


FAULTS = {
    "looks before it says that it sleeps": (
        "a run, two threads post",
        replaced(
            "\tatomic_fetch_add(&@sleepers, 1);\n\tif (!atomic_load(&@signalled))\n\t\treturn 0;\n",
            "\tif (!atomic_load(&@signalled)) {\n\t\tatomic_fetch_add(&@sleepers, 1);\n"
            "\t\treturn 0;\n\t}\n\tatomic_fetch_add(&@sleepers, 1);\n",
        ),
    ),
    "does not look again": (
        "a run, two threads post",
        replaced("\tif (!atomic_load(&@signalled))\n\t\treturn 0;\n\ttu", "\treturn 0;\n\ttu"),
    ),
    "looks for a sleeper before it says what for": (
        "a run, two threads post",
        replaced(
            "!atomic_fetch_or(&@signalled, reason) && atomic_load(&@sleepers)",
            "atomic_load(&@sleepers) && !atomic_fetch_or(&@signalled, reason)",
        ),
    ),
    "clears what it has not read": (
        "a run, one thread posts and one forces a tick",
        replaced(
            "\treturn atomic_exchange(&@signalled, 0);",
            "\tuint32_t old = atomic_load(&@signalled);\n\tatomic_store(&@signalled, 0);\n\treturn old;",
        ),
    ),
    "says that it sleeps by a release": (
        "a run, one thread posts twice; C11",
        relaxed("atomic_fetch_add(&@sleepers, 1)", "release"),
    ),
    "looks for a reason by an acquire": (
        "a run, one thread posts twice; C11",
        replaced(
            "\tif (!atomic_load(&@signalled))\n\t\treturn 0;\n\ttu",
            "\tif (!atomic_load_explicit(&@signalled, memory_order_acquire))\n\t\treturn 0;\n\ttu",
        ),
    ),
    "looks for a sleeper by an acquire": (
        "a run, one thread posts twice; C11",
        relaxed("atomic_load(&@sleepers)", "acquire"),
    ),
    "closes without waiting for users": (
        "a run, closed while two threads signal",
        replaced("\twhile (atomic_load(&@users))\n\t\tsched_yield();\n", ""),
    ),
    "reads the number before it is counted": (
        "a run, closed while two threads signal",
        replaced(
            "\tatomic_fetch_add(&@users, 1);\n\tfd = atomic_load(&@fd);",
            "\tfd = atomic_load(&@fd);\n\tatomic_fetch_add(&@users, 1);",
        ),
    ),
    "closes what it leaves for others to find": (
        "a run, closed while two threads signal",
        replaced("atomic_exchange(&@fd, -1)", "atomic_load(&@fd)"),
    ),
    "is counted by a release": ("the same; C11", relaxed("atomic_fetch_add(&@users, 1)", "release")),
    "looks for users by an acquire": ("the same; C11", relaxed("atomic_load(&@users)", "acquire")),
    "sleeps without notifications": (
        "a guest run, the kernel completes; C11",
        replaced("\ttu_ring_set_notifications(&core->ring, true);\n", ""),
    ),
    "sleeps without a look at the ring": (
        "a guest run, the kernel completes; C11",
        replaced("if (!tu_ring_flags(&core->ring) && !tu_ring_has_arrivals(&core->ring))", "if (1)"),
    ),
    "may read flags that are old": (
        "a guest run, the kernel completes; C11",
        replaced(
            "__atomic_load_n(ring->uring.sq.kflags, __ATOMIC_SEQ_CST)",
            "__atomic_load_n(ring->uring.sq.kflags, __ATOMIC_RELAXED)",
        ),
    ),
    "leaves the eventfd as it was": (
        "a guest run, the kernel completes; C11",
        replaced("\tif (watched[0].revents)\n\t\ttu_interrupt_drain(&core->interrupt);\n", ""),
    ),
    "leaves a flag that the kernel has set late": (
        "a guest run, the host cancels",
        replaced("taken = timeout_ns < 0 && take_taskrun(ring)", "taken = false"),
    ),
    "queues a cancel, and tells nobody": (
        "a guest run, the host cancels",
        replaced("\tend_wait_elsewhere(core);\n\treturn tu_operations_with", "\treturn tu_operations_with"),
    ),
    "flushes, and tells nobody": (
        "a guest run, the host flushes; C11",
        replaced("\tend_wait_elsewhere(core);\n\treturn tu_ring_flush", "\treturn tu_ring_flush"),
    ),
    "takes what asks for a tick": (
        "a guest run, the host wakes a task and reaps",
        replaced("\tif (events & TU_FORCED)\n\t\ttu_signal_forced(core);\n", ""),
    ),
    "has room for one sleeper": (
        "a guest run, closed while the worker thread waits",
        lambda text: replaced("atomic_fetch_sub(&@sleepers, 1)", "atomic_store(&@sleepers, 0)")(
            replaced("atomic_fetch_add(&@sleepers,", "atomic_store(&@sleepers,")(text)
        ),
    ),
    "closes under the worker thread": (
        "a guest run, closed while the worker thread waits",
        replaced("\tif (!manager.guest_waiting)\n\t\ttu_close", "\ttu_close"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    scenario, change = FAULTS[name]
    found = SCENARIOS[scenario].explored(change)
    print(f"{name}: {found.fault}, in {len(found.steps)} steps")
    assert found.fault


def test_a_child_that_counts_the_parents_threads_is_found() -> None:
    change = replaced("\tatomic_store(&@users, 0);\n", "")
    assert "circle" in explore(forked((0, 0, 1, 0), change)).fault


# What surroundings.c has of the Python, by the words that matter, in their order

WORDS = (
    (r"self\._guest_lock", "acquire(GUEST)"),
    (r"self\.closed", "manager.closed"),
    (r"self\._guest_waiting = True", "manager.guest_waiting = 1"),
    (r"self\._guest_waiting = False", "manager.guest_waiting = 0"),
    (r"not self\._guest_waiting", "!manager.guest_waiting"),
    (r"self\._guest_waiting", "manager.guest_waiting"),
    (r"_guest_wait\(", "tu_guest_wait("),
    (r"_release\(", "tu_release("),
    (r"_close_interrupt\(", "tu_close_interrupt("),
    (r"_signal_forced\(", "tu_signal_forced("),
    (r"_signal_posted\(", "tu_signal_posted("),
    (r"_reap\(", "tu_reap("),
    (r"signalled\[0\] & _POSTED", "signalled, memory_order_relaxed) & TU_POSTED"),
    (r"& _FORCED", "& TU_FORCED"),
)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (UringManager.signaller, "signal"),
        (UringManager._get_events_elsewhere, "get_events_elsewhere"),
        (UringManager.close_interrupt, "close_interrupt"),
        (Closing.reap, "reap"),
        (Closing._give_back, "give_back"),
    ],
)
def test_the_model_does_what_the_python_does(function: Callable[..., object], name: str) -> None:
    python = re.sub(r'(?s:""".*?""")|#.*', "", inspect.getsource(function))
    text = (HERE / "surroundings.c").read_text()
    written = text[text.index(f" {name}(void)\n") :]
    written = written[: written.index("\n}\n")]
    patterns = "|".join(f"({pattern})" for pattern, _ in WORDS)
    meant = [WORDS[match.lastindex - 1][1] for match in re.finditer(patterns, python) if match.lastindex]
    found = re.findall("|".join(re.escape(word) for _, word in WORDS), written)
    assert meant
    assert found == meant
