"""``python -m benchmarks.datapath``: measure the data path against C, row by row."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.datapath.compiled import program
from benchmarks.datapath.content import Content
from benchmarks.datapath.disturbance import Attempts
from benchmarks.datapath.groups import GROUPS, Group, play, scaled
from benchmarks.datapath.machine_facts import machine_facts
from benchmarks.datapath.outcome import Contender, Outcome, contenders, outcomes
from benchmarks.datapath.task import MIB, Task
from migpool.errors import MigpoolError

QUICK_ROUNDS = 3
QUICK_SIZE = 64 * MIB
DISTURBANCE = 0.08
"""Seconds of CPU time that others may take during a run."""
ATTEMPTS = 3
PATIENCE = 60.0
"""Seconds that all repetitions together may take."""
WIDTH = 110
"""Columns, where the output is no terminal."""


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.datapath", description=__doc__)
    names = [group.name for group in GROUPS]
    parser.add_argument("--rounds", type=int, default=11, help="rounds after the warm-up (default: 11)")
    parser.add_argument("--only", choices=names, action="append", help="measure this group only; may be repeated")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 256 MiB: a look, not a measurement")
    parser.add_argument("--source", default=Task.__dataclass_fields__["source"].default, help="its threading model")
    parser.add_argument(
        "--destination", default=Task.__dataclass_fields__["destination"].default, help="its threading model"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE as well")
    chosen = parser.parse_args()
    if chosen.rounds < 1:
        parser.error("--rounds must be 1 or more")
    return chosen


def print_outcomes(console: Console, found: list[Outcome]) -> None:
    """The rows and their targets."""
    table = Table("row", title="Python over C, by rate, unless the row says otherwise", title_justify="left")
    for heading in ("median", "min", "max", "target", ""):
        table.add_column(heading, justify="right")
    words = {True: "[green]pass[/]", False: "[red]below[/]", None: ""}
    for each in found:
        target = "" if each.target is None else f"{'≤' if each.at_most else '≥'} {each.target:g}"
        word = "[red]above[/]" if each.passed is False and each.at_most else words[each.passed]
        figures = (f"{figure:.3f}" for figure in (each.median, each.least, each.most))
        table.add_row(each.name, *figures, target, word)
    console.print(table)


def print_contenders(console: Console, found: list[Contender]) -> None:
    """What the rows were made from."""
    table = Table("group", "run", title="The runs: medians", title_justify="left")
    for heading in ("GiB/s", "seconds", "switchover", "user s/GiB", "system s/GiB"):
        table.add_column(heading, justify="right")
    for each in found:
        switchover = f"{each.switchover:.3f}" if each.switchover else ""
        table.add_row(
            each.group,
            each.name,
            f"{each.rate:.2f}",
            f"{each.seconds:.3f}",
            switchover,
            f"{each.user:.3f}",
            f"{each.system:.3f}",
        )
    console.print(table)


def measure(
    console: Console, groups: list[Group], rounds: int, size: int, attempts: Attempts
) -> tuple[list[Outcome], list[Contender]]:
    """Run ``groups`` and make their rows."""
    rows: list[Outcome] = []
    runs: list[Contender] = []
    program()
    with Content(Task().devices, size) as content:
        for group in groups:
            played = []
            with console.status(f"{group.name}: to warm up") as status:
                for measures in play(group, content, rounds, attempts):
                    played.append(measures)
                    status.update(f"{group.name}: {len(played)} of {rounds} rounds")
            rows += outcomes(group, played)
            runs += contenders(group, played)
    return rows, runs


def main() -> int:
    """Measure and print; the status is 1 if nothing could be measured, and 0 also where a target was missed."""
    chosen = arguments()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    began = time.monotonic()
    rounds, size = (QUICK_ROUNDS, QUICK_SIZE) if chosen.quick else (chosen.rounds, Task().size)
    groups = [
        scaled(group, size=size, source=chosen.source, destination=chosen.destination)
        for group in GROUPS
        if not chosen.only or group.name in chosen.only
    ]
    attempts = Attempts(DISTURBANCE, 1 if chosen.quick else ATTEMPTS, PATIENCE)
    try:
        facts = machine_facts()
        rows, runs = measure(console, groups, rounds, size, attempts)
    except MigpoolError as error:
        console.print(f"error: {error}", style="red", soft_wrap=True, markup=False)
        return 1
    for name, value in facts.items():
        console.print(f"{name}: {value}", soft_wrap=True)
    print_outcomes(console, rows)
    print_contenders(console, runs)
    console.print(
        f"{rounds} rounds, {time.monotonic() - began:.0f} s; {attempts.repeated} runs repeated because something else "
        f"took the CPUs, {attempts.disturbed} kept nevertheless",
        soft_wrap=True,
    )
    if chosen.json:
        result = {
            "facts": facts,
            "rounds": rounds,
            "repeated": attempts.repeated,
            "disturbed": attempts.disturbed,
            "rows": [asdict(row) | {"passed": row.passed} for row in rows],
            "runs": [asdict(run) for run in runs],
        }
        chosen.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
