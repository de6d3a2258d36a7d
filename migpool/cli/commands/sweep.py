"""``migpool lab sweep``: a scenario at many points of a space of its keys."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from migpool.cli.options import Debug
from migpool.units import count_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from migpool.sweeps.run import Headway


def sweep(
    file: Annotated[Path, typer.Argument(metavar="SWEEP.toml", help="What is swept.", dir_okay=False)],
    cluster: Annotated[
        str, typer.Option("--cluster", metavar="ADDRESS", help="A Dask scheduler; without it processes of this host.")
    ] = "",
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, help="Processes of this host; else one a CPU.")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option("--results", metavar="DIR", file_okay=False, help="Where results go; else sweep-NAME."),
    ] = None,
    _: Debug = False,
) -> None:
    """Simulate a scenario, or run it, over a grid or a sample of its keys, models and links.

    Goes on where an earlier call was ended, whatever ended it. Ends with a page of heat maps,
    and with results that pandas and DuckDB open.

    Exit codes: 0 all points are there; 1 some could not be computed; 2 wrong usage.

      [cyan]migpool lab sweep sweep.toml[/]

      [cyan]migpool lab sweep sweep.toml --cluster tcp://HOST:8786[/]
    """
    from migpool.cli.interrupt import Interrupt
    from migpool.cli.output import write, write_bytes
    from migpool.errors import UsageError
    from migpool.lab.report.table import console_for
    from migpool.sweeps.cluster import ClusterCrew
    from migpool.sweeps.form import load_sweep
    from migpool.sweeps.local import LocalCrew
    from migpool.sweeps.matters import findings
    from migpool.sweeps.page import page
    from migpool.sweeps.points import Plan
    from migpool.sweeps.run import compute
    from migpool.sweeps.store import Store

    if cluster and workers is not None:
        raise UsageError("--workers is for processes of this host: give it, or --cluster")
    plan = Plan(load_sweep(file))
    real = plan.sweep.file.mode == "real"
    if not real:
        import migpool.sim.simulate  # noqa: F401 -- needs SimPy, which is to be found out before anything is started
    folder = results or Path(f"sweep-{plan.sweep.file.name}")
    console, screen = console_for(sys.stdout), console_for(sys.stderr)

    def tell(line: str) -> None:
        screen.print(f"migpool: {line}", markup=False, highlight=False, soft_wrap=True)

    with Store(folder, plan, write_bytes) as store, Interrupt(tell) as interrupt:
        crew = (
            ClusterCrew(cluster, plan.sweep.file.mode)
            if cluster
            else LocalCrew(1 if real else workers or len(os.sched_getaffinity(0)))
        )
        try:
            with _progress(screen, plan.count) as show:
                complete = compute(plan, store, crew, tell=show, stop=interrupt)
        finally:
            crew.close()
        if not complete:
            tell(
                f"cancelled; {len(store.done())} of {count_of(plan.count, 'point')} are there: the same command goes on"
            )
            raise typer.Exit(interrupt.exit_code)
        table = store.table()
        path = store.finish(table)
    found = findings(plan, table.to_pydict())
    for line in found.told:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    shown = folder / "index.html"
    write(shown, page(plan, found))
    console.print(f"\nResults      {path}\nPage         {shown}", markup=False, highlight=False, soft_wrap=True)
    if found.failed:
        tell(f"{found.failed} of {count_of(plan.count, 'point')} have no downtime, the first: {found.first_error}")
        raise typer.Exit(1)


@contextmanager
def _progress(screen: Console, count: int) -> Iterator[Callable[[Headway], object]]:
    """Shows how far it is and when it will end: a bar on a terminal, else a line now and then."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    if not screen.is_terminal:
        yield _Lines(screen)
        return
    columns = (BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task("", total=count)
        yield lambda now: progress.update(task, completed=now.done, description=_said(now))


class _Lines:
    """A line when a tenth more is done."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._told = -1

    def __call__(self, now: Headway) -> None:
        tenth = 10 * now.done // max(1, now.count)
        if tenth > self._told:
            self._told = tenth
            line = f"{now.done} of {count_of(now.count, 'point')}; {_said(now)}"
            self._screen.print(line, markup=False, highlight=False, soft_wrap=True)


def _said(now: Headway) -> str:
    left = now.left
    if left is None:
        return "starting"
    minutes, seconds = divmod(round(left), 60)
    return f"{now.rate:.3g} a second, about {f'{minutes} min ' if minutes else ''}{seconds} s left"
