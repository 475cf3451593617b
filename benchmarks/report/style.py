"""How every chart looks: the colour of a runtime, and what is drawn the same way everywhere.

- A runtime has one colour everywhere, that of its family in COLOURS, which people who
  do not see all colours can tell apart as well. What else runs on it (its protocols,
  say) has the same colour with a hatch, another line and another marker.
- A mark of error spans the smallest and the largest of the rounds; bars, points and
  lines are medians.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from report import readable
from report.model import Side

COLOURS = {
    "trio-epoll": "#0072B2",
    "trio-uring": "#D55E00",
    "asyncio": "#009E73",
    "uvloop": "#CC79A7",
    "rloop": "#56B4E9",
    "blazio": "#E69F00",
    "limit": "#333333",
    "other": "#999999",
}
HATCHES = ("", "////", "....", "xxxx", "++++", "\\\\\\\\", "oooo")
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "<", ">")

SETTINGS: Any = {
    "svg.hashsalt": "benchmarks",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.color": "white",
    "hatch.linewidth": 0.8,
    "errorbar.capsize": 2.5,
    "figure.constrained_layout.use": True,
}
"""Of matplotlib, while a chart is drawn."""

WIDTH = 8.0
ROW = 0.24
"""Inches that a line of text with its bar takes."""


@attrs.frozen
class Style:
    colour: str
    hatch: str
    line: str
    marker: str


def styles(sides: dict[str, Side]) -> dict[str, Style]:
    """By side: the colour of its family, and what tells it from those before it in the family."""
    found: dict[str, Style] = {}
    seen: dict[str, int] = {}
    for key, side in sides.items():
        number = seen.get(side.family, 0)
        seen[side.family] = number + 1
        found[key] = Style(
            COLOURS[side.family],
            HATCHES[number % len(HATCHES)],
            LINES[number % len(LINES)],
            MARKERS[number % len(MARKERS)],
        )
    return found


def note(
    axes: Axes, text: str, at: tuple[float, float], coordinates: str | tuple[str, str], offset: float
) -> None:
    """Writes right of a point."""
    axes.annotate(text, at, (offset, 0), coordinates, textcoords="offset points", va="center", fontsize=8)


def range_of_rounds(axes: Axes, row: float, values: Sequence[float], colour: str) -> None:
    """Draws the mark of error."""
    median = statistics.median(values)
    ends = [[median - min(values)], [max(values) - median]]
    axes.errorbar(median, row, xerr=ends, fmt="none", ecolor=colour, elinewidth=1)


def name_rows(axes: Axes, names: Sequence[str], room: float) -> None:
    """The first row is on top; ``room`` is above its middle and below that of the last one."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 1 + room, -room)
    axes.tick_params(axis="y", length=0)


def tick(value: float, _: int | None = None, *, unit: str) -> str:
    """The number without digits that say nothing: 0, 0.5 ms, 20,000."""
    if value == 0:
        return "0"
    return re.sub(r"\.0+(?!\d)|(\.\d*?)0+(?!\d)", r"\1", readable.number(value, unit))


def scale_of_times(axes: Axes, ratios: Sequence[float]) -> None:
    """Makes it logarithmic, with 1 in it."""
    low, high = min(0.9, *ratios), max(1.1, *ratios)
    room = (high / low) ** 0.06
    axes.set_xscale("log")
    axes.set_xlim(low / room, high * room)
    set_ticks(axes.xaxis, axes.get_xlim(), lambda value, _: f"{value:,g}")


MOST_TICKS = 9
STEPS = (
    (1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 7, 8, 9),
    (1, 1.2, 1.5, 2, 3, 4, 5, 6, 8),
    (1, 1.5, 2, 3, 5, 7),
    (1, 2, 5),
    (1, 3),
    (1,),
)


def set_ticks(axis: Axis, ends: tuple[float, float], formatter: Callable[[float, int], str]) -> None:
    """Of a logarithmic scale: the finest of STEPS that gives at most MOST_TICKS, or else the coarsest."""
    low, high = ends
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in STEPS:
        ticks = [step * 10.0**power for power in powers for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= MOST_TICKS:
            break
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(formatter))
