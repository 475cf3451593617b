"""Answers of the kernel's that it seldom gives, by a NOP that is told what to answer (Linux 6.10)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

import trio_uring
from trio_uring.loop.current import current_run
from trio_uring.loop.operation import NULL, perform
from trio_uring.ring.native import lib
from trio_uring.ring.opcodes import NOP

if TYPE_CHECKING:
    from collections.abc import Callable

_submit = lib.tu_submit
_INJECT_RESULT = 1
"""IORING_NOP_INJECT_RESULT: a NOP's result is its length."""


def submit_answer(core: Any, result: int) -> int:
    """Submits what the kernel answers with ``result``; the slot, as of `tu_submit`."""
    slot: int = _submit(core, NOP.number, -1, NULL, result & 0xFFFFFFFF, 0, _INJECT_RESULT, 0)
    return slot


def give_answers(
    monkeypatch: pytest.MonkeyPatch, module: object, answers: list[int], *, name: str = "_submit"
) -> None:
    """Has the kernel give these answers, one after the other, to the first operations that ``module``
    submits, which are not made; ``name`` is what it submits them by. Skips the test where the kernel
    cannot be told."""
    if not _can_be_told():
        pytest.skip("this kernel's NOP answers nothing that it is told to (Linux 6.10)")
    submit: Callable[..., int] = getattr(module, name)

    def answer(core: Any, *arguments: Any) -> int:
        return submit_answer(core, answers.pop(0)) if answers else submit(core, *arguments)

    monkeypatch.setattr(module, name, answer)


@functools.cache
def _can_be_told() -> bool:
    async def main() -> int:
        run = current_run()
        assert run is not None
        return await perform(run, NOP, -1, length=7, flags=_INJECT_RESULT)

    return trio_uring.run(main) == 7
