"""Makes the runs of an experiment, round by round.

Each round makes every variant once, and every second one in the opposite order: what changes on the host while it goes
on (its clock rate, other work) falls on all variants alike, and a steady drift cancels out. A ratio is taken within a
round, and the rounds' ratios are the samples.

Rounds are made until the intervals of all comparisons are narrow enough, or until the next round would probably end
after the time is up; two are made in any case. The rule looks at the widths alone, never at where an interval lies:
stopping as soon as a threshold is cleared would make every claim come true, or false, in the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Final, TypeAlias

from migpool.experiments.finding import ComparisonFinding, Ended
from migpool.experiments.form import Comparison, Experiment, Measure, Variant
from migpool.experiments.qemu_pair import DevicesTable, MachineTable, loads_ms, migrate_qemu
from migpool.experiments.verdict import compared, median_interval
from migpool.lab.result_of_sides import run_result
from migpool.lab.run.process_pair import ProcessPair
from migpool.lab.run.result import RunResult
from migpool.scenario.schema import Scenario

MOST_FAILURES: Final = 3
"""Runs that may fail before the experiment is given up."""

LEAST_ROUNDS: Final = 2
"""Rounds that are made whatever time they take: one alone has no interval."""

Round: TypeAlias = dict[str, RunResult]
"""The runs of one round by their variants' names."""


Migrate: TypeAlias = Callable[[Scenario, str, int, str, Callable[[], bool]], RunResult | None]
"""Makes one run, or returns ``None`` if it was cancelled; the arguments are those of :func:`migrate`."""


def migrate(scenario: Scenario, model: str, repeat: int, where: str, stop: Callable[[], bool]) -> RunResult | None:
    """Migrate once between two processes on this host."""
    seed = scenario.seed + repeat
    pair = ProcessPair(scenario, model, seed, where).run(lambda _: None, stop)
    return None if pair.cancelled else run_result(model, repeat, seed, pair)


@dataclass(frozen=True, slots=True)
class Measured:
    """What the rounds gave.

    Arguments:
        rounds: all that were made, in order; the last may lack variants if it was cancelled.
        ended: why there are no more.
        seconds: how long they took.
        failures: the runs that failed, a line each.
    """

    rounds: Sequence[Round]
    ended: Ended
    seconds: float
    failures: Sequence[str]


def make_rounds(
    experiment: Experiment,
    seconds: float,
    *,
    stop: Callable[[], bool],
    say: Callable[[str], None],
    make: Migrate = migrate,
    make_qemu: Callable[[MachineTable, DevicesTable], RunResult] = migrate_qemu,
    clock: Callable[[], float] = time.monotonic,
) -> Measured:
    """Make two rounds or more.

    Arguments:
        seconds: for all rounds.
        stop, say: as for :func:`~migpool.experiments.runner.run_experiment`.
        make, make_qemu: make one run, of a scenario and of a QEMU's machine.
        clock: tells the time in seconds.

    Raises:
        UsageError: a scenario or a model cannot be used here, or QEMU.
        MigpoolError: a QEMU's migration did not complete.
    """
    variants = [one for one in experiment.variants if one.run]
    scenarios = {one.name: experiment.scenario_of(one, experiment.id) for one in variants if one.qemu is None}

    def run_of(variant: Variant, repeat: int) -> RunResult | None:
        if experiment.qemu is not None and variant.qemu is not None:
            return make_qemu(experiment.qemu, variant.qemu)
        each = make if variant.rack is None else variant.rack.migrate
        return each(scenarios[variant.name], variant.model, repeat, experiment.id, stop)

    rounds: list[Round] = []
    failures: list[str] = []
    longest = 0.0
    began = clock()
    ended: Ended | None = None
    while ended is None:
        begin = clock()
        runs: Round = {}
        for variant in variants[:: -1 if len(rounds) % 2 else 1]:
            run = run_of(variant, len(rounds) + 1)
            if run is None or stop():
                ended = "cancelled"
                break
            runs[variant.name] = run
            if not run.succeeded:
                failures.append(f"{variant.name}, round {len(rounds) + 1}: {run.error or run.outcome}")
        rounds.append(runs)
        longest = max(longest, clock() - begin)
        if ended is None:
            say(_told(experiment, rounds))
            ended = _over(experiment, rounds, len(failures), clock() - began + longest > seconds)
    return Measured(rounds, ended, clock() - began, failures)


def ratios(comparison: Comparison, rounds: Sequence[Round], kinds: Mapping[str, str] | None = None) -> list[float]:
    """The ratio of each round in which both runs came to their end.

    Arguments:
        kinds: of a QEMU's variants, which devices' loads are measured.
    """
    found = []
    for runs in rounds:
        above, below = (
            _value(runs.get(name), comparison.measure, (kinds or {}).get(name, ""))
            for name in (comparison.of, comparison.to)
        )
        if above and below:
            found.append(above / below)
    return found


def found_of(
    comparison: Comparison, rounds: Sequence[Round], kinds: Mapping[str, str] | None = None
) -> ComparisonFinding:
    """What some rounds say of a comparison; ``kinds`` as in :func:`ratios`."""
    found = ratios(comparison, rounds, kinds)
    interval = median_interval(found) if found else None
    known = {} if interval is None else asdict(interval)
    outcome = compared(comparison, interval)
    return ComparisonFinding(**comparison.model_dump(), ratios=found, **known, outcome=outcome)


def _value(run: RunResult | None, measure: Measure, kind: str) -> float | None:
    if run is None or not run.succeeded:
        return None
    if measure == "load":
        return median(loads_ms(run, kind) or [0.0])
    return run.downtime_ms if measure == "downtime" else run.total_ms


def _over(experiment: Experiment, rounds: Sequence[Round], failed: int, late: bool) -> Ended | None:
    if failed > MOST_FAILURES:
        return "failures"
    intervals = [median_interval(found) for found in _all_ratios(experiment, rounds) if found]
    narrow = [one for one in intervals if one.sure and one.spread <= experiment.effort.precision]
    if len(narrow) == len(experiment.measured):
        return "narrow"
    return "time" if late and len(rounds) >= LEAST_ROUNDS else None


def _all_ratios(experiment: Experiment, rounds: Sequence[Round]) -> list[list[float]]:
    return [ratios(one, rounds, experiment.kinds) for one in experiment.comparisons]


def _told(experiment: Experiment, rounds: Sequence[Round]) -> str:
    parts = []
    for comparison, found in zip(experiment.comparisons, _all_ratios(experiment, rounds), strict=True):
        if found:
            now = median_interval(found)
            parts.append(f"{comparison.name} {now.median:.2f} ({now.low:.2f} to {now.high:.2f})")
    return f"{experiment.id}, round {len(rounds)}: {'; '.join(parts) or 'no ratio yet'}"
