"""A side's result as JSON, to cross from the process that migrated to the one that compares.

Spans are many: each is written as a row of numbers, with each thread's name once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.device import StateCosts
from migpool.lab.side import SideResult
from migpool.migration.report import DeviceReport, SideReport
from migpool.migration.states import State

__all__ = ["from_json", "to_json"]

_PLAIN = tuple(
    field.name for field in fields(SideReport) if field.name not in ("outcome", "devices", "spans", "remarks")
)


def to_json(result: SideResult) -> dict[str, object]:
    """What ``json.dumps`` takes and :func:`from_json` gives back."""
    report = result.report
    plain: dict[str, object] = {name: getattr(report, name) for name in _PLAIN}
    return {
        "report": plain
        | {
            "outcome": report.outcome.value,
            "devices": [asdict(device) for device in report.devices],
            "remarks": list(report.remarks),
            "spans": _rows(report.spans),
        },
        "costs": [None if costs is None else asdict(costs) for costs in result.costs],
        "closing": result.closing,
    }


def from_json(form: dict[str, Any]) -> SideResult:
    """The result again.

    Arguments:
        form: what :func:`to_json` made, after ``json.loads``.
    """
    report = form["report"]
    return SideResult(
        report=SideReport(
            **{name: report[name] for name in _PLAIN},
            outcome=State(report["outcome"]),
            devices=tuple(DeviceReport(**device) for device in report["devices"]),
            spans=tuple(_spans(report["spans"])),
            remarks=tuple(report["remarks"]),
        ),
        costs=tuple(None if costs is None else StateCosts(**costs) for costs in form["costs"]),
        closing=form["closing"],
    )


def _rows(spans: Sequence[Span]) -> dict[str, list[Any]]:
    threads = sorted({span.thread for span in spans})
    number = {name: at for at, name in enumerate(threads)}
    return {
        "threads": threads,
        "rows": [[int(span.wait), span.slot, span.index, span.begin, span.end, number[span.thread]] for span in spans],
    }


def _spans(form: dict[str, list[Any]]) -> list[Span]:
    threads = form["threads"]
    return [
        Span(Wait(wait), slot, index, begin, end, threads[thread])
        for wait, slot, index, begin, end, thread in form["rows"]
    ]
