"""The devices of a run, one row each: the same cells on the terminal and on the page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class DeviceOfRun:
    """What a row is about. ``path_ms``: how long the device was on the critical path."""

    told: DeviceReport
    path_ms: float


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading, and what it says of a device."""

    heading: str
    cell: Callable[[DeviceOfRun], Cell]


def _verified(one: DeviceOfRun) -> Cell:
    if one.told.verified is None:
        return "no fingerprint", ""
    return ("yes", "") if one.told.verified else ("NO", "bad")


COLUMNS = (
    Column("Device", lambda one: (one.told.name, "")),
    Column("What it is", lambda one: (one.told.note or ("iterable" if one.told.iterable else ""), "")),
    Column("State sent", lambda one: (format_size(one.told.bytes), "number")),
    Column("On the critical path", lambda one: (format_duration(one.path_ms / 1e3), "number")),
    Column("Verified", _verified),
)


def device_rows(run: RunResult) -> list[list[Cell]]:
    """A row for each device that is worth one, those longest on the critical path first; and one for all others.

    Arguments:
        run: one with an ``analysis``.
    """
    assert run.analysis is not None
    path: defaultdict[str, float] = defaultdict(float)
    for link in run.analysis.path:
        path[link.device] += link.end_ms - link.begin_ms
    devices = [DeviceOfRun(one, path[one.name]) for one in run.devices]
    shown = [one for one in devices if one.told.iterable or one.path_ms >= LEAST or one.told.verified is False]
    rows = [[column.cell(one) for column in COLUMNS] for one in sorted(shown, key=lambda one: -one.path_ms)]
    if len(shown) < len(devices):
        rest = (f"and {len(devices) - len(shown)} more", "not on the critical path")
        rows.append([(text, "") for text in (*rest, *[""] * (len(COLUMNS) - len(rest)))])
    return rows


def device_table(run: RunResult) -> Table:
    table = plain_table()
    rows = device_rows(run)
    for at, column in enumerate(COLUMNS):
        number = any(row[at][1] == "number" for row in rows)
        table.add_column(column.heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(Text(text, style="bold red" if kind == "bad" else "") for text, kind in row))
    return table
