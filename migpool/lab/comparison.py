"""Runs a scenario under several models, in an order that is fair to each of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from migpool.lab.analysis.bound import LowerBound, lower_bound
from migpool.lab.analysis.why import analyse, buffer_size, representatives
from migpool.lab.findings import device_costs, lab_result, least_costs, run_result, with_bound
from migpool.lab.report.chrome_trace import TracedRun
from migpool.lab.run.processes import Observed, PairResult, ProcessPair
from migpool.lab.run.result import LabResult, RunResult
from migpool.scenario.schema import Scenario


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
    """Makes runs, and keeps what the result needs of them. ``where``: the scenario's file, for errors."""

    def __init__(self, scenario: Scenario, where: str) -> None:
        self._scenario = scenario
        self._where = where
        self.runs: list[Run] = []
        self.cancelled = False

    def make(self, planned: Sequence[Planned], watcher: Watcher, stop: Callable[[], bool]) -> None:
        """Make the runs, one after the other, until all are made or ``stop`` says true.

        Raises:
            UsageError: the scenario or a model cannot be used.
        """
        for one in planned:
            if stop():
                self.cancelled = True
            if self.cancelled:
                return
            watcher.began(one)
            pair = ProcessPair(self._scenario_of(one), one.model, one.seed, self._where).run(
                partial(watcher.observed, one), stop
            )
            self.cancelled = pair.cancelled
            run = Run(one, pair, run_result(one.label, one.repeat, one.seed, pair))
            self.runs.append(run)
            watcher.ended(run)

    def _scenario_of(self, one: Planned) -> Scenario:
        migration = self._scenario.migration.model_copy(update=dict(one.variant.changes))
        return self._scenario.model_copy(update={"migration": migration})

    def bound(self) -> LowerBound | None:
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

    def result(self, bound: LowerBound | None) -> LabResult:
        """Everything that was found, and why, for the run of each model that stands for it."""
        runs = [with_bound(run.result, bound) for run in self.runs]
        for place in representatives(runs):
            if both := self.runs[place].pair.both:
                source, destination = both
                chunk = buffer_size(self._scenario, source.report.devices)
                found = analyse(source.report, destination.report, chunk)
                runs[place] = runs[place].model_copy(update={"analysis": found})
        return lab_result(self._scenario, runs, bound)

    def last_of_each_model(self) -> list[TracedRun]:
        """The last run of each model that both sides have told of, for a trace."""
        last: dict[str, TracedRun] = {}
        for run in self.runs:
            if both := run.pair.both:
                label = f"{run.planned.label}, run {run.planned.repeat}"
                last[run.planned.label] = TracedRun(both[0].report, both[1].report, label)
        return list(last.values())
