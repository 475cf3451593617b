"""Tests that a fuzzer may drive (tests/fuzz/fuzz.py): Hypothesis makes arguments of the fuzzer's bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from core_program import build
from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("TRIO_URING_FUZZ_EXAMPLES", "100"))

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == 100,
    suppress_health_check=list(HealthCheck),
)
"""Without a fuzzer: as many examples, the same ones every time unless another number is asked for."""

_COMPLETIONS: Final = Path(__file__).resolve().parents[1] / "fuzz" / "completions.c"


def build_completions(program: Path) -> str | None:
    """Makes completions.c a program of libFuzzer's. Returns what clang says if it cannot."""
    checks = ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined", "-g", "-O1")
    return build(program, _COMPLETIONS, *checks, compiler=["clang"])
