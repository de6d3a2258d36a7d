"""What ``migpool lab compare`` does: says whether earlier verdicts still stand."""

from __future__ import annotations

import sys
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from migpool.errors import UsageError
from migpool.experiments.catalogue import in_order
from migpool.experiments.finding import Finding
from migpool.experiments.standing import Fate, Standing, standings
from migpool.lab.form import read_form
from migpool.lab.table import console_for

__all__ = ["compare_results"]

_STYLES: dict[Fate, str] = {"stands": "green", "decided": "", "open again": "yellow", "contradicted": "bold red"}


def compare_results(before: Path, now: Path) -> int:
    """Print what has become of each verdict; the exit code is 1 if one is contradicted.

    Arguments:
        before: a finding's JSON, or the directory of several.
        now: the later one.

    Raises:
        UsageError: there are no findings, or none of the same experiments.
    """
    found = standings(_findings(before), _findings(now))
    if not found:
        raise UsageError(f"{before} and {now} have no experiment in common: compare two results of one experiment")
    console = console_for(sys.stdout)
    console.print(_table(found))
    for one in found:
        for line in _remarks(one):
            console.print(f"{one.now.id}: {line}", markup=False, highlight=False, soft_wrap=True)
    fallen = [one.now.id for one in found if not one.stands]
    stand = len(found) - len(fallen)
    console.print(
        f"{stand} of {len(found)} verdicts stand" + (f"; contradicted: {', '.join(fallen)}" if fallen else ""),
        highlight=False,
    )
    return 1 if fallen else 0


def _findings(path: Path) -> list[Finding]:
    """Those of a file, or all of a directory, in the order of their numbers."""
    if not path.is_dir():
        return [_finding(path)]
    found = []
    for each in path.glob("*.json"):
        if each.stem == "published":
            continue  # simulated, and not a finding
        found.append(_finding(each))
    if not found:
        raise UsageError(f"{path} has no findings: name a directory that migpool lab run --results has written")
    return sorted(found, key=lambda one: in_order(one.id))


def _finding(path: Path) -> Finding:
    return read_form(path, Finding, "finding of an experiment", "migpool lab run --results")


def _table(found: list[Standing]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("Verdict", "Compared", "Before", "Now", ""):
        table.add_column(heading)
    for one in found:
        word = one.now.verdict if one.now.verdict == one.before.verdict else f"{one.before.verdict}, {one.now.verdict}"
        for number, moved in enumerate(one.moved):
            fate = moved.fate if moved.decides else f"({moved.fate})"
            if moved.apart:
                fate += ", moved"
            table.add_row(
                Text("" if number else one.now.id, style="bold"),
                "" if number else word,
                Text(moved.name),
                Text(moved.before),
                Text(moved.now),
                Text(fate, style=_STYLES[moved.fate]),
            )
    return table


def _remarks(one: Standing) -> list[str]:
    lines = [
        f"{moved.name} is contradicted: {moved.before} before, {moved.now} now"
        for moved in one.moved
        if moved.decides and moved.fate == "contradicted"
    ]
    if one.missing:
        lines.append(f"only in one of the two: {', '.join(one.missing)}")
    if one.elsewhere:
        lines.append(f"not the same machine or versions: {_where(one.before)} before; {_where(one.now)} now")
    return lines


def _where(finding: Finding) -> str:
    facts = finding.machine
    return f"{facts.cpus} CPUs, {facts.system}, {facts.python}, migpool {facts.migpool}"
