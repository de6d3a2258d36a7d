"""How runs go on, live on a terminal and in plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from migpool.lab.comparison import Planned, Run, Watcher
from migpool.lab.report.table import run_line
from migpool.lab.run.processes import Observed
from migpool.lab.run.result import round_line
from migpool.migration.states import State
from migpool.units import format_rate, format_size


class PlainProgress:
    """One line for each round of pre-copy, and for each run that has ended."""

    def __init__(self, console: Console, runs: int) -> None:
        self._console = console
        self._runs = runs
        self._ended = 0
        self._told = 0

    def began(self, planned: Planned) -> None:
        """Nothing to say yet."""

    def observed(self, planned: Planned, now: Observed) -> None:
        for told in now.rounds[self._told :]:
            self._console.print(f"{planned.label}, {round_line(told)}", markup=False, highlight=False)
        self._told = len(now.rounds)

    def ended(self, run: Run) -> None:
        self._ended += 1
        self._told = 0
        line = f"[{self._ended}/{self._runs}] {run_line(run.result, reason=False)}"
        self._console.print(line, markup=False, highlight=False)


class LiveProgress:
    """A bar over all runs, and a line for the one under way: model, repetition, state, bytes, rate.

    Arguments:
        progress: started by the caller.
    """

    def __init__(self, progress: Progress, runs: int) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task("", total=runs)
        self._moving = 0.0

    def began(self, planned: Planned) -> None:
        self._moving = 0.0
        self._say(planned, "starting")

    def observed(self, planned: Planned, now: Observed) -> None:
        """Show the state, the bytes, and their mean rate since the first of them."""
        state = now.source if now.source is not State.NONE else now.destination
        said = "starting" if state is State.NONE else state.value
        if now.bytes:
            self._moving = self._moving or time.monotonic()
            since = time.monotonic() - self._moving
            rate = f", {format_rate(now.bytes / since)}" if since > 0.05 else ""
            said += f", {format_size(now.bytes)}{rate}"
        if now.rounds and now.source is State.ACTIVE:
            said = round_line(now.rounds[-1])
        self._say(planned, said)

    def ended(self, run: Run) -> None:
        if not run.result.verified:
            self._progress.console.print(run_line(run.result, reason=False), markup=False, highlight=False)
        self._progress.advance(self._task)

    def _say(self, planned: Planned, said: str) -> None:
        self._progress.update(self._task, description=f"{planned.label}, run {planned.repeat}: {said}")


@contextmanager
def watching(console: Console, runs: int) -> Iterator[Watcher]:
    """A watcher for the console: live if it is a terminal."""
    if not console.is_terminal:
        yield PlainProgress(console, runs)
        return
    columns = (
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
    )
    with Progress(*columns, console=console, transient=True, expand=True, refresh_per_second=10) as progress:
        yield LiveProgress(progress, runs)
