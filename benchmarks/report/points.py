"""Rows of points, a point for each side, and the numbers beside them: how many times as good it is.

The columns of numbers are the legend as well: above each stand the marker and the name of its side.
The best of several is bold, unless that is the baseline; a limit is not one of them. The scale is
logarithmic: twice and half are equally far from 1.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

import attrs
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from report import readable
from report.model import Side
from report.style import ROW, WIDTH, Style, name_rows, scale_of_times, styles

GLYPHS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "<": "◀", ">": "▶"}
"""Of matplotlib's markers."""
NO_PEERS = ("limit", "other")
"""Families: how far the machine goes, and a program that can do nothing else meanwhile."""
APART = 0.06
"""Inches between the points of a row."""
COLUMN = 0.72
"""Inches that a column of numbers takes."""
HEADING, FOOT = 0.75, 0.5
"""Inches above and below the rows of a panel: title and names, ticks and axis."""
GAP = 13
"""Points from the rows up to the names of the sides, with the markers between."""
SLANTED = 45
"""Degrees, of names that are too long to stand beside each other."""
LONGEST = 12
"""Letters of a line that is not."""
LETTER = 0.05
"""Inches that a letter adds to the height of a slanted name."""


@attrs.frozen
class Row:
    label: str
    values: dict[str, list[float]]
    """By side: of each round, how many times as good as the baseline it was."""


@attrs.frozen
class Panel:
    title: str
    axis: str
    columns: dict[str, str]
    """The name of each side that is shown, by its key."""
    rows: Sequence[Row]

    @property
    def row_height(self) -> float:
        return ROW * 0.6 + APART * len(self.columns)

    @property
    def longest(self) -> int:
        """Of the lines that name the sides."""
        return max(len(line) for name in self.columns.values() for line in name.split("\n"))

    @property
    def slanted(self) -> bool:
        return len(self.columns) > 1 and self.longest > LONGEST

    @property
    def height(self) -> float:
        heading = HEADING + (LETTER * self.longest if self.slanted else 0)
        return heading + self.row_height * len(self.rows) + FOOT


def figure(panels: Sequence[Panel], sides: dict[str, Side]) -> Figure:
    """One panel below the other."""
    most = max(len(panel.columns) for panel in panels)
    drawn = Figure(figsize=(WIDTH + COLUMN * max(0, most - 2), sum(panel.height for panel in panels) + 0.3))
    grid = drawn.add_gridspec(len(panels), 1, height_ratios=[panel.height for panel in panels])
    for number, panel in enumerate(panels):
        _draw(drawn.add_subplot(grid[number, 0]), panel, sides)
    return drawn


def _draw(axes: Axes, panel: Panel, sides: dict[str, Side]) -> None:
    style = styles(sides)
    peers = [side for side in panel.columns if sides[side].family not in NO_PEERS]
    everything = itertools.chain(*(values for row in panel.rows for values in row.values.values()))
    scale_of_times(axes, list(everything))
    axes.grid(axis="x", color="#e0e0e0", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.axvline(1, color="black", linewidth=1)
    for number in range(len(panel.rows)):
        if number % 2 == 0:
            axes.axhspan(number - 0.5, number + 0.5, color="#f4f4f4", linewidth=0, zorder=0)
        _draw_row(axes, panel, style, number, peers)
    name_rows(axes, [row.label for row in panel.rows], 0.5)
    for place, (side, name) in enumerate(panel.columns.items()):
        colour, above = style[side].colour, (place, -0.5)
        _write(axes, GLYPHS[style[side].marker], above, colour, up=2)
        _write(axes, name, above, colour, up=GAP, slanted=panel.slanted)
    axes.set_title(panel.title, loc="left", fontweight="bold")
    axes.set_xlabel(f"{panel.axis} (right is better{'; bold: the best' if len(peers) > 1 else ''})")


def _draw_row(axes: Axes, panel: Panel, style: dict[str, Style], number: int, peers: Sequence[str]) -> None:
    values = panel.rows[number].values
    medians = {side: statistics.median(values[side]) for side in panel.columns if side in values}
    best = max([1.0, *(medians[side] for side in peers if side in medians)])
    for place, side in enumerate(panel.columns):
        if side not in medians:
            continue
        height = number + (place - (len(panel.columns) - 1) / 2) * APART / panel.row_height
        ends = min(values[side]), max(values[side])
        axes.hlines(height, *ends, color=style[side].colour, linewidth=1.2, alpha=0.5)
        axes.plot(medians[side], height, style[side].marker, color=style[side].colour, markersize=5)
        is_best = len(peers) > 1 and side in peers and medians[side] == best
        _write(axes, readable.times(medians[side]), (place, number), style[side].colour, bold=is_best)


def _write(
    axes: Axes,
    text: str,
    at: tuple[int, float],
    colour: str,
    *,
    up: float = 0,
    bold: bool = False,
    slanted: bool = False,
) -> None:
    """Into a column right of the points, at the height of a row or ``up`` from there."""
    column, row = at
    axes.annotate(
        text,
        (1, row),
        ((column + 0.6) * COLUMN * 72, up),
        ("axes fraction", "data"),
        textcoords="offset points",
        ha="left" if slanted else "center",
        va="bottom" if up else "center",
        rotation=SLANTED if slanted else 0,
        rotation_mode="anchor",
        color=colour,
        fontproperties=FontProperties(size=8, weight="bold" if bold else "normal"),
    )
