"""What ``migpool lab`` does: lists experiments, runs them, shows and writes what they found."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from pydantic import ValidationError
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from migpool.cli.files import write
from migpool.cli.interrupt import Interrupt
from migpool.errors import UsageError
from migpool.experiments.catalogue import chosen, in_order
from migpool.experiments.finding import ComparisonFinding, Finding
from migpool.experiments.growing import told as field_told
from migpool.experiments.page import index, page
from migpool.experiments.plot import plot
from migpool.experiments.running import run_experiment
from migpool.experiments.verdict import expected
from migpool.lab.table import console_for

__all__ = ["list_all", "prepare", "run_experiments"]

_STYLES = {"supported": "bold green", "refuted": "bold red", "depends": "bold yellow"}


def list_all(stream: TextIO, *, as_json: bool) -> None:
    """Print every experiment that comes with migpool."""
    found = chosen(["all"])
    if as_json:
        keys = ("id", "title", "claim", "by")
        print(json.dumps([{key: getattr(one, key) for key in keys} for one in found], indent=2), file=stream)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("Claim")
    table.add_column("By")
    table.add_column("Compared", ratio=1)
    for one in found:
        what = "; ".join(comparison.name for comparison in one.comparisons)
        table.add_row(
            Text(one.id, style="bold"),
            Text(one.claim),
            Text(one.by),
            Text(what or "what is left after cancels: counted"),
        )
    console = console_for(stream)
    console.print(table)
    console.print(
        "\npublished  the published downtimes, fitted by simulation (migpool lab run published)", highlight=False
    )


def run_experiments(wanted: Sequence[str], *, quick: bool, results: Path | None) -> int:
    """Run experiments one after the other, and return the exit code.

    Arguments:
        wanted: their names, files, or ``all``.
        quick: whether to take little effort.
        results: the directory to write to; made if it is not there.

    Raises:
        UsageError: a name or the directory is wrong.
        ScenarioError: a file is wrong.
        MigpoolError: an experiment cannot be made here, or a file not be written.
    """
    experiments = chosen(wanted)
    if results is not None:
        prepare(results)
    console, screen = console_for(sys.stdout), console_for(sys.stderr)
    findings: list[Finding] = []
    with Interrupt(lambda line: screen.print(f"migpool: {line}", markup=False, highlight=False)) as interrupt:
        for experiment in experiments:
            finding = run_experiment(
                experiment,
                quick=quick,
                stop=interrupt,
                say=lambda line: screen.print(line, markup=False, highlight=False, soft_wrap=True),
            )
            if interrupt():
                screen.print(f"migpool: cancelled in {experiment.id}; {len(findings)} were complete", highlight=False)
                return interrupt.exit_code
            findings.append(finding)
            console.print(_shown(finding))
            if results is not None:
                _write(results, finding)
    failed = [f"{one.id}: {line}" for one in findings for line in one.failures]
    for line in failed[:1]:
        more = f" (and {len(failed) - 1} more)" if failed[1:] else ""
        screen.print(f"migpool: {line}{more}", markup=False, highlight=False, soft_wrap=True)
    return 1 if failed else 0


def prepare(folder: Path) -> None:
    """Have a directory for results before the work begins, and not find out after it.

    Raises:
        UsageError: it cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror or error}: name another directory") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{folder} cannot be written to: no permission")


def _write(folder: Path, finding: Finding) -> None:
    """Write its files, and the index anew: of this one and of all that earlier calls left in the directory."""
    write(folder / f"{finding.id}.json", finding.to_json())
    write(folder / f"{finding.id}.svg", plot(finding))
    write(folder / f"{finding.id}.md", page(finding, f"{finding.id}.svg"))
    write(folder / "README.md", index(sorted(_there(folder), key=lambda one: in_order(one.id))))


def _there(folder: Path) -> Iterator[Finding]:
    for path in folder.glob("*.json"):
        try:
            yield Finding.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue  # not a finding, or one of a form that this version does not know


def _shown(finding: Finding) -> RenderableType:
    head = Text(f"{finding.id}  ", style="bold").append(finding.claim, style="not bold").append(f" ({finding.by})")
    parts: list[RenderableType] = [head]
    if finding.comparisons:
        parts.append(_ratios(finding.comparisons))
    if finding.counts:
        table = _table("Must not be", "Model", "Of", "Were")
        for one in finding.counts:
            table.add_row(
                Text(one.what),
                one.model or "all",
                str(one.total),
                Text(str(one.wrong), style="red" if one.wrong else "green"),
            )
        parts.append(table)
    told = Text(finding.verdict, style=_STYLES[finding.verdict])
    if finding.preliminary:
        told.append(" (preliminary: too few rounds for 95 %)", style="not bold")
    told.append(f": {finding.reason}", style="default not bold")
    effort = f"{finding.rounds} {'round' if finding.rounds == 1 else 'rounds'}, " if finding.rounds else ""
    facts = finding.machine
    where = (
        f"{effort}{finding.seconds:.0f} s; {facts.cpus} CPUs, {facts.python}, {facts.system}; load {finding.load:.1f}"
    )
    grown = [Text(field_told(field)) for field in finding.growing]
    return Group(*parts, told, *grown, Text(where, style="dim"), Text())


def _ratios(comparisons: Sequence[ComparisonFinding]) -> Table:
    table = _table("Ratio", "Median", "Interval", "Covers", "Expected", "")
    for one in comparisons:
        numbers = ("-", "-", "-")
        if one.median is not None and one.low is not None and one.high is not None and one.coverage is not None:
            numbers = (f"{one.median:.3f}", f"{one.low:.3f} to {one.high:.3f}", f"{one.coverage:.0%}")
        outcome = one.outcome if one.decides else f"({one.outcome})"
        table.add_row(Text(one.name), *numbers, expected(one.least, one.most), outcome)
    return table


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        table.add_column(heading)
    return table
