"""``migpool lab``: experiments, each a claim and the runs that decide it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.invocation import set_up
from migpool.cli.options import Debug

__all__ = ["lab_app"]

lab_app = typer.Typer(
    help="Experiments: claims about threading models, and the runs that decide them.",
    rich_markup_mode="rich",
    no_args_is_help=False,
)


def complete_experiment(incomplete: str) -> list[str]:
    """The experiments that come with migpool."""
    from migpool.experiments.catalogue import names

    return [name for name in (*names(), "all", "published") if name.lower().startswith(incomplete.lower())]


@lab_app.callback(invoke_without_command=True)
def nothing(context: typer.Context) -> None:
    """Experiments: claims about threading models, and the runs that decide them."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@lab_app.command("list")
def list_experiments(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.", show_default=False)] = False,
    debug: Debug = False,
) -> None:
    """List the claims: what was said, by whom, and what its experiment compares."""
    set_up(context, 0, None, debug)
    from migpool.cli.experimenting import list_all

    list_all(sys.stdout, as_json=as_json)


@lab_app.command("show")
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as C1.", autocompletion=complete_experiment)],
    debug: Debug = False,
) -> None:
    """Print an experiment as it is written: a good beginning for one of your own.

    [cyan]migpool lab show C1 > mine.toml[/]
    """
    set_up(context, 0, None, debug)
    from migpool.experiments.catalogue import experiment_text, load_experiment

    load_experiment(name)
    typer.echo(experiment_text(name), nl=False)


@lab_app.command("run")
def run(
    context: typer.Context,
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
    debug: Debug = False,
) -> None:
    """Make an experiment's runs, and say whether the claim is supported, refuted, or what it depends on.

    The variants take turns, round by round, until the intervals of the compared ratios are
    narrow or the experiment's time is up. Use a quiet machine: all of them take under half an
    hour there, and three minutes with [cyan]--quick[/].

    Exit codes: 0 all runs completed, whatever the verdicts; 1 a run failed; 2 wrong usage.

      [cyan]migpool lab run C1 C9 --quick[/]

      [cyan]migpool lab run all --results results[/]

      [cyan]migpool lab run published[/]      what the published downtimes have in common, by simulation
    """
    set_up(context, 0, None, debug)
    from migpool.cli.experimenting import run_experiments

    claims = [name for name in experiments if name.lower() != "published"]
    if len(claims) == len(experiments):
        raise typer.Exit(run_experiments(claims, quick=quick, results=results))
    from migpool.cli.simulating import run_published  # needs SimPy, which is to be found out before the runs

    code = run_experiments(claims, quick=quick, results=results) if claims else 0
    if code in (0, 1):
        run_published(results)
    raise typer.Exit(code)


@lab_app.command("compare")
def compare(
    context: typer.Context,
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A directory of results, or one finding's JSON.")],
    now: Annotated[Path, typer.Argument(metavar="NOW", help="The later one.")],
    debug: Debug = False,
) -> None:
    """Say whether earlier verdicts stand: which comparisons came out the same, which did not.

    A comparison is contradicted if it held and fails now, or the other way round. [bold]moved[/] are
    those whose intervals have nothing in common any more.

    Exit codes: 0 every verdict stands; 1 one is contradicted; 2 wrong usage.

      [cyan]migpool lab compare docs/results/2026-11-26 results[/]
    """
    set_up(context, 0, None, debug)
    from migpool.cli.standing import compare_results

    raise typer.Exit(compare_results(before, now))
