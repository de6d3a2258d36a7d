"""One downtime that was explained by QEMU's logs, on a terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from migpool.lab.report.summary import checkpoint_rows, foundations, headline
from migpool.lab.report.table import LOCK, device_table, plain_table
from migpool.lab.report.time_line import switchover
from migpool.lab.run.result import LabResult, RunResult
from migpool.units import format_duration

NOTICEABLE: Final = 0.005
"""The share of the downtime that a part must have to be named."""
MOST_FREED: Final = 8
MOST_HOLDERS: Final = 3


def render_explained(result: LabResult, width: int) -> RenderableType:
    """What limits the downtime, where it went, what would shorten it, the devices, and what it rests on."""
    return Group(*_parts(result, width))


def _parts(result: LabResult, width: int) -> Iterator[RenderableType]:
    (run,) = result.runs
    assert run.analysis is not None
    downtime = run.downtime_ms or 0.0
    yield Text(headline(result), style="bold")
    yield Text("\nWhere it went, along the critical path", style="bold")
    table = plain_table()
    for heading in ("Kind", "Time", "Share"):
        table.add_column(heading, justify="left" if heading == "Kind" else "right")
    for kind, spent in run.attribution.items():
        if spent >= NOTICEABLE * downtime:
            table.add_row(kind, format_duration(spent / 1e3), f"{100 * spent / downtime:.0f} %")
            if kind == LOCK:
                for row in _holders(run, downtime):
                    table.add_row(*row)
    yield table
    yield Text("\nCheckpoints", style="bold")
    table = plain_table("Checkpoint", "At", "Since the one before")
    for row in checkpoint_rows(run):
        table.add_row(*row)
    yield table
    worth = [one for one in run.analysis.resources if one.shorter_ms >= NOTICEABLE * downtime]
    if worth:
        yield Text("\nIf it were free, by itself (the parts do not add up)", style="bold")
        table = plain_table()
        for heading in ("What", "Side", "Shorter by", "Share"):
            table.add_column(heading, justify="left" if heading in ("What", "Side") else "right")
        for one in worth[:MOST_FREED]:
            share = f"{100 * one.shorter_ms / downtime:.0f} %"
            table.add_row(one.resource, one.side or "both", format_duration(one.shorter_ms / 1e3), share)
        yield table
    yield Text("\nDevices", style="bold")
    yield device_table(run, width)
    if (drawn := switchover(result, width)) is not None:
        yield drawn
    yield Text()
    for term, text in foundations(result):
        yield Text(f"{term:<12} {text}")


def _holders(run: RunResult, downtime: float) -> Iterator[tuple[str, str, str]]:
    """Who held the lock that was waited for, and who waited: the longest ones."""
    assert run.analysis is not None
    spent: defaultdict[tuple[str, str], float] = defaultdict(float)
    for link in run.analysis.path:
        if link.kind == LOCK and link.behind:
            spent[link.behind, link.device] += link.end_ms - link.begin_ms
    for (holder, waiter), took in sorted(spent.items(), key=lambda one: -one[1])[:MOST_HOLDERS]:
        if took >= NOTICEABLE * downtime:
            yield f"  {holder} held it, {waiter} waited", format_duration(took / 1e3), f"{100 * took / downtime:.0f} %"
