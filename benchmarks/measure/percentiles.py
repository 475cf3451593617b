"""Percentiles, and from how many samples on they are told."""

from __future__ import annotations

import math
from collections.abc import Sequence

SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
SAMPLES_BEYOND = 10
"""A percentile that fewer samples lie beyond is not told."""


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """By the names of METRICS: those that there are samples enough for."""
    ordered = sorted(samples)
    count = len(ordered)
    return {
        name: ordered[math.ceil(count * share) - 1] for name, share in SHARES.items() if enough(count, share)
    }


def enough(samples: int, share: float) -> bool:
    return samples - math.ceil(samples * share) >= SAMPLES_BEYOND
