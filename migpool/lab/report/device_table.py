"""The devices of a run, one row each: the same cells on the terminal and on the page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from rich.table import Table
from rich.text import Text

from migpool.lab.report.table import plain_table
from migpool.lab.run.result import RunResult
from migpool.migration.report import DeviceReport
from migpool.units import format_duration, format_size

Cell: TypeAlias = tuple[str, Literal["", "number", "bad"]]
"""What a cell says, and how it looks."""

LEAST = 0.05
"""Milliseconds on the critical path from which on a device that is not iterable has a row."""


def _verified(told: DeviceReport, path_ms: float) -> Cell:
    del path_ms
    if told.verified is None:
        return "no fingerprint", ""
    return ("yes", "") if told.verified else ("NO", "bad")


COLUMNS: Mapping[str, Callable[[DeviceReport, float], Cell]] = {
    "Device": lambda told, _: (told.name, ""),
    "What it is": lambda told, _: (told.note or ("iterable" if told.iterable else ""), ""),
    "State sent": lambda told, _: (format_size(told.bytes), "number"),
    "On the critical path": lambda _, path_ms: (format_duration(path_ms / 1e3), "number"),
    "Verified": _verified,
}
"""By heading, what a cell says of what the sides reported of a device, and of its milliseconds on the critical path."""


def device_rows(run: RunResult) -> list[list[Cell]]:
    """A row for each device that is worth one, those longest on the critical path first; and one for all others.

    Arguments:
        run: one with an ``analysis``.
    """
    assert run.analysis is not None
    path: defaultdict[str, float] = defaultdict(float)
    for link in run.analysis.path:
        path[link.device] += link.end_ms - link.begin_ms
    shown = [one for one in run.devices if one.iterable or path[one.name] >= LEAST or one.verified is False]
    shown.sort(key=lambda one: -path[one.name])
    rows = [[cell(one, path[one.name]) for cell in COLUMNS.values()] for one in shown]
    if len(shown) < len(run.devices):
        rest = (f"and {len(run.devices) - len(shown)} more", "not on the critical path")
        rows.append([(text, "") for text in (*rest, *[""] * (len(COLUMNS) - len(rest)))])
    return rows


def device_table(run: RunResult) -> Table:
    table = plain_table()
    rows = device_rows(run)
    for at, heading in enumerate(COLUMNS):
        number = any(row[at][1] == "number" for row in rows)
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(Text(text, style="bold red" if kind == "bad" else "") for text, kind in row))
    return table
