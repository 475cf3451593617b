"""The picture of a soak, as SVG and as PNG: a panel for each thing, over time; under load a line, and at rest
points."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import attrs
import matplotlib as mpl
from matplotlib.figure import Figure

from report.style import COLOURS, SETTINGS, WIDTH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    Samples = Sequence[Mapping[str, Any]]

SIDES = {"io_uring": "trio-uring", "epoll": "trio-epoll"}
WITHOUT_DATE = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}


@attrs.frozen
class Panel:
    title: str
    name: str
    scale: float = 1.0
    per_second: bool = False
    judged: bool = True
    """Whether it is drawn at rest, too."""


PANELS = (
    Panel("memory (RSS), MB", "memory", 1e-6),
    Panel("allocated by C, MB", "malloc", 1e-6),
    Panel("allocated by Python, thousand blocks", "python blocks", 1e-3),
    Panel("objects of the collector, thousand", "python objects", 1e-3),
    Panel("descriptors", "descriptors"),
    Panel("threads, kernel's workers included", "threads"),
    Panel("tasks", "tasks"),
    Panel("operations in flight", "operations in flight"),
    Panel("provided buffers in use", "buffers in use"),
    Panel("registered sockets, tasks, operations", "registered"),
    Panel("clients' rounds a second", "requests", per_second=True, judged=False),
    Panel("p99 of a request, ms", "p99", 1e3, judged=False),
)


def draw(samples: Samples, rests: Samples, backend: str, folder: Path) -> list[Path]:
    panels = [panel for panel in PANELS if panel.name in samples[0]]
    lines = (len(panels) + 1) // 2
    paths = []
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 1.25 * lines + 0.5))
        grid = figure.add_gridspec(lines, 2)
        for number, panel in enumerate(panels):
            axes = figure.add_subplot(grid[number // 2, number % 2])
            _draw_panel(axes, panel, samples, COLOURS[SIDES[backend]])
            if panel.judged:
                _draw_rests(axes, panel, rests)
            if number >= len(panels) - 2:
                axes.set_xlabel("minutes")
        for kind, metadata in WITHOUT_DATE.items():
            path = folder / f"soak.{kind}"
            figure.savefig(path, dpi=100, metadata=metadata)
            paths.append(path)
    return paths


def _draw_panel(axes: Axes, panel: Panel, samples: Samples, colour: str) -> None:
    points = _rates(samples, panel.name) if panel.per_second else _values(samples, panel.name)
    axes.plot(
        [time / 60 for time, _ in points],
        [value * panel.scale for _, value in points],
        color=colour,
        linewidth=0.8,
    )
    axes.set_ylim(bottom=0)
    axes.set_title(panel.title, loc="left")


def _draw_rests(axes: Axes, panel: Panel, rests: Samples) -> None:
    points = _values(rests, panel.name)
    axes.plot(
        [time / 60 for time, _ in points],
        [value * panel.scale for _, value in points],
        color="black",
        marker=".",
        markersize=3,
        linewidth=0,
    )


def _values(samples: Samples, name: str) -> list[tuple[float, float]]:
    return [(sample["time"], sample[name]) for sample in samples if sample[name] is not None]


def _rates(samples: Samples, name: str) -> list[tuple[float, float]]:
    """Of counters by name, all of them together."""
    return [
        (
            after["time"],
            (sum(after[name].values()) - sum(before[name].values())) / (after["time"] - before["time"]),
        )
        for before, after in itertools.pairwise(samples)
    ]
