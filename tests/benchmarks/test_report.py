"""The benchmarks' report says what the numbers say: on results that are made up here."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

pytest.importorskip("matplotlib")

from groups import fairness, files, network, tls
from groups.plan import SCALES
from measure import agreement, percentiles
from measure.machine import how_built
from measure.programs import Programs
from report import charts, overview, readable, style, summary
from report.model import METRICS, Case, Report, Series, Side
from report.text import write
from sides.runtimes import RUNTIMES

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

SIDES = {
    "trio-epoll": Side("Trio, epoll", "trio-epoll"),
    "trio-uring": Side("Trio, io_uring", "trio-uring"),
    "uvloop": Side("uvloop", "uvloop"),
    "uvloop-protocols": Side("uvloop, protocols", "uvloop"),
    "limit": Side("C", "limit"),
}


def series(*values: float | None, metric: str = "rate", **others: float) -> Series:
    """A round for each value; None is one that failed."""
    return Series([{} if one is None else {metric: one, **others} for one in values], "epoll, seen")


def case(
    sides: dict[str, Series],
    metric: str = "rate",
    group: str = "udp",
    name: str = "64 B",
    **parameters: float,
) -> Case:
    return Case(group, name, "trio-epoll", metric, sides, parameters)


def made_of(*cases: Case) -> Report:
    return Report({"machine": "of straw"}, SIDES, list(cases))


def written(result: Report, folder: Path, second: Report | None = None) -> str:
    write(result, folder, second)
    return (folder / "report.md").read_text()


def row(text: str, label: str, after: str = "") -> list[str]:
    """The cells of the first row of the side, from a heading on."""
    found = re.search(rf"^\| {re.escape(label)} \| (.*) \|$", text[text.index(after) :], re.MULTILINE)
    assert found, text
    return found[1].split(" | ")


# --- tables ---------------------------------------------------------------------------


def test_table_has_medians_ranges_and_ratios_of_rounds(tmp_path: Path) -> None:
    sides = {
        "trio-epoll": series(10, 20, 100, per_cpu_second=1000.0),
        "trio-uring": series(20, 10, 150, per_cpu_second=2500.0),
    }
    text = written(made_of(case(sides)), tmp_path)
    assert row(text, "Trio, epoll", "### 64 B")[:2] == ["20.0 [10.0-100]", "baseline"]
    # The ratio of the medians would be 1.
    assert row(text, "Trio, io_uring", "### 64 B")[:2] == ["20.0 [10.0-150]", "1.50 [0.50-2.00]"]
    assert row(text, "Trio, io_uring", "### 64 B")[2:4] == ["2,500 [2,500-2,500]", "2.50 [2.50-2.50]"]


def test_rounds_after_a_failed_one_keep_their_partners(tmp_path: Path) -> None:
    failing = series(20, None, 300)
    failing.failure = "round 2: it broke"
    one = case({"trio-epoll": series(10, 1000, 100), "trio-uring": failing})
    assert one.ratios("trio-uring") == [2.0, 3.0]
    text = written(made_of(one), tmp_path)
    assert "- Trio, io_uring: measured in 2 of 3 rounds." in text
    assert "- Trio, io_uring: failed. round 2: it broke" in text


def test_side_without_numbers_is_told_with_the_reason(tmp_path: Path) -> None:
    sides = {
        "trio-epoll": series(10, per_cpu_second=1.0),
        "uvloop": Series(failure="does not\nsupport | it"),
        "limit": Series(),
    }
    text = written(made_of(case(sides)), tmp_path)
    assert "- uvloop: skipped: does not support | it" in text
    assert "- C: not measured, and nothing says why." in text
    assert "| uvloop |" not in text
    assert "Failed, or skipped, in some case: uvloop." in text


def test_metric_that_one_side_lacks_is_a_dash(tmp_path: Path) -> None:
    rare = {"p99.9": 0.001}
    sides = {"trio-epoll": series(10, p50=5e-5, **rare), "trio-uring": series(10, p50=5e-5)}
    text = written(made_of(case(sides)), tmp_path)
    assert row(text, "Trio, epoll", "### 64 B")[-2:] == ["50.0 us", "1.00 ms"]
    assert row(text, "Trio, io_uring", "### 64 B")[-2:] == ["50.0 us", "-"]


def test_unknown_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="p42"):
        written(made_of(case({"trio-epoll": series(10, p42=1.0)})), tmp_path)


def test_throughput_that_the_load_generator_limited_is_marked(tmp_path: Path) -> None:
    idle_server = {"rate": 10.0, "generator_busy": 0.99, "server_busy": 0.5}
    busy_server = {**idle_server, "server_busy": 0.99}
    sides = {
        "trio-epoll": Series([busy_server] * 3, "seen"),
        "limit": Series([idle_server, busy_server, idle_server], "seen"),
    }
    text = written(made_of(case(sides)), tmp_path)
    assert "- C: limited by the load generator in 2 of 3 rounds." in text
    assert "- Trio, epoll: limited" not in text
    assert row(text, "C", "### 64 B")[0].startswith("≥ ")
    assert not row(text, "Trio, epoll", "### 64 B")[0].startswith("≥ ")
    assert "In 1 series the load generator had no CPU to spare" in text


def test_table_tells_which_side_of_the_load_was_busy(tmp_path: Path) -> None:
    rounds = [{"rate": 1.0, "server_busy": busy, "generator_busy": 0.5} for busy in (0.2, 0.7, 0.99)]
    text = written(made_of(case({"trio-epoll": Series(rounds, "seen")})), tmp_path)
    assert row(text, "Trio, epoll", "### 64 B")[-1] == "70% / 50%"


def test_system_calls_are_summed_and_the_most_frequent_named(tmp_path: Path) -> None:
    one = series(10)
    one.system_calls = {"futex": 0.25, "recvfrom": 1.0, "sendto": 1.0, "epoll_wait": 0.5}
    cells = row(written(made_of(case({"trio-epoll": one})), tmp_path), "Trio, epoll", "### 64 B")
    assert cells[-2:] == ["2.75", "recvfrom 1.00, sendto 1.00, epoll_wait 0.500"]


def test_group_with_one_number_for_each_side_is_one_table(tmp_path: Path) -> None:
    cases = [
        case(
            {
                "trio-epoll": series(2e-6, metric="seconds"),
                "trio-uring": series(1e-6, metric="seconds"),
            },
            "seconds",
            "micro",
            name,
        )
        for name in ("tick", "tock")
    ]
    text = written(made_of(*cases), tmp_path)
    assert row(text, "tick (time ↓)") == ["2.00 us", "1.00 us", "0.50"]
    assert "### tick" not in text


def test_echo_is_compared_with_uvloop_round_by_round(tmp_path: Path) -> None:
    def echoed(name: str, **sides: Series) -> Case:
        keys = {"epoll": "trio-epoll", "uring": "trio-uring", "budget": "trio-uring-budget"}
        return case({keys.get(side, side): one for side, one in sides.items()}, "rate", "echo", name)

    result = made_of(
        echoed("a", epoll=series(1, 1), uring=series(20, 10), budget=series(40, 80), uvloop=series(10, 20)),
        echoed("b", epoll=series(1), uring=series(30), uvloop=series(10)),
        echoed("without us", epoll=series(1), uvloop=series(10)),
        echoed("without it", epoll=series(1), uring=series(10)),
    )
    result.sides = {**SIDES, "trio-uring-budget": Side("budget 16", "trio-uring")}
    text = written(result, tmp_path)
    heading = "### Against uvloop: throughput, /s ↑, ratio"
    assert f"{heading}\n\n|  | Trio, io_uring | budget 16 |" in text
    assert row(text, "a", heading) == ["1.25 [0.50-2.00]", "4.00 [4.00-4.00]"]
    assert row(text, "b", heading) == ["3.00", "-"]
    table = text[text.index(heading) : text.index("## What was seen")]
    assert "without" not in table
    assert "Against uvloop:" not in written(made_of(ratio_of(2.0)), tmp_path)


def test_what_was_seen_is_told_once_for_each_side_and_text(tmp_path: Path) -> None:
    unseen = series(10)
    unseen.seen = ""
    cases = [
        case({"trio-epoll": series(10), "uvloop": unseen}, group="udp"),
        case({"trio-epoll": series(10)}, group="tls"),
    ]
    text = written(made_of(*cases), tmp_path)
    assert text.count("epoll, seen") == 1
    assert row(text, "Trio, epoll", "## What was seen") == ["epoll, seen", "udp, tls"]
    assert "do not believe" in row(text, "uvloop", "## What was seen")[0]


def test_report_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    broken = Series(
        failure=f"{sys.executable} -m x --in /home/somebody/data/x.bin\n'/opt/y/z.py', see /proc/1/stat"
    )
    result = made_of(case({"trio-epoll": series(10), "uvloop": broken}))
    result.notes.append(f"{tmp_path}/scratch is small")
    text = written(result, tmp_path, result)
    assert str(tmp_path) not in text
    assert re.findall(r"(?<![\w.])/[\w./]+", text) == ["/proc/1/stat"]
    assert "--in x.bin 'z.py', see /proc/1/stat" in text


# --- in brief -------------------------------------------------------------------------


def test_brief_counts_and_names_what_is_better_and_worse() -> None:
    def against_epoll(name: str, *ours: float) -> Case:
        return case({"trio-epoll": series(*[10.0] * len(ours)), "trio-uring": series(*ours)}, name=name)

    result = made_of(
        against_epoll("better", 11, 12, 13),
        against_epoll("worse", 7, 8, 9),
        against_epoll("mixed", 9, 11, 12),
        against_epoll("two rounds", 20, 20),
    )
    text = "\n".join(summary.in_brief(result))
    best, worst = "2.00 [2.00-2.00] in udp: two rounds", "0.80 [0.70-0.90] in udp: worse"
    assert row(text, "Trio, epoll") == ["4", "1", "1", "2", best, worst]
    assert "- Below Trio, epoll by the median: udp, 1 of 4 (0.80 in worse)." in text


def test_brief_of_times_counts_less_as_better() -> None:
    sides = {side: series(*values, metric="seconds") for side, values in TIMES.items()}
    text = "\n".join(summary.in_brief(made_of(case(sides, "seconds"))))
    assert row(text, "Trio, epoll")[1:3] == ["1", "0"]
    assert row(text, "uvloop")[1:3] == ["0", "1"]
    assert "Below Trio" not in text


TIMES = {"trio-epoll": (4.0, 4.0, 4.0), "trio-uring": (2.0, 2.0, 2.0), "uvloop": (1.0, 1.0, 1.0)}


def test_brief_groups_what_is_worse_everywhere() -> None:
    cases = [
        case({"trio-epoll": series(1), "uvloop": series(10), "trio-uring": series(ours)}, name=str(ours))
        for ours in (2, 5)
    ]
    assert "- Below uvloop by the median: udp, all 2 (0.20-0.50)." in summary.in_brief(made_of(*cases))


def test_brief_says_where_the_limit_is_none() -> None:
    slow = case({"trio-epoll": series(1), "uvloop": series(12), "limit": series(10)}, name="slow")
    fast = case({"trio-epoll": series(1), "uvloop": series(12), "limit": series(13)}, name="fast")
    found = [line for line in summary.in_brief(made_of(slow, fast)) if "limit is not one" in line]
    assert found == ["- udp: slow: **the limit is not one here**. Above C (throughput): uvloop (1.20)."]


def test_brief_says_that_nothing_has_no_ratio() -> None:
    sides = {
        "trio-epoll": series(0.1, 0.1, 0.1, metric="cpu_share"),
        "trio-uring": series(0.0, 0.0, 0.0, metric="cpu_share"),
    }
    (line,) = (one for one in summary.in_brief(made_of(case(sides, "cpu_share"))) if one)
    assert "CPU while idle is 0 for Trio, io_uring" in line


# --- two runs -------------------------------------------------------------------------


def ratio_of(ratio: float, name: str = "64 B") -> Case:
    return case({"trio-epoll": series(1.0), "trio-uring": series(ratio)}, name=name)


@pytest.mark.parametrize(
    ("first", "second", "agrees"),
    [
        (1.0, 1.2, True),
        (1.2, 1.0, True),
        (2.7, 2.25, True),  # 1.2000000000000002 in floats
        (0.5, 0.6, True),
        (1.0, 1.2001, False),
        (1.2001, 1.0, False),
        (0.8, 1.0, False),
        (1.0, 1.0, True),
        (0.0, 0.0, True),
        (0.0, 0.1, False),
    ],
)
def test_two_ratios_agree_up_to_a_fifth_above_the_smaller(first: float, second: float, agrees: bool) -> None:
    (both,), alone = agreement.compare(made_of(ratio_of(first)), made_of(ratio_of(second)))
    assert both.agrees is agrees
    assert not alone


def test_report_lists_ratios_that_do_not_agree(tmp_path: Path) -> None:
    first = made_of(ratio_of(1.0, "same"), ratio_of(1.0, "apart"), ratio_of(1.0, "only here"))
    second = made_of(ratio_of(1.1, "same"), ratio_of(1.5, "apart"))
    second.header["machine"] = "of gold"
    text = written(first, tmp_path, second)
    text = text[text.index("## Do two runs agree?") :]
    assert "Of 2 ratios to a baseline, 1 agree within 20%, 1 do not." in text
    assert row(text, "machine") == ["of straw", "of gold"]
    assert row(text, "udp") == ["2", "30.0%", "50.0%", "1"]
    assert row(text, "udp: apart") == ["Trio, io_uring", "throughput", "1.00", "1.50", "50%"]
    assert "udp: same" not in text
    assert "- udp: only here: Trio, io_uring, throughput" in text


def test_both_ratios_of_a_case_are_compared() -> None:
    def run(per_cpu_second: float) -> Report:
        ours = series(1.0, per_cpu_second=per_cpu_second)
        return made_of(case({"trio-epoll": series(1.0, per_cpu_second=1.0), "trio-uring": ours}))

    both, _ = agreement.compare(run(1.0), run(2.0))
    assert [(one.metric, one.agrees) for one in both] == [("rate", True), ("per_cpu_second", False)]


# --- charts ---------------------------------------------------------------------------


def echo(connections: int, *sides: str) -> Case:
    return case(
        {side: series(10, 20, 30, metric="per_cpu_second", p50=1e-4) for side in sides or SIDES},
        "per_cpu_second",
        "echo",
        f"streams, 64 B, {connections:,} connections",
        connections=connections,
        size=64,
    )


def drawn(result: Report, folder: Path) -> set[str]:
    paths = charts.draw(result, folder)
    assert {path.suffix for path in paths} <= {".svg", ".png"}
    assert all(path.stat().st_size > 1000 for path in paths)
    return {path.stem for path in paths}


def test_only_groups_that_were_run_are_drawn(tmp_path: Path) -> None:
    assert drawn(made_of(), tmp_path) == set()
    assert drawn(made_of(echo(50)), tmp_path) == {"overview", "echo", "echo-latency"}
    assert drawn(made_of(echo(50), echo(5000)), tmp_path) == {
        "overview",
        "echo",
        "echo-latency",
        "echo-connections",
    }
    assert drawn(made_of(echo(50, "trio-epoll", "uvloop")), tmp_path) == {"echo", "echo-latency"}


def test_failed_series_are_not_drawn(tmp_path: Path) -> None:
    broken = case({side: Series(failure="broken") for side in SIDES}, group="tls")
    assert drawn(made_of(broken), tmp_path) == set()


def test_report_shows_the_pictures_that_were_drawn(tmp_path: Path) -> None:
    text = written(made_of(echo(50), echo(500), ratio_of(2.0)), tmp_path)
    shown = re.findall(r"\]\((charts/[\w-]+\.\w+)\)", text)
    assert len(shown) == len(set(shown))
    assert set(shown) == {str(path.relative_to(tmp_path)) for path in (tmp_path / "charts").iterdir()}


def test_pictures_name_every_side_and_the_direction(tmp_path: Path) -> None:
    drawn(made_of(echo(50), echo(5000)), tmp_path)
    for name in ("echo", "echo-connections", "echo-latency"):
        text = (tmp_path / f"{name}.svg").read_text()
        for key, side in SIDES.items():
            is_one = name == "echo" and key == "trio-epoll"
            assert (f">times {side.label} (right" if is_one else f">{side.label}</text>") in text
        assert "is better" in text


def test_the_best_peer_of_a_row_is_bold(tmp_path: Path) -> None:
    times = {"trio-epoll": 10, "trio-uring": 20, "uvloop": 30, "uvloop-protocols": 5, "limit": 40}
    drawn(made_of(case({side: series(value) for side, value in times.items()}, group="files")), tmp_path)
    text = (tmp_path / "files.svg").read_text()
    fonts = {number: font for font, number in re.findall(r'<text style="([^"]*)"[^>]*>([\d.]+)<', text)}
    bold = [number for number in ("2.00", "3.00", "0.50", "4.00") if "700" in fonts[number]]
    assert bold == ["3.00"]


def test_overview_is_a_few_cases_by_names_for_readers(tmp_path: Path) -> None:
    other = attrs.evolve(echo(50), name="sockets, 64 B, 50 connections")
    drawn(made_of(echo(50), other), tmp_path)
    text = (tmp_path / "overview.svg").read_text()
    assert ">echo, 50 connections</text>" in text
    assert ">trio-uring</text>" in text
    assert "sockets" not in text
    assert "asyncio" not in text  # which was not measured
    assert "Files" not in text


def test_overview_finds_each_of_its_cases_in_the_full_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "programs", lambda: Programs(Path(), Path(), tls=True))
    monkeypatch.setattr(shutil, "which", lambda name: name)  # nothing is run
    for name in ("write", "write_blocks", "write_lines"):
        monkeypatch.setattr(files, name, lambda *_: None)
    scale = SCALES["full"]
    planned = files.plan(scale, tmp_path)
    for plan in (network.echo, network.http, tls.plan, network.connections, network.udp):
        planned += plan(scale)
    for part in overview.PARTS:
        for group, name in part.rows.values():
            (one,) = [one for one in planned if one.case.group == group and re.fullmatch(name, one.case.name)]
            measured = part.columns.keys() & {*one.jobs, *one.case.series}
            assert one.case.baseline in one.jobs
            assert len(measured) >= 3


def test_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        written(made_of(echo(50), echo(5000)), tmp_path / folder)
    first = {path.name: path.read_bytes() for path in (tmp_path / "a").rglob("*.*")}
    assert len(first) == 9
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "b").rglob("*.*")}


def test_every_chart_finds_cases_in_the_full_suite() -> None:
    scale = SCALES["full"]
    plans = (
        network.echo,
        network.http,
        network.connections,
        network.udp,
        network.scale_of_connections,
        network.idle,
        fairness.plan,
    )
    planned = [one.case for plan in plans for one in plan(scale)]
    planned += [case({}, group=group) for group in ("micro", "files", "pipes", "tls")]
    for name, chart in charts.CHARTS.items():
        found = [
            one for one in planned if chart.group in (None, one.group) and re.fullmatch(chart.cases, one.name)
        ]
        assert found, name
        if chart.over:
            assert len({one.parameters[chart.over] for one in found}) > 1, name
        assert not chart.metric or chart.metric in METRICS


def test_every_family_has_a_colour_of_its_own() -> None:
    assert len(set(style.COLOURS.values())) == len(style.COLOURS)
    assert {side.family for side in files.SIDES.values()} <= set(style.COLOURS)
    assert {runtime.family for runtime in RUNTIMES.values()} <= set(style.COLOURS)


def test_sides_of_a_family_share_the_colour_and_nothing_else() -> None:
    styles = style.styles(SIDES)
    streams, protocols = styles["uvloop"], styles["uvloop-protocols"]
    assert streams.colour == protocols.colour
    assert streams.hatch != protocols.hatch
    assert streams.line != protocols.line
    assert streams.marker != protocols.marker


@pytest.mark.parametrize(
    "heights", [[0.1, 0.5, 0.9], [0.5] * 5, [0.0, 0.0, 0.01], [0.97, 0.99, 1.0, 1.0], [0.2, 0.21, 0.29]]
)
def test_names_at_the_ends_of_lines_are_apart(heights: list[float]) -> None:
    moved = charts.apart(heights, 0.1)
    assert len(moved) == len(heights)
    assert all(high - low >= 0.1 - 1e-9 for low, high in itertools.pairwise(moved))
    assert moved[0] > -1e-9
    assert moved[-1] < 1 + 1e-9
    if heights == [0.1, 0.5, 0.9]:
        assert moved == heights


# --- numbers, and the file ------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "told"), [(0, []), (19, []), (20, ["p50"]), (999, ["p50"]), (1000, ["p50", "p99"])]
)
def test_percentile_needs_ten_samples_beyond_it(samples: int, told: list[str]) -> None:
    found = percentiles.percentiles([float(number) for number in range(samples, 0, -1)])
    assert list(found) == told
    for name, value in found.items():
        assert value == math.ceil(samples * percentiles.SHARES[name])


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (12345.0, "/s", "12,300"),
        (9.996, "/s", "10.0"),
        (0.0, "/s", "0"),
        (0.00123, "s", "1.23 ms"),
        (4.56e-5, "s", "45.6 us"),
        (12e-9, "s", "12.0 ns"),
        (3 * 2**20, "B", "3.00 MiB"),
        (1.5 * 2**30, "B/s", "1.50 GiB/s"),
        (0.0123, "", "1.23%"),
    ],
)
def test_numbers_have_three_digits_and_a_unit_that_fits(value: float, unit: str, text: str) -> None:
    assert readable.number(value, unit) == text


def test_small_ratios_keep_two_digits() -> None:
    assert readable.ratio([0.012345, 0.5, 0.0]) == "0.012 [0.00-0.50]"


def test_range_has_the_unit_of_the_median() -> None:
    assert readable.spread([0.0009, 0.002, 0.001], "s") == "1.00 ms [0.900-2.00]"


def test_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    one = echo(50)
    one.note = "a note"
    one.series["uvloop"].failure = "broken"
    one.series["uvloop"].system_calls = {"read": 1.0}
    result = made_of(one, ratio_of(2.0))
    result.notes.append("a tool is missing")
    result.save(tmp_path / "results.json")
    assert Report.load(tmp_path / "results.json") == result


def test_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    made_of().save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))
    with pytest.raises(ValueError, match="another version"):
        Report.load(path)


def test_report_is_made_from_the_command_line(tmp_path: Path) -> None:
    made_of(ratio_of(1.0)).save(tmp_path / "results.json")
    made_of(ratio_of(2.0)).save(tmp_path / "other.json")
    program, output = [str(BENCHMARKS), "report"], tmp_path / "new" / "folder"
    options = ["--second", str(tmp_path / "other.json"), "--output", str(output)]
    done = subprocess.run(
        [sys.executable, *program, str(tmp_path / "results.json"), *options],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 do not." in (output / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "shared", "mapped", "says"),
    [
        ("'--enable-optimizations' '--with-lto'", False, "", "configured with --enable-optimizations"),
        ("'--prefix=/opt'", False, "", "configured without --enable-optimizations"),
        ("'--enable-shared'", True, "r-xp /opt/lib/libpython3.13.so.1.0", "configured without"),
        ("'--enable-shared'", True, "r-xp /usr/bin/python3.13", "which sysconfig does not describe"),
    ],
)
def test_an_interpreter_is_called_optimised_only_if_it_is_known(
    arguments: str, shared: bool, mapped: str, says: str
) -> None:
    assert says in how_built(arguments, shared=shared, mapped=mapped)
