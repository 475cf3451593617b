"""The overview: the dozen cases that say most, each beside what its users would take instead.

Of a run that left cases out, what is there is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

from report.model import Case, Report
from report.points import Panel, Row
from report.summary import OURS


@attrs.frozen
class Part:
    title: str
    axis: str
    columns: dict[str, str]
    """Sides, and what they are called here."""
    rows: dict[str, tuple[str, str]]
    """By what a reader sees: the group, and a regular expression that the case's name has to match."""


PARTS = (
    Part(
        "Servers: requests per CPU second",
        "times Trio on epoll",
        {
            "trio-uring": "trio-uring",
            "trio-uring-budget": "with a\nbudget of 16",
            "uvloop": "uvloop,\nstreams",
            "asyncio": "asyncio,\nstreams",
        },
        {
            "echo, 1 connection": ("echo", "streams, 64 B, 1 connection"),
            "echo, 50 connections": ("echo", "streams, 64 B, 50 connections"),
            "echo, 500 connections": ("echo", "streams, 64 B, 500 connections"),
            "HTTP, 256 connections": ("http", "streams, 256 connections"),
            "hypercorn, 256 connections": ("http", "hypercorn, 256 connections"),
            "echo over TLS, 50 connections": ("tls", "echo, TLS 1.3, 64 B, 50 connections"),
            "connect, one request, close": ("connections", "connect, .*"),
            "UDP queries": ("udp", ".* queries, [^;]*"),
        },
    ),
    Part(
        "Files in the page cache: operations per second",
        "times Trio's files on epoll",
        {
            "trio-uring-files": "trio_uring\nfiles",
            "trio-uring-budget-files": "with a\nbudget of 16",
            "turbofile": "turbofile",
            "asyncfiles": "asyncfiles",
            "aiofile": "aiofile",
            "aiofiles": "aiofiles",
        },
        {
            "random reads of 4 KiB, 64 tasks": ("files", "random 4 KiB reads, 64 tasks, warm cache"),
            "small files, opened, read, closed": ("files", "[0-9,]+ small files read, .*"),
            "small files by Path.read_bytes": ("files", "[0-9,]+ small files by Path.read_bytes, .*"),
            "read from end to end, by 256 KiB": ("files", "sequential read, 256 KiB at a time, warm cache"),
            "written from end to end, by 256 KiB": ("files", "sequential write, 256 KiB at a time"),
            "lines of a text file": ("files", "lines of a text file"),
        },
    ),
)


def shows(report: Report, case: Case) -> bool:
    """Whether the case has a row: it is named above, and a side of ours was measured in it."""
    return any(
        report.sides[side].family == OURS
        for part in PARTS
        if _label(part, case)
        for side in _values(part, case)
    )


def panels(cases: list[Case]) -> list[Panel]:
    """Of the cases that it shows."""
    found = [
        Panel(part.title, part.axis, part.columns, rows) for part in PARTS if (rows := [*_rows(part, cases)])
    ]
    return [
        attrs.evolve(
            panel,
            columns={
                side: name
                for side, name in panel.columns.items()
                if any(side in row.values for row in panel.rows)
            },
        )
        for panel in found
    ]


def _rows(part: Part, cases: list[Case]) -> Iterator[Row]:
    for label in part.rows:
        yield from (Row(label, _values(part, case)) for case in cases if _label(part, case) == label)


def _label(part: Part, case: Case) -> str:
    """Empty if the case has no row there."""
    for label, (group, name) in part.rows.items():
        if case.group == group and re.fullmatch(name, case.name):
            return label
    return ""


def _values(part: Part, case: Case) -> dict[str, list[float]]:
    found = {side: case.advantages(side) for side in part.columns if side in case.series}
    return {side: values for side, values in found.items() if values}
