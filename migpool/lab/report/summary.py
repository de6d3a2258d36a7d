"""What many runs say together: one summary a model, the answer in a sentence, and what the numbers rest on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median, median_low
from typing import Final, NamedTuple

from migpool.lab.analysis.why import representatives
from migpool.lab.report import link
from migpool.lab.run.result import LabResult, RunResult
from migpool.units import format_duration, format_share

MOST_NAMED: Final = 3
"""Devices that a line names."""


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """All runs of one model. Medians, least and most are over the completed runs; ``None`` if there is none.

    Attributes:
        verified: how many of them completed with every state verified.
        uncompared: how many completed without that every state could be compared.
        downtime: median in milliseconds.
        efficiency: the lower bound divided by the median downtime.
        total: median of the total time in milliseconds.
        threads: the most threads at once, at the source and at the destination.
        kinds: where the downtime went, mean milliseconds a kind, largest first.
        budget: the destination's memory budget in bytes.
        high_water: the most of it that any run used.
        rss: the destination process's largest resident size in any run.
    """

    model: str
    runs: int
    verified: int
    uncompared: int
    downtime: float | None
    least: float
    most: float
    efficiency: float | None
    total: float | None
    threads: tuple[int, int]
    kinds: tuple[tuple[str, float], ...]
    budget: int
    high_water: int
    rss: int


def summarize(runs: Sequence[RunResult]) -> list[ModelSummary]:
    """One summary for each model, the fastest first, those that never completed last."""
    by_model: dict[str, list[RunResult]] = defaultdict(list)
    for run in runs:
        by_model[run.model].append(run)
    summaries = [_summary(model, of_it) for model, of_it in by_model.items()]
    return sorted(summaries, key=lambda one: (one.downtime is None, one.downtime or 0.0))


def _summary(model: str, runs: Sequence[RunResult]) -> ModelSummary:
    done = [run for run in runs if run.outcome == "completed"]
    downtimes = [run.downtime_ms for run in done if run.downtime_ms is not None]
    efficiencies = [run.efficiency for run in done if run.efficiency is not None]
    totals = [run.total_ms for run in done if run.total_ms is not None]
    kinds: dict[str, list[float]] = defaultdict(list)
    for run in done:
        for kind, milliseconds in run.attribution.items():
            kinds[kind].append(milliseconds)
    means = [(kind, sum(parts) / len(done)) for kind, parts in kinds.items()]
    return ModelSummary(
        model=model,
        runs=len(runs),
        verified=sum(run.verified is True for run in runs),
        uncompared=sum(run.succeeded and run.verified is None for run in runs),
        downtime=median(downtimes) if downtimes else None,
        least=min(downtimes, default=0.0),
        most=max(downtimes, default=0.0),
        efficiency=median(efficiencies) if efficiencies else None,
        total=median(totals) if totals else None,
        threads=(
            max((run.threads.source or 0 for run in runs), default=0),
            max((run.threads.destination or 0 for run in runs), default=0),
        ),
        kinds=tuple(sorted(means, key=lambda pair: -pair[1])),
        budget=max((run.memory.budget_bytes or 0 for run in runs), default=0),
        high_water=max((run.memory.high_water_bytes or 0 for run in runs), default=0),
        rss=max((run.memory.peak_rss_bytes or 0 for run in runs), default=0),
    )


def answer(summaries: Sequence[ModelSummary]) -> str:
    """Which model is the fastest, and by how much; only as far as the spread of the runs allows to say it.

    Two models count as level if the ranges of their downtimes overlap. Empty if no run completed.
    """
    done = [one for one in summaries if one.downtime is not None]
    if not done:
        return ""
    first, *others = done
    if not others:
        least, most = format_duration(first.least / 1e3), format_duration(first.most / 1e3)
        spread = f" ({least} to {most} in {first.runs} runs)" if first.runs > 1 else ""
        return f"{first.model}: {_ms(first)} downtime{spread}."
    runs = min(one.runs for one in done)
    if runs == 1:  # a share of what may be chance would say too much
        slower = ", ".join(f"{one.model} {_ms(one)}" for one in others)
        said = f"{first.model} had the shortest downtime: {_ms(first)}; {slower}"
        return f"{said}. One run of each: the spread is not known, use --repeats."
    level = [one for one in others if one.least <= first.most]
    apart = [one for one in others if one.least > first.most]
    if level:
        names = f"{', '.join(one.model for one in (first, *level[:-1]))} and {level[-1].model}"
        said = f"Level within the spread of the runs: {names} ({_ms(first)} to {_ms(level[-1])})"
    else:
        said = f"{first.model} has the shortest downtime: {_ms(first)}"
        said += f", {_less(first, apart[0])} than {apart[0].model} ({_ms(apart[0])})"
        apart = apart[1:]
    if apart:
        said += f"; {'each at least' if level else 'and'} {_less(level[-1] if level else first, apart[-1])}"
        said += f" than {apart[-1].model} ({_ms(apart[-1])}), the slowest"
    return f"{said}. Medians of {runs} runs each."


def _less(fast: ModelSummary, slow: ModelSummary) -> str:
    assert fast.downtime is not None
    assert slow.downtime is not None
    return f"{100 * (1 - fast.downtime / slow.downtime):.0f} % shorter"


def _ms(one: ModelSummary) -> str:
    return format_duration((one.downtime or 0.0) / 1e3)


class Fact(NamedTuple):
    """One line: what it is about, and what there is to say."""

    term: str
    text: str


def foundations(result: LabResult) -> Iterator[Fact]:
    """What the numbers of a result rest on, line by line, on the terminal and on the page.

    The devices, the host, the clock and the bound; what the devices and the models remark; each warning once.
    """
    runs = result.runs
    facts = [
        ("Devices", _devices(runs)),
        ("Remarks", _remarks(runs)),
        ("Not compared", "" if result.machine is None else _uncompared(runs)),
        ("Host", "" if result.machine is None else str(result.machine)),
        ("Clock", ", ".join(_CLOCKS.get(clock, clock) for clock in sorted({run.clock for run in runs if run.clock}))),
        ("Clocks", next((run.clocks for run in reversed(runs) if run.clocks), "")),
        ("Pre-copy", _precopied(runs)),
        *link.facts(runs, [runs[place] for place in representatives(runs)]),
    ]
    if (bound := result.lower_bound) is not None:
        limit = f"{format_duration(bound.milliseconds / 1e3)}, set by {bound.limited_by}"
        facts.append(("Lower bound", f"{limit}; efficiency is this over the downtime"))
    facts += [
        ("Remark", remark) for remark in dict.fromkeys(f"{told_by(run)}{one}" for run in runs for one in run.remarks)
    ]
    facts += [("Warning", warning) for warning in dict.fromkeys(one for run in runs for one in run.warnings)]
    yield from (Fact(term, text) for term, text in facts if text)


_CLOCKS: Final = {
    "monotonic": "one for both sides (CLOCK_MONOTONIC)",
    "exchanges": "the destination's, related to the source's by messages there and back",
    "return-path": "the source's; the answer's arrival less half a round trip",
}


def told_by(run: RunResult) -> str:
    """Which model a remark is about; empty for what a QEMU's logs say, which are of no model and no run of ours."""
    return "" if run.checkpoints else f"{run.model}, "


def _remarks(runs: Sequence[RunResult]) -> str:
    devices = next((run.devices for run in reversed(runs) if run.devices), [])
    return "; ".join(f"{device.name} {device.remark}" for device in devices if device.remark)


def _uncompared(runs: Sequence[RunResult]) -> str:
    """Which devices' state was not compared in runs that completed, and why; empty if all was."""
    names = dict.fromkeys(name for run in runs if run.succeeded and run.verified is None for name in run.uncompared)
    return f"{some_of(list(names))}: no fingerprint" if names else ""


def some_of(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    return ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if names[MOST_NAMED:] else "")


def _precopied(runs: Sequence[RunResult]) -> str:
    """What moved before the stop, and what that saved, in the run in the middle; empty if nothing did."""
    some = [run for run in runs if run.outcome == "completed" and run.bytes_before_stop]
    if not some:
        return ""
    before, whole = (median_low(getattr(run, name) for run in some) for name in ("bytes_before_stop", "bytes"))
    said = f"{format_share(before, whole)} moved before the stop"
    if saved := [run.precopy_saved_ms for run in some if run.precopy_saved_ms is not None]:
        said += f", which saved about {format_duration(median(saved) / 1e3)} of downtime"
        least, most = (format_duration(of(saved) / 1e3) for of in (min, max))
        said += f" ({least.removesuffix(' ms')}-{most.removesuffix(' ms')})" if len(saved) > 1 else ""
    return said


def _devices(runs: Sequence[RunResult]) -> str:
    devices = next((run.devices for run in runs if run.devices), [])
    counts = Counter(device.note or ("iterable" if device.iterable else "not iterable") for device in devices)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def headline(result: LabResult) -> str:
    """The first sentences: which model, how much, and what limits it; empty if no run completed."""
    done = [(one, one.downtime) for one in summarize(result.runs) if one.downtime is not None]
    if not done:
        return ""
    (first, downtime), *others = done
    level = any(one.least <= first.most for one, _ in others)
    time = f"{format_duration(downtime / 1e3)} of downtime"
    said = f"{first.model} {'is among the fastest' if level else 'is the fastest'}, with {time}."
    return " ".join(filter(None, (said if others else f"{first.model}: {time}.", limit_line(result))))


def limit_line(result: LabResult) -> str:
    """What limits the fastest model; empty if that is not known."""
    first = next((one for one in summarize(result.runs) if one.downtime is not None), None)
    run = None if first is None else looked_into(result.runs).get(first.model)
    if first is None or first.downtime is None or run is None or run.analysis is None or not run.analysis.why:
        return ""
    # With an even number of runs none of them has the median.
    of_it, middle = (format_duration(one / 1e3) for one in (run.downtime_ms or 0.0, first.downtime))
    whose = "" if of_it == middle else f", in the run with {of_it}"
    return f"What limits it{whose}: {run.analysis.why}"


def looked_into(runs: Sequence[RunResult]) -> dict[str, RunResult]:
    """By model, the run that has an analysis; of joined files the one nearest the median."""
    found = {}
    for place in representatives(runs):
        model, middle = runs[place].model, runs[place].downtime_ms or 0.0
        of_it = [run for run in runs if run.model == model and run.analysis is not None]
        if of_it:
            found[model] = min(of_it, key=lambda run: abs((run.downtime_ms or 0.0) - middle))
    return found


def checkpoint_rows(run: RunResult) -> list[tuple[str, str, str]]:
    """QEMU's checkpoints, when each was, and how long after the one before."""
    before = 0.0
    rows = []
    for point, at in run.checkpoints.items():
        rows.append((point, format_duration(at / 1e3), format_duration((at - before) / 1e3)))
        before = at
    return rows
