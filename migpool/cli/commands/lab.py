"""Experiments: claims about threading models, and the runs that decide them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.commands.sweep import sweep
from migpool.cli.lazy import group
from migpool.cli.options import Debug
from migpool.units import count_of

app = group(__doc__ or "")
app.command("sweep")(sweep)


def complete_experiment(incomplete: str) -> list[str]:
    """The experiments that come with migpool."""
    from migpool.experiments.form import names

    return [name for name in (*names(), "all", "published") if name.lower().startswith(incomplete.lower())]


@app.command("list")
def list_experiments(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.", show_default=False)] = False,
    _: Debug = False,
) -> None:
    """List the claims: what was said, by whom, and what its experiment compares."""
    from migpool.experiments.form import chosen
    from migpool.experiments.terminal import claims_table
    from migpool.lab.report.table import console_for

    found = chosen(["all"])
    if as_json:
        keys = ("id", "title", "claim", "by")
        typer.echo(json.dumps([{key: getattr(one, key) for key in keys} for one in found], indent=2))
        return
    console = console_for(sys.stdout)
    console.print(claims_table(found))
    published = "\npublished  the published downtimes, fitted by simulation (migpool lab run published)"
    console.print(published, highlight=False)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as C1.", autocompletion=complete_experiment)],
    _: Debug = False,
) -> None:
    """Print an experiment as it is written: a good beginning for one of your own.

    [cyan]migpool lab show C1 > mine.toml[/]
    """
    from migpool.experiments.form import experiment_text, load_experiment

    load_experiment(name)
    typer.echo(experiment_text(name), nl=False)


@app.command("run")
def run(
    experiments: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="Names that [cyan]migpool lab list[/] shows, files of your own, [cyan]all[/], or "
            "[cyan]published[/]: the simulator.",
            autocompletion=complete_experiment,
        ),
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="A look, not a measurement: few rounds.", show_default=False)
    ] = False,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results", metavar="DIR", file_okay=False, help="Write a page, JSON and a picture for each, and an index."
        ),
    ] = None,
    note: Annotated[
        str, typer.Option("--note", metavar="TEXT", help="What to say of the machine: whether it is shared, and so on.")
    ] = "",
    _: Debug = False,
) -> None:
    """Make an experiment's runs, and say whether the claim is supported, refuted, or what it depends on.

    The variants take turns, round by round, until the intervals of the compared ratios are
    narrow or the experiment's time is up. Use a quiet machine: all of them take under three
    quarters of an hour there, and six minutes with [cyan]--quick[/].

    Exit codes: 0 all runs completed, whatever the verdicts; 1 a run failed; 2 wrong usage.

      [cyan]migpool lab run C1 C9 --quick[/]

      [cyan]migpool lab run all --results results[/]

      [cyan]migpool lab run published[/]      what the published downtimes have in common, by simulation
    """
    claims = [name for name in experiments if name.lower() != "published"]
    if len(claims) < len(experiments):
        import migpool.sim.published  # noqa: F401 -- needs SimPy, which is to be found out before the runs
    code = _run_claims(claims, quick=quick, results=results, note=note) if claims else 0
    if len(claims) < len(experiments) and code in (0, 1):
        _run_published(results)
    raise typer.Exit(code)


@app.command("compare")
def compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A directory of results, or one finding's JSON.")],
    now: Annotated[Path, typer.Argument(metavar="NOW", help="The later one.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.", show_default=False)] = False,
    _: Debug = False,
) -> None:
    """Say whether earlier verdicts stand: which comparisons came out the same, which did not.

    A comparison is contradicted if it held and fails now, or the other way round. [bold]moved[/] are
    those whose intervals have nothing in common any more.

    Exit codes: 0 every verdict stands; 1 one is contradicted; 2 wrong usage.

      [cyan]migpool lab compare docs/results/2026-11-26 results[/]
    """
    from migpool.errors import UsageError
    from migpool.experiments.page import findings_in
    from migpool.experiments.recheck import standings
    from migpool.experiments.terminal import standing_lines, standing_table
    from migpool.lab.report.table import console_for

    found = standings(findings_in(before), findings_in(now))
    if not found:
        raise UsageError(f"{before} and {now} have no experiment in common: compare two results of one experiment")
    fallen = [one.now.id for one in found if not one.stands]
    if as_json:
        told = [
            {"id": one.now.id, "stands": one.stands, "elsewhere": one.elsewhere, "missing": one.missing}
            | {"moved": [asdict(moved) for moved in one.moved]}
            for one in found
        ]
        typer.echo(json.dumps(told, indent=2))
        raise typer.Exit(1 if fallen else 0)
    console = console_for(sys.stdout)
    console.print(standing_table(found))
    for one in found:
        for line in standing_lines(one):
            console.print(f"{one.now.id}: {line}", markup=False, highlight=False, soft_wrap=True)
    said = f"{len(found) - len(fallen)} of {count_of(len(found), 'verdict')} {'stands' if len(found) == 1 else 'stand'}"
    console.print(said + (f"; contradicted: {', '.join(fallen)}" if fallen else ""), highlight=False)
    raise typer.Exit(1 if fallen else 0)


def _run_claims(wanted: Sequence[str], *, quick: bool, results: Path | None, note: str) -> int:
    from migpool.cli.interrupt import Interrupt
    from migpool.cli.output import write
    from migpool.experiments.form import chosen
    from migpool.experiments.page import prepare, write_finding
    from migpool.experiments.runner import missing, run_experiment
    from migpool.experiments.terminal import shown
    from migpool.lab.report.table import console_for

    experiments = chosen(wanted)
    everything = any(name.lower() == "all" for name in wanted)
    left_out = {one.id: why for one in experiments if everything and (why := missing(one))}
    experiments = [one for one in experiments if one.id not in left_out]
    if results is not None:
        prepare(results)
    console, screen = console_for(sys.stdout), console_for(sys.stderr)

    def tell(line: str) -> None:
        screen.print(line, markup=False, highlight=False, soft_wrap=True)

    for name, why in left_out.items():
        tell(f"migpool: {name} is left out: {why}")
    failed: list[str] = []
    with Interrupt(lambda line: tell(f"migpool: {line}")) as interrupt:
        for number, experiment in enumerate(experiments):
            finding = run_experiment(experiment, quick=quick, stop=interrupt, say=tell, note=note)
            if interrupt():
                tell(f"migpool: cancelled in {experiment.id}; {number} were complete")
                return interrupt.exit_code
            failed += [f"{finding.id}: {line}" for line in finding.failures]
            console.print(shown(finding))
            if results is not None:
                write_finding(results, finding, write)
    if not failed:
        return 0
    tell(f"migpool: {failed[0]}{f' (and {len(failed) - 1} more)' if failed[1:] else ''}")
    return 1


def _run_published(results: Path | None) -> None:
    """Fit every hypothesis to the published downtimes, print them side by side, and write them."""
    from rich.text import Text

    from migpool.cli.output import write
    from migpool.experiments.page import prepare
    from migpool.lab.report.table import console_for, plain_table
    from migpool.sim import published

    if results is not None:
        prepare(results)
    console, screen = console_for(sys.stdout), console_for(sys.stderr)
    tables = {"": published.PUBLISHED, ", an earlier version of the patches": published.EARLIER}
    fits: list[list[published.Fit]] = []
    for which, table in tables.items():
        fits.append([])
        for hypothesis in published.hypotheses():
            screen.print(f"published: fitting{which}: {hypothesis.name}", markup=False, highlight=False)
            fits[-1].append(published.explain(hypothesis, table))
    for which, found in zip(tables, fits, strict=True):
        (first, *headings), rows = published.rows(found)
        shown = plain_table(first)
        for heading in headings:
            shown.add_column(heading, justify="right", no_wrap=True)
        for row in rows:
            shown.add_row(*map(Text, row))
        what = f"Downtime in ms of 1, 2 and 4 devices, over the main channel and over multifd{which}"
        console.print(what, highlight=False)
        console.print(shown)
        for one in found:
            console.print(f"{one.hypothesis.name}: {published.values(one)}", markup=False, highlight=False)
        console.print()
    found, earlier = fits
    said = published.conclusion(found, earlier)
    console.print(said, markup=False, highlight=False)
    if results is not None:
        write(results / "published.json", published.json_of(found, earlier, said))
        write(results / "published.md", published.page(found, earlier, said))
