"""The pictures of a report, each as SVG and as PNG: CHARTS says what is drawn.

- The overview, of few cases, comes first; then a chart by group has all cases of it, and others
  follow that show what a row of numbers cannot.
- The names of the sides stand beside what is drawn, not in a legend.
- The same results give the same bytes.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import attrs
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, MultipleLocator, NullLocator

from report import overview, points, readable
from report.model import METRICS, Case, Report
from report.style import (
    MOST_TICKS,
    ROW,
    SETTINGS,
    WIDTH,
    Style,
    name_rows,
    note,
    range_of_rounds,
    set_ticks,
    styles,
    tick,
)

WITHOUT_DATE = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}


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
        with mpl.rc_context(SETTINGS):
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
    if chart.figure is _overview:
        return overview.shows(report, case)
    if chart.figure is _against_baseline:
        return bool(_advantages(report, case))
    return bool(_values(chart, report, case))


def _values(chart: Chart, report: Report, case: Case) -> dict[str, list[float]]:
    """Of the rounds, by side, in the order of the report; only of sides that were measured."""
    found = {side: case.series[side].values(chart.of(case)) for side in report.sides if side in case.series}
    return {side: values for side, values in found.items() if values}


def _advantages(report: Report, case: Case) -> dict[str, list[float]]:
    """Over the baseline, of each round, by side."""
    if case.baseline not in case.series:
        return {}
    others = [side for side in report.sides if side in case.series and side != case.baseline]
    return {side: values for side in others if (values := case.advantages(side))}


# --- rows of points: how many times as good as the baseline ---------------------------


def _overview(_: Chart, report: Report, cases: list[Case]) -> Figure:
    return points.figure(overview.panels(cases), report.sides)


def _against_baseline(chart: Chart, report: Report, cases: list[Case]) -> Figure:
    """A row for each case, a column for each side that was measured in one of them."""
    rows = [points.Row(case.name, _advantages(report, case)) for case in cases]
    columns = {
        side: report.sides[side].label for side in report.sides if any(side in row.values for row in rows)
    }
    axis = f"times {report.sides[cases[0].baseline].label}"
    return points.figure([points.Panel(chart.axis, axis, columns, rows)], report.sides)


# --- bars: a panel for each case, a bar for each side ---------------------------------


def _bars(chart: Chart, report: Report, cases: list[Case]) -> Figure:
    values = [_values(chart, report, case) for case in cases]
    figure, panels = _panels([len(one) for one in values])
    for axes, case, sides in zip(panels, cases, values, strict=True):
        unit = METRICS[chart.of(case)].unit
        axes.set_xlim(0, 1.25 * max(map(max, sides.values())) or 1)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(partial(tick, unit=unit)))
        _sides_as_bars(axes, report, sides, unit)
        axes.set_title(case.name, loc="left")
        axes.set_xlabel(_axis(chart, case))
    return figure


def _sides_as_bars(axes: Axes, report: Report, sides: dict[str, list[float]], unit: str) -> None:
    style = styles(report.sides)
    for row, (side, values) in enumerate(sides.items()):
        median = statistics.median(values)
        axes.barh(row, median, height=0.7, color=style[side].colour, hatch=style[side].hatch)
        range_of_rounds(axes, row, values, "black")
        note(axes, readable.number(median, unit), (max(values), row), "data", offset=5)
    name_rows(axes, [report.sides[side].label for side in sides], 0.6)


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
    axes.xaxis.set_major_formatter(FuncFormatter(partial(tick, unit=chart.over_unit)))
    unit = METRICS[chart.of(cases[0])].unit
    if chart.from_zero:
        _from_zero(axes, unit)
    else:
        axes.set_yscale("log")
        set_ticks(axes.yaxis, axes.get_ylim(), partial(tick, unit=unit))
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
    """A part for each case, one below the other."""
    rows = [len(_values(chart, report, case)) for case in cases]
    figure = Figure(figsize=(WIDTH, sum(1.5 + ROW * count for count in rows)), layout="constrained")
    parts = figure.subplots(len(cases), squeeze=False, height_ratios=[3 + count for count in rows])
    for axes, case in zip(parts.flat, cases, strict=True):
        _draw_percentiles(axes, chart, report, case)
        if len(cases) > 1:
            axes.set_title(case.name, loc="left", fontsize=10)
    for name, marker in PERCENTILES.items():
        parts.flat[0].plot([], [], marker, color="#555555", label=name)
    parts.flat[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(PERCENTILES), frameon=False)
    return figure


def _draw_percentiles(axes: Axes, chart: Chart, report: Report, case: Case) -> None:
    sides = list(_values(chart, report, case))
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
            range_of_rounds(axes, row, values, style[side].colour)
            axes.plot(median, row, PERCENTILES[name], color=style[side].colour, markersize=6)
        text = " / ".join(readable.number(median, "s") for median in medians)
        note(axes, text, (1, row), ("axes fraction", "data"), offset=8)
    name_rows(axes, [report.sides[side].label for side in sides], 0.6)
    set_ticks(axes.xaxis, axes.get_xlim(), partial(tick, unit="s"))
    axes.grid(axis="x", color="#e0e0e0", linewidth=0.6)
    axes.set_xlabel(_axis(chart, case))


# --- what they share ------------------------------------------------------------------


def _axis(chart: Chart, case: Case) -> str:
    metric = METRICS[chart.of(case)]
    unit = ", /s" if metric.unit == "/s" and "per" not in metric.title else ""
    return f"{chart.axis or metric.title + unit} ({'more' if metric.more_is_better else 'less'} is better)"


def _from_zero(axes: Axes, unit: str) -> None:
    axes.set_ylim(bottom=0)
    high = axes.get_ylim()[1]
    if unit == "B":
        axes.yaxis.set_major_locator(MultipleLocator(2.0 ** math.ceil(math.log2(high / MOST_TICKS))))
    axes.yaxis.set_major_formatter(FuncFormatter(partial(tick, unit=unit)))


CHARTS = {
    "overview": Chart(None, "Trio on io_uring and its peers: Trio on epoll = 1", _overview),
    "micro": Chart("micro", "Single steps of a program", _against_baseline, "Speed"),
    "echo": Chart("echo", "Echo over TCP", _against_baseline, "Messages per CPU second of the server"),
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
    "tls": Chart("tls", "TLS", _against_baseline, "Work per CPU second"),
    "pipes": Chart("pipes", "Messages there and back by pipes", _bars, "messages per CPU second"),
    "files": Chart("files", "Files", _against_baseline, "Operations or bytes per second"),
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
