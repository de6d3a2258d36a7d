"""Runs one experiment from its file to its finding."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

from migpool.experiments.cancels import cancel_everywhere
from migpool.experiments.finding import ComparisonFinding, CountFinding, Finding, VariantFinding
from migpool.experiments.form import Experiment, Variant
from migpool.experiments.growing_pools import fields
from migpool.experiments.qemu_pair import loads_ms, program
from migpool.experiments.repetitions import Measured, Migrate, Round, found_of, make_rounds, migrate
from migpool.experiments.simulated import InVirtualTime, in_virtual_time
from migpool.experiments.verdict import WANTED, Piece, Verdict, counted, expected, verdict_of
from migpool.lab.report.summary import summarize
from migpool.lab.run.link.process import refusal
from migpool.lab.run.machine_facts import machine_facts
from migpool.lab.run.result import RunResult, ThreadCounts


def missing(experiment: Experiment) -> str:
    """What its runs need and this machine or this user has not, in words; empty if they can be made."""
    if experiment.qemu is not None:
        return "" if program() is not None else "it needs a QEMU, and there is none here"
    run = [experiment.scenario_of(variant, experiment.id) for variant in experiment.variants if variant.run]
    return refusal() if any(scenario.link.imposed for scenario in run) else ""


def run_experiment(
    experiment: Experiment,
    *,
    quick: bool,
    stop: Callable[[], bool],
    say: Callable[[str], None],
    make: Migrate = migrate,
    note: str = "",
) -> Finding:
    """Make an experiment's runs, and say what they show.

    Arguments:
        quick: whether to take the effort for a quick look.
        stop: asked several times a second; once it says true, the run under way is cancelled and no other is made.
        say: shows a line now and then.
        note: what to say of the machine; it stands in the finding.

    Raises:
        UsageError: a scenario or a model cannot be used here.
        MigpoolError: the machine of a count cannot be built, or does not migrate at all.
    """
    load = os.getloadavg()[0]
    seconds = experiment.effort.quick if quick else experiment.effort.seconds
    cancels = experiment.cancels
    if not experiment.runs:
        return found_in(experiment, Measured([], "simulated", 0.0, []), quick=quick, load=load, note=note)
    if cancels is None:
        measured = make_rounds(experiment, seconds, stop=stop, say=say, make=make)
        return found_in(experiment, measured, quick=quick, load=load, note=note)
    begin = time.monotonic()
    found = cancel_everywhere(
        experiment.scenario_of(None, experiment.id),
        cancels.models,
        cancels.quick if quick else cancels.waits,
        seconds,
        stop=stop,
        say=lambda line: say(f"{experiment.id}, {line}"),
    )
    counts = list(found)
    measured = Measured([], "cancelled" if stop() else "counted", time.monotonic() - begin, [])
    return found_in(experiment, measured, counts, quick=quick, load=load, note=note)


def found_in(
    experiment: Experiment,
    measured: Measured,
    counts: Sequence[CountFinding] = (),
    *,
    quick: bool,
    load: float,
    note: str = "",
) -> Finding:
    """What an experiment's rounds and its simulation show, and ``counts``.

    Arguments:
        load: the load average when it began.
        note: what to say of the machine.
    """
    rounds = measured.rounds
    simulated = {
        one.name: found
        for one in experiment.variants
        if (world := experiment.world_of(one, experiment.id)) is not None
        and (found := in_virtual_time(world) if one.rack is None else one.rack.in_virtual_time(world, one.model))
    }
    comparisons = [_beside(found_of(one, rounds, experiment.kinds), simulated) for one in experiment.comparisons]
    counts = [*counts, *(_within(limit.name, limit.most, rounds) for limit in experiment.limits)]
    deciding = [one for one in comparisons if one.decides]
    pieces = []
    for one in deciding:
        if not experiment.runs and one.simulated is not None:
            told = f"{one.simulated:.2f}; expected {expected(one.least, one.most)}"
            pieces.append(Piece(one.name, "open", told))
            continue
        told = one.interval if one.median is None else f"{one.interval}; expected {expected(one.least, one.most)}"
        pieces.append(Piece(one.name, one.outcome, told))
    verdict = verdict_of([*pieces, *_never(counts)], experiment.depends)
    if not experiment.runs:
        listed = "; ".join(f"{one.name} ({one.told})" for one in pieces)
        verdict = Verdict("depends", f"Nothing was run, so nothing is decided. Simulated: {listed}.")
    return Finding(
        schema=1,
        **experiment.model_dump(include={"id", "title", "claim", "by"}),
        method=" ".join(experiment.method.split()),
        verdict=verdict.word,
        reason=verdict.reason,
        preliminary=any((one.coverage or 0.0) < WANTED for one in deciding),
        quick=quick,
        ended=measured.ended,
        precision=experiment.effort.precision,
        rounds=len(rounds),
        seconds=measured.seconds,
        machine=machine_facts(),
        load=load,
        note=note,
        variants=[_variant(one, rounds, simulated.get(one.name)) for one in experiment.variants],
        comparisons=comparisons,
        counts=counts,
        growing=fields(experiment.variants, rounds),
        failures=list(measured.failures),
    )


def _beside(found: ComparisonFinding, simulated: Mapping[str, InVirtualTime]) -> ComparisonFinding:
    """A comparison with its ratio in virtual time; that of downtimes alone is simulated."""
    of, to = simulated.get(found.of), simulated.get(found.to)
    if found.measure != "downtime" or of is None or to is None or not to.downtime_ms:
        return found
    return found.model_copy(update={"simulated": of.downtime_ms / to.downtime_ms})


def _never(counts: Sequence[CountFinding]) -> Iterator[Piece]:
    """One piece for each kind of count: those of all models together."""
    for what in dict.fromkeys(one.what for one in counts):
        same = [one for one in counts if one.what == what]
        total, wrong = sum(one.total for one in same), sum(one.wrong for one in same)
        # A kind of which one model has nothing to count is not decided by the others' counts.
        outcome = counted(min(one.total for one in same), wrong)
        yield Piece(what, outcome, f"{wrong} of {total}", never=True)


def _within(name: str, most: float, rounds: Sequence[Round]) -> CountFinding:
    shares = {
        f"{variant}, round {number}": share
        for number, runs in enumerate(rounds, start=1)
        for variant, run in runs.items()
        if (share := _memory_share(run)) is not None
    }
    seen = [f"{where}: {share:.2f}" if share > most else "" for where, share in shares.items()]
    return CountFinding.of("", f"{name} over {most:g}", seen)


def _memory_share(run: RunResult) -> float | None:
    used, budget = run.memory.high_water_bytes, run.memory.budget_bytes
    return None if used is None or not budget else used / budget


def _variant(variant: Variant, rounds: Sequence[Round], simulated: InVirtualTime | None) -> VariantFinding:
    runs = [found for one in rounds if (found := one.get(variant.name)) is not None]
    summaries = summarize(runs)
    threads = summaries[0].threads if summaries else (None, None)
    shares = [share for run in runs if (share := _memory_share(run)) is not None]
    return VariantFinding(
        name=variant.name,
        model=variant.model,
        set=variant.set,
        run=variant.run,
        simulated=variant.simulated,
        downtime_ms=[run.downtime_ms if run.succeeded else None for run in runs],
        total_ms=[run.total_ms if run.succeeded else None for run in runs],
        threads=ThreadCounts(source=threads[0], destination=threads[1]),
        memory_share=max(shares, default=None),
        where=dict(summaries[0].kinds) if summaries else {},
        simulated_ms=None if simulated is None else simulated.downtime_ms,
        simulated_held=None if simulated is None else simulated.held,
        simulated_early=None if simulated is None else simulated.early,
        qemu=variant.qemu,
        loads_ms=[] if variant.qemu is None else _middle([loads_ms(run, variant.qemu.kind) for run in runs]),
        remarks=runs[-1].remarks if variant.qemu is not None and runs else [],
    )


def _middle(loads: Sequence[Sequence[float]]) -> list[float]:
    """What the devices of a variant took to load, in the order of loading: the median of the rounds."""
    return [median(times) for times in zip(*loads, strict=False)]
