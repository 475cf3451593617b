"""What the core makes of completions (completions.c), which libFuzzer makes."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from fuzzing import EXAMPLES, build_completions

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(not shutil.which("clang"), reason="there is no clang, which has libFuzzer")
def test_completions_of_any_kind_and_order(tmp_path: Path) -> None:
    program = tmp_path / "completions"
    refused = build_completions(program)
    if refused and "clang_rt" in refused:
        pytest.skip(f"clang has no libFuzzer: {refused}")
    assert refused is None
    command = [str(program), f"-runs={100 * EXAMPLES}", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    env = {**os.environ, "LD_PRELOAD": ""}  # it has a sanitizer of its own
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
