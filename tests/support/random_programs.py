"""How many random programs a test runs, and which.

TRIO_URING_ORACLE_EXAMPLES: that many, chosen at random, instead of the same few.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("TRIO_URING_ORACLE_EXAMPLES", "0"))
"""0: each test its own number, the same programs every time."""


def programs_of(number: int, **more: Any) -> settings:
    """The settings of a test that runs ``number`` programs unless it is asked for another number."""
    return settings(
        max_examples=EXAMPLES or number,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )
