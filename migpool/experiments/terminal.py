"""Experiments on a terminal: what is claimed, what was found, and what has become of earlier verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from migpool.experiments.finding import Finding
from migpool.experiments.form import Experiment
from migpool.experiments.growing_pools import told as field_told
from migpool.experiments.recheck import Fate, Standing
from migpool.experiments.verdict import expected
from migpool.lab.report.table import plain_table

_VERDICTS: Final = {"supported": "bold green", "refuted": "bold red", "depends": "bold yellow"}
_FATES: Final[dict[Fate, str]] = {"stands": "green", "decided": "", "open again": "yellow", "contradicted": "bold red"}


def claims_table(experiments: Sequence[Experiment]) -> Table:
    table = plain_table("", "Claim", "By", "Compared")
    for one in experiments:
        what = "; ".join(comparison.name for comparison in one.comparisons)
        told = (one.claim, one.by, what or "what is left after cancels: counted")
        table.add_row(Text(one.id, style="bold", no_wrap=True), *map(Text, told))
    return table


def shown(finding: Finding) -> RenderableType:
    head = Text(f"{finding.id}  ", style="bold").append(finding.claim, style="not bold").append(f" ({finding.by})")
    parts: list[RenderableType] = [head]
    if finding.comparisons:
        table = plain_table("Ratio", "Median", "Interval", "Covers", "Expected", "")
        for ratio in finding.comparisons:
            outcome = ratio.outcome if ratio.decides else f"({ratio.outcome})"
            table.add_row(Text(ratio.name), *ratio.cells("{:.0%}"), expected(ratio.least, ratio.most), outcome)
        parts.append(table)
    if finding.counts:
        table = plain_table("Must not be", "Model", "Of", "Were")
        for one in finding.counts:
            wrong = Text(str(one.wrong), style="red" if one.wrong else "green")
            table.add_row(Text(one.what), one.model or "all", str(one.total), wrong)
        parts.append(table)
    told = Text(finding.verdict, style=_VERDICTS[finding.verdict])
    if finding.preliminary:
        told.append(" (preliminary: too few rounds for 95 %)", style="not bold")
    told.append(f": {finding.reason}", style="default not bold")
    effort = f"{finding.rounds} {'round' if finding.rounds == 1 else 'rounds'}, " if finding.rounds else ""
    where = f"{effort}{finding.seconds:.0f} s; {finding.machine}; load {finding.load:.1f}"
    grown = [Text(field_told(field)) for field in finding.growing]
    return Group(*parts, told, *grown, Text(where, style="dim"), Text())


def standing_table(found: Sequence[Standing]) -> Table:
    """Each comparison of each experiment, before and now."""
    table = plain_table("", "Verdict", "Compared", "Before", "Now", "")
    for one in found:
        word = one.now.verdict if one.now.verdict == one.before.verdict else f"{one.before.verdict}, {one.now.verdict}"
        for number, moved in enumerate(one.moved):
            fate = (moved.fate if moved.decides else f"({moved.fate})") + (", moved" if moved.apart else "")
            table.add_row(
                Text("" if number else one.now.id, style="bold", no_wrap=True),
                "" if number else word,
                *map(Text, (moved.name, moved.before, moved.now)),
                Text(fate, style=_FATES[moved.fate]),
            )
    return table


def standing_lines(one: Standing) -> Iterator[str]:
    """What must be said of an experiment besides."""
    for moved in one.moved:
        if moved.decides and moved.fate == "contradicted":
            yield f"{moved.name} is contradicted: {moved.before} before, {moved.now} now"
    if one.missing:
        yield f"only in one of the two: {', '.join(one.missing)}"
    if one.elsewhere:
        yield f"not the same machine or versions: {one.before.machine} before; {one.now.machine} now"
