"""Hand-made traces, whose truth is known: times in ms, devices by letter."""

from __future__ import annotations

from collections.abc import Sequence

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.device import Side
from migpool.lab.analysis.attribution import Attribution
from migpool.lab.analysis.critical_path import attribute
from migpool.migration.report import DeviceReport, SideReport
from migpool.migration.states import State

NAMES = ("a", "b", "c", "s", "t")
"""Three iterable devices, then two that are not."""

MS = 1_000_000

Row = tuple[Wait, int, int, float, float, str]
"""Kind of wait, slot, chunk, begin and end in ms, thread."""

Expected = tuple[float, float, str, str, str]
"""Begin and end in ms, kind, device, behind whom."""


def side_report(
    side: Side,
    rows: Sequence[Row] = (),
    *,
    stopped: float = 0.0,
    running: float = 0.0,
    outcome: State = State.COMPLETED,
    sizes: int = 0,
) -> SideReport:
    """A report with these spans."""
    spans = [Span(wait, slot, index, ns(begin), ns(end), thread) for wait, slot, index, begin, end, thread in rows]
    return SideReport(
        side=side,
        outcome=outcome,
        error="",
        began=ns(0.0),
        stopped=ns(stopped) if side == "source" else 0,
        running=ns(running) if running else 0,
        ended=ns(running),
        clock="",
        bytes=0,
        threads_peak=1,
        budget=0,
        high_water=0,
        rss_peak=0,
        devices=tuple(DeviceReport(name, "", name < "s", bytes=sizes) for name in NAMES),
        spans=tuple(sorted(spans, key=lambda span: (span.begin, span.end))),
    )


def ns(milliseconds: float) -> int:
    """Times count from one second, so that none of them is 0, which means "never" in a report."""
    return round((milliseconds + 1000) * MS)


def split(source: Sequence[Row], destination: Sequence[Row], *, stopped: float, running: float) -> Attribution:
    """The attribution of two hand-made traces."""
    return attribute(
        side_report("source", source, stopped=stopped, running=running),
        side_report("destination", destination, running=running),
    )


def told(attribution: Attribution) -> list[Expected]:
    """The links, as a test writes them down."""
    return [
        ((link.begin - ns(0)) / MS, (link.end - ns(0)) / MS, link.kind, link.device, link.behind)
        for link in attribution.links
    ]
