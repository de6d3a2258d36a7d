"""Runs a scenario under several models, in an order that is fair to each of them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from migpool.flow.window import rooms_for
from migpool.lab.analysis.bound import lower_bound
from migpool.lab.analysis.declared_costs import device_costs, least_costs
from migpool.lab.analysis.why import analyse, consistent, representatives
from migpool.lab.report.chrome_trace import TracedRun
from migpool.lab.report.table import run_line
from migpool.lab.result_of_sides import lab_result, run_result, with_bound
from migpool.lab.run.long_calls import Told
from migpool.lab.run.pair_result import PairResult
from migpool.lab.run.process_pair import Hosts, Observed, ProcessPair
from migpool.lab.run.result import LabResult, LowerBound, RunResult, round_line
from migpool.migration.states import State
from migpool.scenario.schema import Scenario
from migpool.units import format_rate, format_size


@dataclass(frozen=True, slots=True)
class Variant:
    """A way in which a run differs from the scenario.

    Attributes:
        name: what the run is called by, behind its model; empty for the scenario as it is.
        changes: keys of the scenario's ``[migration]``, and their values.
    """

    name: str = ""
    changes: Mapping[str, object] = field(default_factory=dict, hash=False)

    def also(self, other: Variant) -> Variant:
        """Both at once."""
        return Variant(", ".join(filter(None, (self.name, other.name))), {**self.changes, **other.changes})


BOTH_WAYS = (Variant("together", {"together": True}), Variant("in turn", {"together": False}))
"""All is saved at once after the stop, or one after the other."""
BOTH_WIRES = (Variant("sections", {"vmsd": "main-channel"}), Variant("multifd", {"vmsd": "multifd"}))
"""Devices that are not iterable cross as sections of the main channel, or as jobs over the multifd channels."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One run to be made.

    Attributes:
        repeat: which repetition, from 1.
        seed: for the made-up state: another in each repetition, the same for each model.
        variant: how it differs from the scenario.
    """

    model: str
    repeat: int
    seed: int
    variant: Variant = Variant()

    @property
    def label(self) -> str:
        """What the run is called in results."""
        return f"{self.model}, {self.variant.name}" if self.variant.name else self.model


@dataclass(frozen=True, slots=True)
class Run:
    """One run that was made."""

    planned: Planned
    pair: PairResult
    result: RunResult


class Watcher(Protocol):
    """Is told how the runs go on, on the thread that makes them."""

    def began(self, planned: Planned) -> None:
        """A run begins."""

    def observed(self, planned: Planned, now: Observed) -> None:
        """Several times a second."""

    def ended(self, run: Run) -> None:
        """A run is over."""


def plan(models: Sequence[str], repeats: int, seed: int, variants: Sequence[Variant] = (Variant(),)) -> list[Planned]:
    """The runs to make.

    Each repetition makes every variant of every model once, in an order of its own that the seed decides.
    What changes on the host while the runs are made (its clock rate, its other work) so falls on all of them alike.
    """
    planned = []
    for repeat in range(1, repeats + 1):
        order = [(model, variant) for model in models for variant in variants]
        random.Random(seed + repeat).shuffle(order)
        planned += [Planned(model, repeat, seed + repeat, variant) for model, variant in order]
    return planned


class Lab:
    """Makes runs, and keeps what the result needs of them.

    Arguments:
        where: the scenario's file, for errors.
        hosts: where the two sides are; ``None``: both here.
    """

    def __init__(self, scenario: Scenario, where: str, hosts: Hosts | None = None) -> None:
        self._hosts = hosts
        self._scenario = scenario
        self._where = where
        self.runs: list[Run] = []
        self.cancelled = False

    def make(self, planned: Sequence[Planned], watcher: Watcher, stop: Callable[[], bool]) -> None:
        """Make the runs, one after the other, until all are made, ``stop`` says true, or all that follow would fail.

        Raises:
            UsageError: the scenario or a model cannot be used.
        """
        for one in planned:
            if stop():
                self.cancelled = True
            if self.cancelled:
                return
            watcher.began(one)
            migration = self._scenario.migration.model_copy(update=dict(one.variant.changes))
            scenario = self._scenario.model_copy(update={"migration": migration})
            processes = ProcessPair(scenario, one.model, one.seed, self._where, self._hosts)
            pair = processes.run(partial(watcher.observed, one), stop)
            self.cancelled = pair.cancelled
            run = Run(one, pair, run_result(one.label, one.repeat, one.seed, pair))
            self.runs.append(run)
            watcher.ended(run)
            if pair.unbuilt:
                return  # so it would be under every model

    def _bound(self) -> LowerBound | None:
        """The lower bound over all runs so far; ``None`` if none completed."""
        completed = [run.pair.both for run in self.runs if run.pair.both and run.result.outcome == "completed"]
        if not completed:
            return None
        link = self._scenario.link.rate
        return lower_bound(
            [(source.report, destination.report) for source, destination in completed],
            least_costs([device_costs(*one) for one in completed]),
            link_rate=None if link is None else float(link),
            config_load=self._scenario.migration.config_load,
        )

    def result(self) -> LabResult:
        """Everything that was found, and why, for the run of each model that stands for it."""
        bound = self._bound()
        runs = [with_bound(run.result, bound) for run in self.runs]
        for place in representatives(runs):
            if both := self.runs[place].pair.both:
                source, destination = both
                memory, devices = self._scenario.memory, source.report.devices
                in_need = sum(one.iterable for one in devices) + any(one.described for one in devices)
                chunk, _ = rooms_for(int(memory.budget), int(memory.chunk), in_need)
                found = analyse(source.report, destination.report, chunk, device_costs(source, destination))
                runs[place] = runs[place].model_copy(update={"analysis": found})
        return lab_result(self._scenario, consistent(runs), bound)

    def last_of_each_model(self) -> list[TracedRun]:
        """The last run of each model that both sides have told of, for a trace."""
        last: dict[str, TracedRun] = {}
        for run in self.runs:
            if both := run.pair.both:
                label = f"{run.planned.label}, run {run.planned.repeat}"
                last[run.planned.label] = TracedRun(both[0].report, both[1].report, label)
        return list(last.values())


class PlainProgress:
    """One line for each round of pre-copy, each call of a device that lasts for long, and each run that has ended."""

    def __init__(self, console: Console, runs: int) -> None:
        self._console = console
        self._runs = runs
        self._ended = 0
        self._told = 0
        self._calls = Told()

    def began(self, planned: Planned) -> None:
        """Nothing to say yet."""

    def observed(self, planned: Planned, now: Observed) -> None:
        for call in self._calls.due(now.calls):
            line = f"{planned.label}, run {planned.repeat}: {call}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
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
        if now.calls:
            said = str(now.calls[0])
        self._say(planned, said)

    def ended(self, run: Run) -> None:
        if not run.result.succeeded:
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
