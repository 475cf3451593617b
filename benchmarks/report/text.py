"""The Markdown report of a run: tables and pictures for a reader who believes nothing.

    python benchmarks report RESULTS.json [--second OTHER.json] [--output FOLDER]

All that it says is computed from the run. It names no folder of the machine that it was
made on, and what was not measured is told.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median

from measure.agreement import AGREEMENT, Comparison, compare, compared_metrics
from report import charts, readable
from report.model import METRICS, Case, Report, Series
from report.summary import OURS, in_brief, sides_of

BENCHMARKS = Path(__file__).resolve().parent.parent

GROUPS = {
    "micro": "Single steps of a program",
    "echo": "Echo over TCP",
    "http": "HTTP",
    "connections": "Connections: accept, one request, close",
    "udp": "UDP queries",
    "tls": "TLS: echo, handshakes, HTTP/1.1 and HTTP/2, a client",
    "pipes": "Pipes: messages there and back",
    "files": "Files",
    "scale": "Many idle connections",
    "idle": "An idle server",
    "fairness": "Fairness: how late a task runs beside a greedy one",
}
RIVALS = {"echo": "uvloop", "tls": "asyncio"}
"""By group: a side that trio-uring is to be compared with beside the baseline."""

HOW_TO_READ = """\
- In every round each side is started anew, one right after the other. A number is the median of the rounds, \
in brackets are the smallest and the largest.
- A ratio is computed within each round, against the baseline of the case; then median and range are taken. \
If its range includes 1, the rounds do not agree on which side is better.
- A CPU second is one of the server, or of the program that works on files, not of what loads it.
- ↑: more is better. ↓: less is better. "≥": the load generator was the limit in some of the rounds.
- "-": not measured. For a percentile that means that fewer than 10 samples lay beyond it.
- System calls are those of one operation (a message, a request, a read), counted under strace in a pass of \
its own, which slows a server down and so changes how much it handles at a time.
"""

SYSTEM_CALLS_NAMED = 3
FAILURE_LENGTH = 400


def write(report: Report, folder: Path, second: Report | None) -> None:
    """Writes report.md, and the pictures beside it; with a ``second`` run, also whether the two agree."""
    pictures = [path for path in charts.draw(report, folder / "charts") if path.suffix == ".png"]
    lines = [
        "# Benchmarks",
        "",
        *_table(("", ""), [(f"**{name}**", text) for name, text in report.header.items()], "ll"),
        *(f"- {note}" for note in report.notes),
        "",
        *_pictures(pictures, None),
        "## In brief",
        "",
        *in_brief(report),
        "",
        "## How to read this",
        "",
        f"{HOW_TO_READ}- {_method(folder)} explains the method, and what it cannot show.",
        "",
    ]
    for group in dict.fromkeys(case.group for case in report.cases):
        lines += [f"## {GROUPS.get(group, group)}", "", *_pictures(pictures, group)]
        cases = [case for case in report.cases if case.group == group]
        lines += _group(report, cases)
        if group in RIVALS:
            lines += _against(report, cases, RIVALS[group])
    lines += _seen(report)
    if second:
        lines += _agreement(report, second)
    text = "\n".join(lines).rstrip() + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(without_folders(text))


def without_folders(text: str) -> str:
    """Absolute paths become their last part, but for those that are the same everywhere."""
    return re.sub(r"(?<![\w.:/-])/(?!(?:proc|sys|dev)/)(?:[\w.@+~-]+/)+", "", text)


def _method(folder: Path) -> str:
    repository = BENCHMARKS.parent
    if not folder.resolve().is_relative_to(repository):
        return "`benchmarks/README.md`"
    up = "../" * len(folder.resolve().relative_to(repository).parts)
    return f"[benchmarks/README.md]({up}benchmarks/README.md)"


def _pictures(pictures: Iterable[Path], group: str | None) -> Iterator[str]:
    for path in pictures:
        chart = charts.CHARTS[path.stem]
        if chart.group == group:
            picture = f"{path.parent.name}/{path.stem}"
            yield f"[![{chart.title}]({picture}.png)]({picture}.svg)"
            yield ""


# --- the tables of a group ------------------------------------------------------------


def _group(report: Report, cases: Sequence[Case]) -> Iterator[str]:
    if all(_measured(case) == [case.metric] and not _counted(case) for case in cases):
        yield from _one_table(report, cases)
        for case in cases:
            remarks = list(_remarks(report, case))
            if remarks:
                yield from (f"{case.name}:", "", *remarks, "")
        return
    for case in cases:
        yield from (f"### {case.name}", "", *_case_table(report, case), *_remarks(report, case), "")


def _against(report: Report, cases: Sequence[Case], rival: str) -> Iterator[str]:
    """Our sides' ratios to one that is not the baseline: a row for each case."""
    found = {
        case.name: {
            side: ratios
            for side in sides_of(report, OURS)
            if rival in case.series and side in case.series and (ratios := case.ratios(side, against=rival))
        }
        for case in cases
    }
    sides = [side for side in report.sides if any(side in ratios for ratios in found.values())]
    if sides:
        metrics = ", ".join(dict.fromkeys(_title(case.metric) for case in cases))
        yield from (f"### Against {_label(report, rival)}: {metrics}, ratio", "")
        rows = [
            [name, *(readable.ratio(ratios[side]) if side in ratios else "-" for side in sides)]
            for name, ratios in found.items()
            if ratios
        ]
        yield from _table(["", *(_label(report, side) for side in sides)], rows)


def _one_table(report: Report, cases: Sequence[Case]) -> Iterator[str]:
    """Of a group with one number for each side: a row for each case."""
    sides = [side for side in report.sides if any(side in case.series for case in cases)]
    compared = [side for side in sides if any(side != case.baseline for case in cases)]
    header = [
        "",
        *(_label(report, side) for side in sides),
        *(f"{_label(report, side)}, ratio" for side in compared),
    ]
    rows = []
    for case in cases:
        metric = METRICS[case.metric]
        values = [case.series[side].values(case.metric) if side in case.series else [] for side in sides]
        ratios = [case.ratios(side) if side in case.series else [] for side in compared]
        rows.append(
            [
                f"{case.name} ({metric.title} {_direction(case.metric)})",
                *(readable.spread(one, metric.unit) if one else "-" for one in values),
                *(readable.ratio(one) if one else "-" for one in ratios),
            ]
        )
    yield from _table(header, rows)


def _case_table(report: Report, case: Case) -> Iterator[str]:
    """A row for each side. What a case is compared by comes first, with its ratio."""
    metrics = _measured(case)
    compared = [metric for metric in compared_metrics(case) if metric in metrics]
    busy = {"server_busy", "generator_busy"} <= set(metrics)
    others = [one for one in metrics if one not in (*compared, "server_busy", "generator_busy")]
    header = ["side"]
    for metric in compared:
        header += [_title(metric), "ratio"]
    header += [_title(metric) for metric in others]
    header += ["CPU of server / generator"] if busy else []
    header += ["system calls ↓", "the most frequent"] if _counted(case) else []
    rows = []
    for side in _sides(report, case):
        series = case.series[side]
        if not any(series.rounds):
            continue
        row = [_label(report, side)]
        for metric in compared:
            row += [_value(series, metric), _ratio(case, side, metric)]
        row += [_value(series, metric) for metric in others]
        row += [_busy(series)] if busy else []
        row += _system_calls(series) if _counted(case) else []
        rows.append(row)
    if rows:
        aligned = "l" + "r" * (len(header) - 2) + ("l" if _counted(case) else "r")
        yield from _table(header, rows, aligned)


def _measured(case: Case) -> list[str]:
    """The metrics that the case has, in the order of METRICS. One that METRICS does not know is an error."""
    names = {name for series in case.series.values() for one in series.rounds for name in one}
    if unknown := names - METRICS.keys():
        raise ValueError(f"METRICS has no {', '.join(sorted(unknown))}")
    return sorted(names, key=list(METRICS).index)


def _counted(case: Case) -> bool:
    return any(series.system_calls for series in case.series.values())


def _sides(report: Report, case: Case) -> list[str]:
    return [side for side in report.sides if side in case.series]


def _label(report: Report, side: str) -> str:
    return report.sides[side].label


def _title(metric: str) -> str:
    """With the unit, unless it stands beside each number."""
    unit = ", /s" if METRICS[metric].unit == "/s" and metric != "per_cpu_second" else ""
    return f"{METRICS[metric].title}{unit} {_direction(metric)}"


def _direction(metric: str) -> str:
    return "↑" if METRICS[metric].more_is_better else "↓"


def _value(series: Series, metric: str) -> str:
    values = series.values(metric)
    if not values:
        return "-"
    bound = "≥ " if metric in ("rate", "bytes_per_second") and series.limited_by_generator() else ""
    return bound + readable.spread(values, METRICS[metric].unit)


def _ratio(case: Case, side: str, metric: str) -> str:
    if side == case.baseline:
        return "baseline"
    ratios = case.ratios(side, metric)
    return readable.ratio(ratios) if ratios else "-"


def _busy(series: Series) -> str:
    medians = (series.median(metric) for metric in ("server_busy", "generator_busy"))
    return " / ".join("-" if one is None else f"{one:.0%}" for one in medians)


def _system_calls(series: Series) -> list[str]:
    calls = sorted(series.system_calls.items(), key=lambda item: (-item[1], item[0]))
    if not calls:
        return ["-", ""]
    most = ", ".join(f"{name} {readable.digits(count)}" for name, count in calls[:SYSTEM_CALLS_NAMED])
    return [readable.digits(sum(series.system_calls.values())), most]


def _remarks(report: Report, case: Case) -> Iterator[str]:
    if case.note:
        yield f"- {case.note}."
    rounds = max((len(series.rounds) for series in case.series.values()), default=0)
    for side in _sides(report, case):
        series, label = case.series[side], _label(report, side)
        if limited := series.limited_by_generator():
            yield (
                f"- {label}: limited by the load generator in {limited} of {len(series.rounds)} rounds. Its "
                "throughput is a lower bound; the number per CPU second still holds."
            )
        if any(series.rounds) and (measured := len(series.values(case.metric))) < rounds:
            yield f"- {label}: measured in {measured} of {rounds} rounds."
        if series.failure:
            yield f"- {label}: {'failed.' if series.rounds else 'skipped:'} {_short(series.failure)}"
        elif not any(series.rounds):
            yield f"- {label}: not measured, and nothing says why."


def _short(text: str) -> str:
    """In one line: how it begins, and its last words."""
    line = without_folders(" ".join(text.split()))
    if len(line) > FAILURE_LENGTH:
        line = f"{line[: FAILURE_LENGTH // 4]} ... {line[-FAILURE_LENGTH * 3 // 4 :]}"
    return line


# --- what was seen, and whether two runs agree ----------------------------------------


def _seen(report: Report) -> Iterator[str]:
    yield from ("## What was seen at work", "")
    yield "Asked of the running programs and looked up from outside, while they were measured."
    yield ""
    where: dict[tuple[str, str], list[str]] = {}
    for side in report.sides:
        for case in report.cases:
            if side in case.series and any(case.series[side].rounds):
                text = case.series[side].seen or "**nothing: do not believe these numbers**"
                where.setdefault((_label(report, side), text), []).append(case.group)
    rows = [(label, text, ", ".join(dict.fromkeys(groups))) for (label, text), groups in where.items()]
    yield from _table(("side", "seen", "in"), rows, "lll")


def _agreement(first: Report, second: Report) -> Iterator[str]:
    both, alone = compare(first, second)
    apart = sorted((one for one in both if not one.agrees), key=lambda one: -one.deviation)
    yield from ("## Do two runs agree?", "")
    yield (
        "The whole suite was run a second time; the numbers above are those of the first run. "
        f"Of {len(both)} ratios to a baseline, {len(both) - len(apart)} agree within {AGREEMENT:.0%}, "
        f"{len(apart)} do not."
    )
    yield ""
    changed = [
        name
        for name in {**first.header, **second.header}
        if first.header.get(name) != second.header.get(name)
    ]
    headers = [(name, first.header.get(name, "-"), second.header.get(name, "-")) for name in changed]
    if headers:
        yield from _table(("differs", "first run", "second run"), headers, "lll")
    groups = {
        group: [one for one in both if one.group == group]
        for group in dict.fromkeys(one.group for one in both)
    }
    if groups:
        yield from _table(("group", "ratios", "median deviation", "largest", "apart"), _deviations(groups))
    if apart:
        header = ("apart", "side", "ratio of", "first run", "second run", "deviation")
        yield from _table(header, _apart(first, apart), "lllrrr")
    if alone:
        yield f"In one of the runs only, and so not compared: {len(alone)} ratios."
        yield ""
        labels = {key: side.label for key, side in {**second.sides, **first.sides}.items()}
        yield from (
            f"- {group}: {case}: {labels[side]}, {METRICS[metric].title}"
            for group, case, side, metric in alone
        )


def _deviations(groups: dict[str, list[Comparison]]) -> Iterator[Sequence[str]]:
    for group, ratios in groups.items():
        deviations = [one.deviation for one in ratios]
        apart = sum(not one.agrees for one in ratios)
        yield group, str(len(ratios)), f"{median(deviations):.1%}", f"{max(deviations):.1%}", str(apart)


def _apart(report: Report, comparisons: Iterable[Comparison]) -> Iterator[Sequence[str]]:
    for one in comparisons:
        yield (
            f"{one.group}: {one.case}",
            _label(report, one.side),
            METRICS[one.metric].title,
            readable.times(one.first),
            readable.times(one.second),
            f"{one.deviation:.0%}",
        )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], aligned: str = "") -> Iterator[str]:
    """The first column to the left, the others to the right, if nothing else is asked for."""
    marks = {"l": "---", "r": "---:"}
    sides = aligned or "l" + "r" * (len(header) - 1)
    yield f"| {' | '.join(header)} |"
    yield f"| {' | '.join(marks[side] for side in sides)} |"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def main(words: Sequence[str]) -> None:
    """The command above, with what stands behind its name."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, help="what a run of the suite has written: results.json")
    parser.add_argument(
        "--second", type=Path, metavar="OTHER.json", help="another run, to compare the ratios with"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="instead of that of the results")
    args = parser.parse_args(words)
    second = Report.load(args.second) if args.second else None
    output = args.output or args.results.parent
    write(Report.load(args.results), output, second)
    print(output / "report.md")
