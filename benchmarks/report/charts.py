"""The pictures of a report, each as SVG and as PNG: CHARTS says what is drawn.

- A runtime has one colour everywhere, that of its family in COLOURS, which people who
  do not see all colours can tell apart as well. What else runs on it (its protocols,
  say) has the same colour with a hatch, another line and another marker.
- A mark of error spans the smallest and the largest of the rounds; bars, points and
  lines are medians.
- The names of the sides stand beside what is drawn, not in a legend.
- The same results give the same bytes.
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MultipleLocator, NullLocator

from report import readable
from report.model import METRICS, Case, Report, Side
from report.summary import OURS, THEIRS, sides_of

COLOURS = {
    "trio-epoll": "#0072B2",
    "trio-uring": "#D55E00",
    "asyncio": "#009E73",
    "uvloop": "#CC79A7",
    "rloop": "#56B4E9",
    "limit": "#333333",
    "other": "#999999",
}
HATCHES = ("", "////", "....", "xxxx", "++++")
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v")

STYLE: Any = {
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
WITHOUT_DATE = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}

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


@attrs.frozen
class Chart:
    group: str | None
    """None: of all groups."""
    title: str
    figure: Callable[[Chart, Report, list[Case]], Figure]
    axis: str = ""
    """What the numbers are, if not what METRICS says."""
    cases: str = ".*"
    """A regular expression that the whole name of a case has to match."""
    metric: str = ""
    """Instead of the one that the case is compared by."""
    over: str = ""
    """The parameter that lines are drawn over."""
    over_axis: str = ""
    over_unit: str = "/s"
    from_zero: bool = False
    """Lines on a linear scale from 0, instead of a logarithmic one."""

    def of(self, case: Case) -> str:
        return self.metric or case.metric


def draw(report: Report, folder: Path) -> list[Path]:
    """Each chart that the report has numbers for, as NAME.svg and NAME.png; NAME is a key of CHARTS."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, chart in CHARTS.items():
        cases = [case for case in report.cases if _belongs(chart, report, case)]
        # A line needs two points.
        if not cases or (chart.over and len({case.parameters[chart.over] for case in cases}) < 2):
            continue
        with mpl.rc_context(STYLE):
            figure = chart.figure(chart, report, cases)
            figure.suptitle(chart.title, fontsize=11, fontweight="bold")
            for kind, metadata in WITHOUT_DATE.items():
                path = folder / f"{name}.{kind}"
                figure.savefig(path, dpi=120, metadata=metadata)
                paths.append(path)
    return paths


def _belongs(chart: Chart, report: Report, case: Case) -> bool:
    if chart.group not in (None, case.group) or not re.fullmatch(chart.cases, case.name):
        return False
    if chart.figure is _our_advantages:
        return any(_advantages(case, side, THEIRS) for side in sides_of(report, OURS))
    if chart.figure is _relative_bars:
        return any(_advantages(case, side, case.baseline) for side in case.series if side != case.baseline)
    return bool(_values(chart, report, case))


def _values(chart: Chart, report: Report, case: Case) -> dict[str, list[float]]:
    """Of the rounds, by side, in the order of the report; only of sides that were measured."""
    found = {side: case.series[side].values(chart.of(case)) for side in report.sides if side in case.series}
    return {side: values for side, values in found.items() if values}


def _advantages(case: Case, side: str, against: str) -> list[float]:
    if side not in case.series or against not in case.series:
        return []
    return case.advantages(side, against=against)


# --- bars: a panel for each case, a bar for each side ---------------------------------


def _bars(chart: Chart, report: Report, cases: list[Case]) -> Figure:
    values = [_values(chart, report, case) for case in cases]
    figure, panels = _panels([len(one) for one in values])
    for axes, case, sides in zip(panels, cases, values, strict=True):
        unit = METRICS[chart.of(case)].unit
        axes.set_xlim(0, 1.25 * max(map(max, sides.values())) or 1)
        axes.xaxis.set_major_formatter(FuncFormatter(partial(_tick, unit=unit)))
        _sides_as_bars(axes, report, sides, 0, partial(readable.number, unit=unit))
        axes.set_title(case.name, loc="left")
        axes.set_xlabel(_axis(chart, case))
    return figure


def _relative_bars(chart: Chart, report: Report, cases: list[Case]) -> Figure:
    """From 1, which is the baseline, on a logarithmic scale: twice and half are equally long."""
    values = [
        {
            side: one
            for side in report.sides
            if side != case.baseline and (one := _advantages(case, side, case.baseline))
        }
        for case in cases
    ]
    figure, panels = _panels([len(one) for one in values])
    everything = [one for sides in values for several in sides.values() for one in several]
    for axes, case, sides in zip(panels, cases, values, strict=True):
        _scale_of_times(axes, everything)
        _sides_as_bars(axes, report, sides, 1, readable.times)
        axes.axvline(1, color="black", linewidth=1)
        axes.set_title(case.name, loc="left")
        axes.set_xlabel(f"times {report.sides[case.baseline].label} ({chart.axis})")
    return figure


def _sides_as_bars(
    axes: Axes, report: Report, sides: dict[str, list[float]], start: float, text: Callable[[float], str]
) -> None:
    style = styles(report.sides)
    for row, (side, values) in enumerate(sides.items()):
        median = statistics.median(values)
        axes.barh(
            row, median - start, left=start, height=0.7, color=style[side].colour, hatch=style[side].hatch
        )
        _range_of_rounds(axes, row, values, "black")
        _note(axes, text(median), (max(start, *values), row), "data", offset=5)
    axes.set_yticks(range(len(sides)), [report.sides[side].label for side in sides])
    axes.set_ylim(len(sides) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _panels(rows: Sequence[int]) -> tuple[Figure, list[Axes]]:
    """One for each number of rows, in two columns if there are several."""
    columns = min(2, len(rows))
    lines = [max(rows[start : start + columns]) for start in range(0, len(rows), columns)]
    heights = [0.75 + ROW * count for count in lines]
    figure = Figure(figsize=(WIDTH * (1 if columns == 1 else 1.35), sum(heights) + 0.5))
    grid = figure.add_gridspec(len(lines), columns, height_ratios=heights)
    return figure, [
        figure.add_subplot(grid[number // columns, number % columns]) for number in range(len(rows))
    ]


# --- rows of points: trio-uring against Trio on epoll ---------------------------------


def _our_advantages(chart: Chart, report: Report, cases: list[Case]) -> Figure:
    """A row for each case and each side of our family, the groups on bands of two shades."""
    ours = sides_of(report, OURS)
    rows = [(case, side, one) for case in cases for side in ours if (one := _advantages(case, side, THEIRS))]
    figure = Figure(figsize=(WIDTH, 1.2 + ROW * len(rows)))
    axes = figure.add_subplot()
    _scale_of_times(axes, list(itertools.chain(*(values for _, _, values in rows))))
    style = styles(report.sides)
    for row, (_, side, values) in enumerate(rows):
        median = statistics.median(values)
        _range_of_rounds(axes, row, values, style[side].colour)
        axes.plot(median, row, style[side].marker, color=style[side].colour, markersize=5)
        _note(axes, readable.times(median), (1, row), ("axes fraction", "data"), offset=8)
    shaded = True
    for _, members in itertools.groupby(enumerate(rows), key=lambda item: item[1][0].group):
        numbers = [row for row, _ in members]
        if shaded:
            axes.axhspan(numbers[0] - 0.5, numbers[-1] + 0.5, color="#f0f0f0", linewidth=0)
        shaded = not shaded
    axes.set_yticks(range(len(rows)), [_row(chart, report, case, side, ours) for case, side, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel(chart.axis)
    return figure


def _row(chart: Chart, report: Report, case: Case, side: str, ours: list[str]) -> str:
    label = case.name if chart.group else f"{case.group}: {case.name}"
    return f"{label}, {report.sides[side].label}" if len(ours) > 1 else label


# --- lines over a parameter -----------------------------------------------------------


def _lines(chart: Chart, report: Report, cases: list[Case]) -> Figure:
    """The name of a side stands at the end of its line."""
    figure = Figure(figsize=(WIDTH, 4.6))
    axes = figure.add_subplot()
    axes.set_xscale("log")
    style = styles(report.sides)
    ends = {}
    for side in report.sides:
        points = sorted(
            (case.parameters[chart.over], values[side])
            for case in cases
            if side in (values := _values(chart, report, case))
        )
        if not points:
            continue
        places = [place for place, _ in points]
        medians = [statistics.median(values) for _, values in points]
        below = [median - min(values) for median, (_, values) in zip(medians, points, strict=True)]
        above = [max(values) - median for median, (_, values) in zip(medians, points, strict=True)]
        axes.errorbar(
            places,
            medians,
            [below, above],
            color=style[side].colour,
            linestyle=style[side].line,
            marker=style[side].marker,
            markersize=4,
        )
        ends[side] = (places[-1], medians[-1])
    ticks = sorted({case.parameters[chart.over] for case in cases})
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(partial(_tick, unit=chart.over_unit)))
    unit = METRICS[chart.of(cases[0])].unit
    if chart.from_zero:
        _from_zero(axes, unit)
    else:
        axes.set_yscale("log")
        _ticks(axes.yaxis, axes.get_ylim(), partial(_tick, unit=unit))
    axes.grid(axis="y", color="#e0e0e0", linewidth=0.6)
    axes.set_xlabel(chart.over_axis)
    axes.set_ylabel(_axis(chart, cases[0]))
    _names_at_the_ends(axes, report, ends, style)
    return figure


def _names_at_the_ends(
    axes: Axes, report: Report, ends: dict[str, tuple[float, float]], style: dict[str, Style]
) -> None:
    """Right of the picture, apart from each other, with a thin line from the end of the drawn one."""
    order = sorted(ends, key=lambda side: ends[side][1])
    to_fractions = axes.transScale + axes.transLimits
    heights = apart([float(to_fractions.transform(ends[side])[1]) for side in order], 0.052)
    for side, height in zip(order, heights, strict=True):
        axes.annotate(
            report.sides[side].label,
            ends[side],
            xytext=(1.05, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=style[side].colour,
            arrowprops={
                "arrowstyle": "-",
                "color": style[side].colour,
                "linewidth": 0.5,
                "relpos": (0, 0.5),
                "shrinkB": 4,
            },
        )


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending fractions of a height, moved as little as puts them ``gap`` apart within it."""
    clusters: list[list[float]] = []
    for height in heights:
        clusters.append([height])
        while len(clusters) > 1 and _from(clusters[-1], gap) - _to(clusters[-2], gap) < gap:
            last = clusters.pop()
            clusters[-1] += last
    return [_from(cluster, gap) + gap * number for cluster in clusters for number in range(len(cluster))]


def _from(cluster: list[float], gap: float) -> float:
    length = gap * (len(cluster) - 1)
    return max(0.0, min(1 - length, statistics.mean(cluster) - length / 2))


def _to(cluster: list[float], gap: float) -> float:
    return _from(cluster, gap) + gap * (len(cluster) - 1)


# --- percentiles: a row for each side, a marker for each percentile -------------------

PERCENTILES = {"p50": "o", "p99": "s", "p99.9": "D"}


def _percentiles(chart: Chart, report: Report, cases: list[Case]) -> Figure:
    """Of one case."""
    (case,) = cases
    sides = list(_values(chart, report, case))
    figure = Figure(figsize=(WIDTH, 1.5 + ROW * len(sides)))
    axes = figure.add_subplot()
    axes.set_xscale("log")
    times = [time for side in sides for name in PERCENTILES for time in case.series[side].values(name)]
    axes.set_xlim(0.8 * min(times), 1.25 * max(times))
    style = styles(report.sides)
    for row, side in enumerate(sides):
        series = case.series[side]
        measured = {name: series.values(name) for name in PERCENTILES if series.values(name)}
        medians = [statistics.median(values) for values in measured.values()]
        axes.plot(medians, [row] * len(medians), style[side].line, color=style[side].colour, linewidth=1.2)
        for (name, values), median in zip(measured.items(), medians, strict=True):
            _range_of_rounds(axes, row, values, style[side].colour)
            axes.plot(median, row, PERCENTILES[name], color=style[side].colour, markersize=6)
        text = " / ".join(readable.number(median, "s") for median in medians)
        _note(axes, text, (1, row), ("axes fraction", "data"), offset=8)
    for name, marker in PERCENTILES.items():
        axes.plot([], [], marker, color="#555555", label=name)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(PERCENTILES), frameon=False)
    axes.set_yticks(range(len(sides)), [report.sides[side].label for side in sides])
    axes.set_ylim(len(sides) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    _ticks(axes.xaxis, axes.get_xlim(), partial(_tick, unit="s"))
    axes.grid(axis="x", color="#e0e0e0", linewidth=0.6)
    axes.set_xlabel(_axis(chart, case))
    return figure


# --- what they share ------------------------------------------------------------------


def _note(
    axes: Axes, text: str, at: tuple[float, float], coordinates: str | tuple[str, str], offset: float
) -> None:
    """Right of a point."""
    axes.annotate(text, at, (offset, 0), coordinates, textcoords="offset points", va="center", fontsize=8)


def _range_of_rounds(axes: Axes, row: float, values: Sequence[float], colour: str) -> None:
    median = statistics.median(values)
    ends = [[median - min(values)], [max(values) - median]]
    axes.errorbar(median, row, xerr=ends, fmt="none", ecolor=colour, elinewidth=1)


def _axis(chart: Chart, case: Case) -> str:
    metric = METRICS[chart.of(case)]
    unit = ", /s" if metric.unit == "/s" and "per" not in metric.title else ""
    return f"{chart.axis or metric.title + unit} ({'more' if metric.more_is_better else 'less'} is better)"


def _tick(value: float, _: int | None = None, *, unit: str) -> str:
    """The number without digits that say nothing: 0, 0.5 ms, 20,000."""
    if value == 0:
        return "0"
    return re.sub(r"\.0+(?!\d)|(\.\d*?)0+(?!\d)", r"\1", readable.number(value, unit))


def _from_zero(axes: Axes, unit: str) -> None:
    axes.set_ylim(bottom=0)
    high = axes.get_ylim()[1]
    if unit == "B":
        axes.yaxis.set_major_locator(MultipleLocator(2.0 ** math.ceil(math.log2(high / MOST_TICKS))))
    axes.yaxis.set_major_formatter(FuncFormatter(partial(_tick, unit=unit)))


def _scale_of_times(axes: Axes, ratios: Sequence[float]) -> None:
    """Logarithmic, with 1 in it."""
    low, high = min(0.9, *ratios), max(1.1, *ratios)
    room = (high / low) ** 0.06
    axes.set_xscale("log")
    axes.set_xlim(low / room, high * room)
    _ticks(axes.xaxis, axes.get_xlim(), lambda value, _: f"{value:,g}")


MOST_TICKS = 9
STEPS = (
    (1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 7, 8, 9),
    (1, 1.2, 1.5, 2, 3, 4, 5, 6, 8),
    (1, 1.5, 2, 3, 5, 7),
    (1, 2, 5),
    (1, 3),
    (1,),
)


def _ticks(axis: Axis, ends: tuple[float, float], formatter: Callable[[float, int], str]) -> None:
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


CHARTS = {
    "overview": Chart(
        None,
        "trio-uring against Trio on epoll",
        _our_advantages,
        "times as good: more throughput, or less time, CPU or memory (right is better)",
    ),
    "micro": Chart(
        "micro",
        "Single steps: speed on trio-uring against Trio on epoll",
        _our_advantages,
        "times as fast (right is better)",
    ),
    "echo": Chart(
        "echo",
        "Echo of 64 B over 50 connections",
        _bars,
        "messages per CPU second of the server",
        cases="streams, 64 B, 50 connections",
    ),
    "echo-connections": Chart(
        "echo",
        "Echo of 64 B over more and more connections",
        _lines,
        "messages per CPU second of the server",
        cases=r"streams, 64 B, [\d,]+ connections?",
        over="connections",
        over_axis="connections",
    ),
    "echo-sizes": Chart(
        "echo",
        "Echo of larger and larger messages over 50 connections",
        _lines,
        "messages per CPU second of the server",
        cases=r"streams, \d+ \w+, 50 connections",
        over="size",
        over_axis="size of a message",
        over_unit="B",
    ),
    "echo-latency": Chart(
        "echo",
        "Echo of 64 B over 50 connections: time from a message to its reply",
        _percentiles,
        "time, each connection sends again as soon as it is answered",
        cases="streams, 64 B, 50 connections",
        metric="p50",
    ),
    "http": Chart("http", "HTTP: small keep-alive requests, by wrk", _bars, "requests per CPU second"),
    "connections": Chart(
        "connections", "Connections accepted, served once and closed", _bars, "connections per CPU second"
    ),
    "udp": Chart("udp", "UDP queries answered", _bars, "queries per CPU second"),
    "tls": Chart("tls", "Echo over TLS", _bars, "messages per CPU second"),
    "files": Chart(
        "files", "Files: speed against trio.open_file on epoll", _relative_bars, "right is better"
    ),
    "scale-memory": Chart(
        "scale",
        "Memory of the server for each idle connection",
        _lines,
        metric="bytes_each",
        over="connections",
        over_axis="idle connections",
        from_zero=True,
    ),
    "scale-cpu": Chart(
        "scale",
        "CPU time for one message while other connections idle",
        _lines,
        "CPU time of the server for a message",
        metric="cpu",
        over="connections",
        over_axis="idle connections",
        from_zero=True,
    ),
    "idle": Chart(
        "idle", "CPU that a server takes while nothing comes", _bars, "of one CPU", metric="cpu_share"
    ),
    "fairness": Chart(
        "fairness",
        "How late a task runs beside a greedy one",
        _percentiles,
        "time from the moment that the task slept until",
        metric="p50",
    ),
}
