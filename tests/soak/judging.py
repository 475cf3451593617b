"""What is wrong with what was seen: each is one line, and none is there if all is well.

All is judged at rest, since under load it depends on what else the machine does. What may not grow is
compared by medians: of the last fifth of the rests, with the fifth that follows the first one, in which the
process is warming up. It may be larger by a share of itself, and by what it varies anyway: the range in which
the middle half of the earlier fifth is. What has to be as it was is compared before the load and after it.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Rests = Sequence[Mapping[str, Any]]

MAY_NOT_GROW = (
    "memory",
    "descriptors",
    "buffers in use",
    "operations in flight",
    "registered",
    "tasks",
    "threads",
    "python blocks",
    "python objects",
    "malloc",
)
AS_BEFORE = ("descriptors", "buffers in use", "operations in flight", "registered", "tasks", "read ahead")
LEAST = 6
"""Rests, without which nothing is said of growth."""


def grown(rests: Rests, allowed: float) -> list[str]:
    """What has grown by more than a share of itself."""
    return [
        f"{name} grew by {(after - before) / before:.1%}: {before:,.0f} -> {after:,.0f}"
        for name, before, after, spread in growth(rests)
        if after - before > max(1, allowed * before) + spread
    ]


def growth(rests: Rests) -> Iterator[tuple[str, float, float, float]]:
    """For each name: the median of the fifth after warm-up, that of the last one, and what it varies."""
    if len(rests) < LEAST:
        return
    fifth = max(2, len(rests) // 5)
    for name in MAY_NOT_GROW:
        if name in rests[0]:
            early = [rest[name] for rest in rests[fifth : 2 * fifth]]
            late = [rest[name] for rest in rests[-fifth:]]
            low, before, high = statistics.quantiles(early, n=4)
            yield name, before, statistics.median(late), high - low


def left(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What is more, at rest after the load, than it was before."""
    return [
        f"{name}: {before[name]:,} before the load, and {after[name]:,} after it"
        for name in AS_BEFORE
        if name in before and after[name] > before[name]
    ]


def still_open(end: Mapping[str, Any]) -> list[str]:
    """What the run has left open."""
    if end["left"]:
        return [f"{end['before']} descriptors before the run, {end['after']} after it: {end['left']}"]
    return []
