"""Finds every state that threads can reach, and what is wrong with them.

A state is where each thread is, the values of its locals, and memory. In each state any thread may make
its next step that others see; breadth first, so that what is found wrong is told by the fewest steps.

Memory is that of C11, seen as a history: each word has the values that were stored to it, in order, and
each thread has a view, the oldest value of each word that it may still read.

  a load             may read any value that is not older than the thread's view, which moves on to it
  acquire            the thread's view becomes what that of the storing thread was, if this is newer
  release            the value gets the thread's view
  seq_cst            loads read nothing older than what a seq_cst access has stored or read before
  exchange, fetch_*  always read the newest value

That is weaker than what x86 and ARM do, but in this: a load never reads what is stored later, and a store
never comes before another one that was made earlier. So relaxed stores are not shown at their worst; ours
has none. Of a word that all use as seq_cst only the newest value is kept, since nobody can read another.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Any

import attrs
from translating import Program, Step, texts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

BLOCKED = object()
"""What a primitive returns that cannot go on now."""

View = tuple[int, ...]
Message = tuple[int, View]
Thread = tuple[int, tuple[Any, ...], View]
State = tuple[tuple[Thread, ...], tuple[Any, ...], tuple[tuple[Message, ...], ...], View]

SEEN = ("do", "word", "end")
"""The kinds of steps that other threads see, and the end."""
ACQUIRES = ("acquire", "acq_rel", "seq_cst")
RELEASES = ("release", "acq_rel", "seq_cst")


class WrongStepError(Exception):
    """A step that must never be made."""


def newer(one: View, other: View) -> View:
    return tuple(map(max, one, other))


class Memory:
    """Memory as one step sees and changes it."""

    def __init__(self, words: dict[str, int], state: State, thread: int) -> None:
        self._words = words
        self._histories = list(state[2])
        self._global = list(state[3])
        self._view = list(state[0][thread][2])

    def parts(self) -> tuple[tuple[tuple[Message, ...], ...], View, View]:
        return tuple(self._histories), tuple(self._global), tuple(self._view)

    def readable(self, path: str, order: str) -> range:
        word = self._words[path]
        oldest = max(self._view[word], self._global[word]) if order == "seq_cst" else self._view[word]
        return range(oldest, len(self._histories[word]))

    def load(self, path: str, order: str, at: int) -> int:
        word = self._words[path]
        value, view = self._histories[word][at]
        self._view[word] = max(self._view[word], at)
        if order in ACQUIRES:
            self._view = list(newer(tuple(self._view), view))
        if order == "seq_cst":
            self._global[word] = max(self._global[word], at)
        return value

    def store(self, path: str, value: int, order: str, before: View | None = None) -> None:
        word = self._words[path]
        at = self._view[word] = len(self._histories[word])
        view = (
            tuple(self._view)
            if order in RELEASES
            else tuple(at if i == word else 0 for i in range(len(self._view)))
        )
        if before is not None:
            view = newer(view, before)
        self._histories[word] = (*self._histories[word], (value, view))
        if order == "seq_cst":
            self._global[word] = at

    def change(self, path: str, function: Callable[[int], int], order: str = "seq_cst") -> int:
        """An exchange: returns the old value."""
        word = self._words[path]
        last = len(self._histories[word]) - 1
        before = self._histories[word][last][1]
        old = self.load(path, order, last)
        self.store(path, function(old), order, before)
        return old

    def synchronize(self) -> None:
        word = self._words["kernel"]
        view = newer(tuple(self._view), self._histories[word][0][1])
        self._view = list(view)
        self._histories[word] = ((0, view),)


CHANGES: dict[str, Callable[[int, int], int]] = {
    "exchange": lambda _, value: value,
    "fetch_add": lambda old, value: old + value,
    "fetch_sub": lambda old, value: old - value,
    "fetch_or": lambda old, value: old | value,
    "or_fetch": lambda old, value: old | value,
    "and_fetch": lambda old, value: old & value,
}


def compiled(text: str) -> Callable[[Mapping[int, Any], Sequence[Any]], Any]:
    return eval(f"lambda L, P: {text}")  # type: ignore[no-any-return]


def changed(name: str, old: int, value: int = 0) -> tuple[int, int]:
    """What an atomic operation returns, and what is in the word then."""
    if name == "load":
        return old, old
    new = value if name == "store" else CHANGES[name](old, value)
    return (new if name.endswith("_fetch") else old), new


@attrs.define
class World:
    """What a primitive may look at and change."""

    names: dict[str, int]
    plain: list[Any]
    memory: Memory | None

    def __getitem__(self, name: str) -> Any:
        return self.plain[self.names[name]]

    def __setitem__(self, name: str, value: Any) -> None:
        self.plain[self.names[name]] = value

    def synchronize(self) -> None:
        """What the kernel's locks do: the thread sees what all who were here before have seen."""
        if self.memory is not None:
            self.memory.synchronize()


@attrs.define
class Found:
    """What `explore` has found."""

    states: int
    fault: str = ""
    steps: list[str] = attrs.field(factory=list)


@attrs.define(slots=False)
class Model:
    """Threads, by their names, and what they share: the plain fields, and the words with atomic access."""

    programs: dict[str, Program]
    plain: dict[str, int]
    values: dict[str, Any]
    primitives: dict[str, Callable[..., Any]]
    groups: dict[str, str]
    """What a primitive is about, if several are about the same."""
    blocking: Collection[str]
    is_weak: bool
    """Whether words are C11's memory, as the head of this file says; else all see each step at once."""
    is_final: Callable[[dict[str, Any], dict[str, bool]], str]
    """What is wrong with a state in which no thread can go on, by the values of fields and words, and by
    who is at the end of his program; "": nothing."""

    def __attrs_post_init__(self) -> None:
        self._order = list(self.programs)
        self._steps = [list(program.steps) for program in self.programs.values()]
        self._live = [program.live for program in self.programs.values()]
        self._keep_to_themselves()
        used = [(step[4], step[5]) for steps in self._steps for step in steps if len(step) == 6]
        self._loads = [
            {step[4] for step in steps if len(step) == 6 and step[2] == "load" and step[5] != "seq_cst"}
            for steps in self._steps
        ]
        self._words = {
            path: number for number, path in enumerate(sorted({"kernel", *(path for path, _ in used)}))
        }
        self._paths = list(self._words)
        self._weak = [any(order != "seq_cst" for path, order in used if path == word) for word in self._words]
        self._counted = self._only_counted()
        self._code = [
            [[compiled(text) for text in texts_of(step)] for step in steps] for steps in self._steps
        ]

    def _only_counted(self) -> set[int]:
        """The plain fields that are read only to count on: their values would make every state a new one."""
        read: set[int] = set()
        for steps in self._steps:
            for step in steps:
                found = {int(n) for text in texts_of(step) for n in re.findall(r"P\[(\d+)\]", text)}
                read |= found - {step[1]} if step[0] == "put" else found
                if step[0] in ("own", "word"):
                    read.add(step[4])
        return (
            set(range(len(self.plain)))
            - read
            - {self.plain[name] for name in self.values if name in self.plain}
        )

    def _keep_to_themselves(self) -> None:
        """Makes plain steps of those on words, and on groups of primitives, that only one thread uses."""
        users: dict[str, set[int]] = {}
        for number, steps in enumerate(self._steps):
            for step in steps:
                if step[0] == "do":
                    users.setdefault(self._subject(step), set()).add(number)
        for steps in self._steps:
            for at, step in enumerate(steps):
                if step[0] != "do" or step[2] in self.blocking:
                    continue
                is_shared = len(users[self._subject(step)]) > 1
                if len(step) < 6:
                    steps[at] = step if is_shared else ("ask", *step[1:])
                elif not is_shared or not self.is_weak:
                    field = self.plain.setdefault(step[4], len(self.plain))
                    steps[at] = ("word" if is_shared else "own", *step[1:4], field)

    def _subject(self, step: Step) -> str:
        return str(step[4]) if len(step) == 6 else self.groups.get(step[2], str(step[2]))

    def first(self) -> State:
        none = (0,) * len(self._words) if self.is_weak else ()
        plain = [self.values.get(name, 0) for name in self.plain]
        histories = tuple(((self.values.get(path, 0), none),) for path in self._words)
        threads = []
        for number in range(len(self._steps)):
            threads.append((*self._settle(number, 0, {}, plain), none))
        return tuple(threads), tuple(plain), histories, none

    def _settle(
        self, number: int, at: int, local: dict[int, Any], plain: list[Any]
    ) -> tuple[int, tuple[Any, ...]]:
        """Makes the steps that nobody sees, up to the next one that others do."""
        steps, codes = self._steps[number], self._code[number]
        while True:
            step = steps[at]
            kind, code = step[0], codes[at]
            if kind in SEEN:
                return at, tuple([local.get(i) for i in self._live[number][at]])
            at += 1
            if kind == "set":
                local[step[1]] = code[0](local, plain)
            elif kind == "put":
                if step[1] not in self._counted:
                    plain[step[1]] = code[0](local, plain)
            elif kind == "jump":
                at = step[1]
            elif kind == "unless":
                if not code[0](local, plain):
                    at = step[2]
            else:
                values = [one(local, plain) for one in code]
                if kind == "ask":
                    local[step[1]] = self.primitives[step[2]](World(self.plain, plain, None), *values)
                else:
                    local[step[1]], plain[step[4]] = changed(step[2], plain[step[4]], *values)

    def after(self, state: State) -> Iterator[tuple[tuple[Any, ...], State]]:
        """The states that follow, each with the step that leads there."""
        for number, (at, values, _) in enumerate(state[0]):
            step = self._steps[number][at]
            if step[0] == "end":
                continue
            if step[0] == "word":
                yield self._after_word(state, number, at)
                continue
            local = dict(zip(self._live[number][at], values, strict=True))
            arguments = [code(local, state[1]) for code in self._code[number][at]]
            is_load = step[2] == "load"
            choices: Iterable[int | None] = (
                Memory(self._words, state, number).readable(step[4], step[5]) if is_load else (None,)
            )
            for choice in choices:
                memory = Memory(self._words, state, number)
                here, plain = dict(local), list(state[1])
                result: Any
                if choice is not None:
                    result = memory.load(step[4], step[5], choice)
                elif len(step) == 6:
                    result = self._change(step, arguments, memory)
                else:
                    world = World(self.plain, plain, memory if self.is_weak else None)
                    result = self.primitives[step[2]](world, *arguments)
                if result is BLOCKED:
                    continue
                here[step[1]] = result
                settled = self._settle(number, at + 1, here, plain)
                if not self.is_weak:
                    threads = (*state[0][:number], (*settled, ()), *state[0][number + 1 :])
                    yield (number, at, arguments, result), (threads, tuple(plain), *state[2:])
                    continue
                histories, seen, view = memory.parts()
                threads = (*state[0][:number], (*settled, view), *state[0][number + 1 :])
                following = self._without_history((threads, tuple(plain), histories, seen))
                yield (number, at, arguments, result), following

    def _after_word(self, state: State, number: int, at: int) -> tuple[tuple[Any, ...], State]:
        threads, plain = state[0], list(state[1])
        step = self._steps[number][at]
        local = dict(zip(self._live[number][at], threads[number][1], strict=True))
        arguments = [code(local, plain) for code in self._code[number][at]]
        local[step[1]], plain[step[4]] = changed(step[2], plain[step[4]], *arguments)
        result = local[step[1]]
        here = (*self._settle(number, at + 1, local, plain), threads[number][2])
        following = (*threads[:number], here, *threads[number + 1 :]), tuple(plain), *state[2:]
        return (number, at, arguments, result), following

    def _change(self, step: Step, arguments: list[int], memory: Memory) -> int | None:
        name, path, order = step[2], step[4], step[5]
        if name == "store":
            memory.store(path, arguments[0], order)
            return None
        old = memory.change(path, lambda value: CHANGES[name](value, arguments[0]), order)
        return changed(name, old, arguments[0])[0]

    def tell(self, number: int, at: int, arguments: list[int], result: int) -> str:
        step = self._steps[number][at]
        about = [list(self.plain)[step[4]]] if step[0] == "word" else step[4:5]
        return f"{self._order[number]}: {step[2]}({', '.join(map(str, [*about, *arguments]))}) = {result}"

    def _without_history(self, state: State) -> State:
        """The same state, without the values that nobody can read any more."""
        threads, plain, histories, seen = state
        gone = []
        for word, history in enumerate(histories):
            oldest = len(history) - 1
            if self._weak[word]:
                path = self._paths[word]
                oldest = min(
                    view[word] if path in self._loads[i] else max(view[word], seen[word])
                    for i, (_, _, view) in enumerate(threads)
                )
            gone.append(oldest)
        if not any(gone):
            return state

        def moved(view: View) -> View:
            return tuple(max(0, at - less) for at, less in zip(view, gone, strict=True))

        return (
            tuple((at, local, moved(view)) for at, local, view in threads),
            plain,
            tuple(
                tuple((value, moved(view)) for value, view in history[less:])
                for history, less in zip(histories, gone, strict=True)
            ),
            moved(seen),
        )

    def told(self, state: State) -> tuple[dict[str, Any], dict[str, bool]]:
        values = dict(zip(self.plain, state[1], strict=False))
        values.update({path: state[2][word][-1][0] for path, word in self._words.items()})
        ended = {name: self._steps[i][state[0][i][0]][0] == "end" for i, name in enumerate(self._order)}
        return values, ended


def explore(
    model: Model, most: int = 100_000, visit: Callable[[dict[str, Any]], object] | None = None
) -> Found:
    """Looks at every state. What is wrong: a step that must never be made; an end that is none; and a state
    from which no end is reached, whatever the threads do: they go round in a circle. ``visit`` is called with
    the values of each state."""
    first = model.first()
    came: dict[State, tuple[State, tuple[Any, ...]] | None] = {first: None}
    before: dict[State, list[State]] = {}
    ends: list[State] = []
    queue = deque([first])

    def steps_to(state: State) -> list[str]:
        steps = []
        while (arrived := came[state]) is not None:
            state, step = arrived
            steps.append(model.tell(*step))
        return steps[::-1]

    while queue:
        state = queue.popleft()
        if visit is not None:
            visit(model.told(state)[0])
        is_end = True
        try:
            for step, following in model.after(state):
                is_end = False
                before.setdefault(following, []).append(state)
                if following not in came:
                    came[following] = state, step
                    queue.append(following)
        except WrongStepError as wrong:
            return Found(len(came), str(wrong), steps_to(state))
        if is_end:
            if fault := model.is_final(*model.told(state)):
                return Found(len(came), fault, steps_to(state))
            ends.append(state)
        if len(came) > most:
            raise AssertionError(f"more than {most} states")
    good = leading_to(ends, before)
    for state in came:
        if state not in good:
            return Found(len(came), "the threads go round in a circle", steps_to(state))
    return Found(len(came))


def leading_to(ends: Sequence[State], before: Mapping[State, Sequence[State]]) -> set[State]:
    good = set(ends)
    queue = deque(ends)
    while queue:
        for state in before.get(queue.popleft(), ()):
            if state not in good:
                good.add(state)
                queue.append(state)
    return good
