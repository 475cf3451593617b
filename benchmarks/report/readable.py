"""Numbers as readers want them: three digits that count, a unit that fits, the range beside the median."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

_BINARY = [(2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")]
_PREFIXES = {
    "/s": [(1.0, "")],
    "": [(0.01, "%")],
    "s": [(1.0, " s"), (1e-3, " ms"), (1e-6, " us"), (1e-9, " ns")],
    "B": [(size, f" {name}") for size, name in _BINARY],
    "B/s": [(size, f" {name}/s") for size, name in _BINARY],
}


def digits(value: float) -> str:
    """1.23, 12.3, 123, 12,300."""
    if not math.isfinite(value):
        return str(value)
    rounded = float(f"{value:.3g}")
    if rounded == 0:
        return "0"
    return f"{rounded:,.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def number(value: float, unit: str) -> str:
    size, name = _prefix(value, unit)
    return digits(value / size) + name


def spread(values: Sequence[float], unit: str) -> str:
    """The median and, of several values, the smallest and the largest: "1.23 ms [1.10-1.40]"."""
    median = statistics.median(values)
    if len(values) == 1:
        return number(median, unit)
    size, name = _prefix(median, unit)
    return f"{digits(median / size)}{name} [{digits(min(values) / size)}-{digits(max(values) / size)}]"


def times(ratio: float) -> str:
    """12.34, 0.56; of less than a tenth the first two digits: 0.012."""
    return f"{ratio:.2f}" if ratio >= 0.1 or ratio == 0 else f"{ratio:.2g}"


def ratio(values: Sequence[float]) -> str:
    """The median, with the range of several: "1.23 [1.10-1.40]"."""
    if len(values) == 1:
        return times(values[0])
    return f"{times(statistics.median(values))} [{times(min(values))}-{times(max(values))}]"


def _prefix(value: float, unit: str) -> tuple[float, str]:
    """The largest one that leaves a number from 1 on; of nothing, and of what is tiny, the smallest."""
    prefixes = _PREFIXES[unit]
    return next((prefix for prefix in prefixes if abs(value) >= prefix[0]), prefixes[-1])
