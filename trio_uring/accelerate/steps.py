"""Trio's loop, with the frequent steps of its tasks made by C (native/python/batch.c).

The loop is Trio's own text, compiled again with one more condition: ``while batch`` becomes ``while batch and
run_batch(runner, batch)``. So C is asked first. It makes steps until the batch is empty, or until one is for
the body of the loop. What C has begun and cannot finish is finished by ``finish_step``: the body of the loop
once more, without its beginning. So whatever is not frequent is done by Trio's own code.

The lines keep their numbers and the file its name, so that tracebacks and debuggers show Trio's source. The
call of C has the place of the call that makes a step in Trio: it is what the stack of a task shows.
"""

from __future__ import annotations
import __future__

import ast
import functools
import inspect
from typing import TYPE_CHECKING, Any, Final

from trio.lowlevel import enable_ki_protection

from .._tasks import learn_messages, run_batch
from ..loop.trio_internals import Replaced, trio_run, trio_traps
from .known import source_of, why_unknown

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOP: Final = "unrolled_run"
_BEGINNING: Final = (
    "task = batch.pop()",
    "GLOBAL_RUN_CONTEXT.task = task",
    "if 'before_task_step' in runner.instruments:",
    "next_send_fn = task._next_send_fn",
    "next_send = task._next_send",
    "task._next_send_fn = task._next_send = None",
)
"""What the body of the loop does before it sends to a task: the first line of each statement."""
_STEP: Final = "task.context.run(next_send_fn, next_send)"
"""How the body of the loop sends to a task."""


def unrolled_run(runner: Any, *args: Any, **kwargs: Any) -> Any:
    """The loop of a run: Trio's own, or the one that asks C first. Trio calls it when the run is set up."""
    manager = runner.io_manager
    loop = _original[_LOOP]
    if getattr(manager, "wants_acceleration", False):
        why_not = "this is a guest run" if runner.is_guest else why_unknown()
        manager.set_accelerated(why_not)
        if not why_not:
            loop = _accelerated()
    return loop(runner, *args, **kwargs)


_original: dict[str, Any] = {}
REPLACEMENTS: Final = (Replaced(trio_run, {_LOOP: unrolled_run}, _original),)


@functools.cache
def _accelerated() -> Callable[..., Any]:
    """Trio's loop, which asks C first. Only for a Trio that is known (accelerate/known.py)."""
    learn_messages(trio_traps.CancelShieldedCheckpoint, trio_traps.WaitTaskRescheduled)
    function, loop = _parse()
    finish_step = enable_ki_protection(_compile(_finishing(loop))())
    loop.test = ast.copy_location(ast.BoolOp(ast.And(), [loop.test, _call_of_c(loop)]), loop.test)
    return _compile(function, "run_batch")(functools.partial(run_batch, finish_step))


def _parse() -> tuple[ast.FunctionDef, ast.While]:
    """Trio's ``unrolled_run``, and in it the loop that makes the steps of a batch."""
    text = source_of(trio_run.__name__)
    assert text is not None
    lines = text.splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if line.startswith(f"def {_LOOP}(")) - 1
    (function,) = ast.parse("".join(inspect.getblock(lines[first:]))).body
    assert isinstance(function, ast.FunctionDef)
    ast.increment_lineno(function, first)
    loops = (node for node in ast.walk(function) if isinstance(node, ast.While))
    (loop,) = (node for node in loops if ast.unparse(node.test) == "batch")
    beginning = tuple(ast.unparse(statement).splitlines()[0] for statement in loop.body[: len(_BEGINNING)])
    assert beginning == _BEGINNING, beginning
    return function, loop


def _call_of_c(loop: ast.While) -> ast.expr:
    """The call of C, at the place of the step in the body of the loop."""
    (step,) = (node for node in ast.walk(loop) if isinstance(node, ast.Call) and ast.unparse(node) == _STEP)
    call = ast.parse("run_batch(runner, batch)", mode="eval").body
    for node in ast.walk(call):
        ast.copy_location(node, step)
    return call


def _finishing(loop: ast.While) -> ast.FunctionDef:
    """A function that does what the body of the loop does from the step on."""
    (function,) = ast.parse("def finish_step(runner, task, next_send_fn, next_send): pass").body
    assert isinstance(function, ast.FunctionDef)
    function.body = loop.body[len(_BEGINNING) :]
    return ast.copy_location(function, loop)


def _compile(function: ast.FunctionDef, *given: str) -> Callable[..., Callable[..., Any]]:
    """A function that returns this one, with Trio's own globals, and besides with the names that it is
    ``given``: nothing is added to Trio's."""
    module = ast.parse(f"def bind({', '.join(given)}): return {function.name}")
    (bind,) = module.body
    assert isinstance(bind, ast.FunctionDef)
    bind.body.insert(0, function)
    ast.fix_missing_locations(module)
    flags = __future__.annotations.compiler_flag
    code = compile(module, trio_run.__file__ or _LOOP, "exec", flags=flags, dont_inherit=True)
    made: dict[str, Any] = {}
    exec(code, vars(trio_run), made)
    return made["bind"]  # type: ignore[no-any-return]
